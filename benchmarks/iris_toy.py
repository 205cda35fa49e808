"""IRIS's whole loop on `toy/bounce`: the return of a policy that learnt in imagination alone, while it played.

agentctl bench iris-toy

Beside it play a random policy, the expert, which never misses, and the same run whose policy makes no update: what is
gained over that was learnt in imagination.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from _results import Figure, Report, over_seeds, run_agentctl

SEEDS = (0,)
CONFIG = "configs/toy/bounce-iris.yaml"
EXPERT = ("-s", "policy={name: bounce_expert, cell_pixels: 2}", "--off", "world_model", "-s", "run.steps=1_600")
ASLEEP = ("-s", "policy.warmup=1_000_000")


def main() -> None:
    report = Report("iris-toy")
    with tempfile.TemporaryDirectory() as folder:
        runs = [run_agentctl(CONFIG, "-s", f"run.seed={seed}", out=Path(folder) / f"{seed}") for seed in SEEDS]
        expert = run_agentctl(CONFIG, *EXPERT, out=Path(folder) / "expert")
        asleep = run_agentctl(CONFIG, *ASLEEP, out=Path(folder) / "asleep")
    returns = [run["return_mean"] for run in runs]
    beside = ("random policy", runs[0]["return_random"])
    report.add(over_seeds("return after learning in imagination", returns, SEEDS, "points", baseline=beside))
    report.add(Figure("return of the expert", expert["return_mean"], "points", baseline=beside))
    report.add(Figure("return without the policy's updates", asleep["return_mean"], "points", baseline=beside))
    report.add(over_seeds("time of a run", [run["seconds"] for run in runs], SEEDS, "s"))
    report.write()


if __name__ == "__main__":
    main()
