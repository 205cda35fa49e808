"""One YAML is one run, grouped by game; data only, read through `importlib.resources`."""
