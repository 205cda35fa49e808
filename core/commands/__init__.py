"""The command line's groups, one file each. They import what they need when they run."""
