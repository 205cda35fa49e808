"""The toy with every noun on, and with each one switched off, on five seeds at the same budget."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from _results import Report, over_seeds, run_agentctl

SEEDS = (0, 1, 2, 3, 4)


def main() -> None:
    report = Report("toy")
    with tempfile.TemporaryDirectory() as folder:
        whole = runs(Path(folder), "everything")
        random = sum(run["return_random"] for run in whole) / len(whole)
        beside = ("random policy", random)
        returns = [run["return_mean"] for run in whole]
        report.add(over_seeds("return, every noun on", returns, SEEDS, "points", baseline=beside, goal=(">=", 0.95)))
        for kind in ("memory", "world_model", "reward"):
            returns = [run["return_mean"] for run in runs(Path(folder), kind, "--off", kind)]
            report.add(over_seeds(f"return, {kind} off", returns, SEEDS, "points", baseline=beside, goal=("<=", 0.7)))
    report.add(over_seeds("time of a run", [run["seconds"] for run in whole], SEEDS, "s", goal=("<=", 60)))
    report.write()


def runs(folder: Path, name: str, *arguments: str) -> list[dict[str, Any]]:
    """One run a seed."""
    return [
        run_agentctl("configs/toy/lantern.yaml", "-s", f"run.seed={seed}", *arguments, out=folder / f"{name}-{seed}")
        for seed in SEEDS
    ]


if __name__ == "__main__":
    main()
