"""CartPole-v1 by every agent that learns it, on three seeds: the mean return of 100 episodes, beside the random policy.

agentctl bench cartpole                       # all of them: a quarter of an hour
agentctl bench cartpole --agent PPO           # one, into a result file of its own
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from _results import Report, over_seeds, run_agentctl

SEEDS = (0, 1, 2)
CONFIGS = {
    "PPO": "cartpole",
    "A2C": "cartpole-a2c",
    "A3C": "cartpole-a3c",
    "DQN": "cartpole-dqn",
    "Rainbow": "cartpole-rainbow",
}


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--agent", action="append", choices=list(CONFIGS), help="only this one")
    asked = made.parse_args().agent
    report = Report("-".join(["cartpole", *(agent.lower() for agent in asked or ())]))
    for agent in asked or CONFIGS:
        measure(agent, report)
    report.write()


def measure(agent: str, report: Report) -> None:
    config = f"configs/gym/{CONFIGS[agent]}.yaml"
    with tempfile.TemporaryDirectory() as folder:
        runs = [run_agentctl(config, "-s", f"run.seed={seed}", out=Path(folder) / str(seed)) for seed in SEEDS]
    returns = [run["return_mean"] for run in runs]
    beside = ("random policy", sum(run["return_random"] for run in runs) / len(runs))
    report.add(over_seeds(f"{agent}: return", returns, SEEDS, "points", baseline=beside, goal=(">=", 475)))
    lowest = over_seeds(
        f"{agent}: lowest return of the seeds", [min(returns)], SEEDS, "points", baseline=beside, goal=(">=", 475)
    )
    report.add(lowest)
    report.add(over_seeds(f"{agent}: time of a run", [run["seconds"] for run in runs], SEEDS, "s"))


if __name__ == "__main__":
    main()
