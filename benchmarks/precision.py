"""bfloat16 beside float32: the default game's curve in both, on the same seeds, one core a run."""

from __future__ import annotations

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from _results import Report, over_seeds, run_agentctl
from atari_default import CONFIG, curve

SEEDS = (1, 2)
STEPS = 60_000
SETTINGS = (
    f"run.steps={STEPS}",
    f"policy.anneal_steps={STEPS}",
    "run.cycle_steps=20000",
    "policy.threads=1",
    "evaluation.max_steps=2000",
)


def main() -> None:
    report = Report("precision")
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        finals = {precision: measure(precision, Path(folder), report) for precision in ("bf16", "fp32")}
    ratio = sum(finals["bf16"]) / sum(finals["fp32"])
    report.add(over_seeds("return in bf16 / in fp32", [ratio], SEEDS, "ratio"))
    report.write()


def measure(precision: str, folder: Path, report: Report) -> list[float]:
    """Every seed's last evaluation return; adds the figures and curves."""

    def train(seed: int) -> dict[str, float]:
        settings = (*SETTINGS, f"policy.precision={precision}", f"run.seed={seed}")
        out = folder / f"{precision}-{seed}"
        done = run_agentctl(CONFIG, *(part for setting in settings for part in ("-s", setting)), out=out)
        report.curves[f"{precision}, seed {seed}"] = curve(out)
        return done

    with ThreadPoolExecutor(len(SEEDS)) as pool:
        runs = list(pool.map(train, SEEDS))
    returns = [run["return_mean"] for run in runs]
    beside = ("random policy", runs[0]["return_random"])
    report.add(over_seeds(f"return in {precision} after {STEPS:,} steps", returns, SEEDS, "points", baseline=beside))
    return returns


if __name__ == "__main__":
    main()
