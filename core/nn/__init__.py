"""What torch components share: device and precision, data-parallel gradients, snapshots. Core itself imports none."""
