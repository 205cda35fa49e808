"""The default run on three seeds: what a newcomer sees in five minutes, beside the random policy and a human."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from _baselines import best_constant_action
from _results import Figure, Report, over_seeds, run_agentctl

CONFIG = "configs/atari/default.yaml"
SEEDS = (1, 2, 3)
HUMAN = 35_829  # Crazy Climber, Mnih et al. 2015, doi:10.1038/nature14236, extended data table 2


def main() -> None:
    report = Report("atari-default")
    with tempfile.TemporaryDirectory() as folder:
        runs = [run_agentctl(CONFIG, "-s", f"run.seed={seed}", out=Path(folder) / str(seed)) for seed in SEEDS]
        report.curves = {f"seed {seed}": curve(Path(folder) / str(seed)) for seed in SEEDS}
    random = runs[0]["return_random"]  # the same in all: the evaluation seeds are fixed
    returns = [run["return_mean"] for run in runs]
    beside = ("random policy", random)
    report.add(over_seeds("return", returns, SEEDS, "points", baseline=beside))
    report.add(over_seeds("return / random", [r / random for r in returns], SEEDS, "ratio", goal=(">=", 5)))
    report.add(Figure("the best constant action", best_constant_action(CONFIG), "points", baseline=beside))
    report.add(Figure("published human score", HUMAN, "points"))
    seconds = [run["seconds"] for run in runs]
    report.add(over_seeds("time of a run, evaluations included", seconds, SEEDS, "s", goal=("<=", 300)))
    rates = [run["steps_per_second"] for run in runs]
    report.add(over_seeds("speed of training", rates, SEEDS, "steps/s"))
    report.write()


def curve(run: Path) -> list[tuple[float, float]]:
    """(step, evaluation return) from a run's metrics.jsonl."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["return_mean"]) for line in lines if line["event"] == "evaluation"]


if __name__ == "__main__":
    main()
