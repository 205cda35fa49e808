"""bfloat16 learns as well as float32: the default run's evaluation curve in both, on the same seeds."""

from __future__ import annotations

import tempfile
from pathlib import Path

from _results import Report, over_seeds, run_agentctl
from atari_default import CONFIG, curve

SEEDS = (1, 2)
STEPS = 100_000


def main() -> None:
    report = Report("precision")
    finals = {}
    with tempfile.TemporaryDirectory() as folder:
        for precision in ("bf16", "fp32"):
            settings = [f"policy.precision={precision}", f"run.steps={STEPS}", f"policy.anneal_steps={STEPS}"]
            runs = []
            for seed in SEEDS:
                overrides = [
                    part for s in (*settings, f"run.seed={seed}", "run.cycle_steps=25000") for part in ("-s", s)
                ]
                out = Path(folder) / f"{precision}-{seed}"
                runs.append(run_agentctl(CONFIG, *overrides, out=out))
                report.curves[f"{precision}, seed {seed}"] = curve(out)
            random = sum(run["return_random"] for run in runs) / len(runs)
            finals[precision] = [run["return_mean"] for run in runs]
            beside = ("random policy", random)
            report.add(over_seeds(f"return in {precision}", finals[precision], SEEDS, "points", baseline=beside))
            rates = [run["steps_per_second"] for run in runs]
            report.add(over_seeds(f"speed in {precision}", rates, SEEDS, "steps/s"))
    ratios = [ours / theirs for ours, theirs in zip(finals["bf16"], finals["fp32"], strict=True)]
    report.add(over_seeds("return in bf16 / in fp32", ratios, SEEDS, "ratio", goal=(">=", 0.9)))
    report.write()


if __name__ == "__main__":
    main()
