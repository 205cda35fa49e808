"""CartPole-v1 by PPO on three seeds: the mean return of 100 evaluation episodes, beside the random policy."""

from __future__ import annotations

import tempfile
from pathlib import Path

from _results import Report, over_seeds, run_agentctl

SEEDS = (0, 1, 2)


def main() -> None:
    report = Report("cartpole")
    with tempfile.TemporaryDirectory() as folder:
        runs = [
            run_agentctl("configs/gym/cartpole.yaml", "-s", f"run.seed={seed}", out=Path(folder) / str(seed))
            for seed in SEEDS
        ]
    random = sum(run["return_random"] for run in runs) / len(runs)
    returns = [run["return_mean"] for run in runs]
    beside = ("random policy", random)
    report.add(over_seeds("return", returns, SEEDS, "points", baseline=beside, goal=(">=", 475)))
    lowest = min(returns)
    report.add(over_seeds("lowest return of the seeds", [lowest], SEEDS, "points", baseline=beside, goal=(">=", 475)))
    report.add(over_seeds("time of a run", [run["seconds"] for run in runs], SEEDS, "s"))
    report.write()


if __name__ == "__main__":
    main()
