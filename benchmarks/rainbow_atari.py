"""Rainbow and PPO on Crazy Climber at the same time, each on a core of its own: what a minute buys with either.

agentctl bench rainbow-atari --minutes 30

The curves hold the mean return of 8 evaluation episodes over minutes of training, evaluations included.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _baselines import best_constant_action
from _results import Figure, Report

ENDLESS = ("-s", "run.steps=100_000_000")
RAINBOW = ("configs/atari/climber-rainbow.yaml", *ENDLESS)
PPO = (
    "configs/atari/default.yaml", "-s", "policy.anneal_steps=null", "-s", "policy.threads=1", "-s",
    "run.cycle_steps=50_000", "-s", "evaluation={episodes: 8, max_steps: 4_000}", *ENDLESS,
)  # fmt: skip
QUIET = ("-p", "no:recorder", "-p", "no:tensorboard", "-p", "no:report", "-p", "no:progress")
SECONDS_TO_STOP = 300


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--minutes", type=float, default=30, help="of each (default 30)")
    minutes = made.parse_args().minutes
    report = Report("rainbow-atari")
    with tempfile.TemporaryDirectory() as folder:
        runs = {name: Path(folder) / name for name in AGENTS}
        play(runs, 60 * minutes)
        for name, run in runs.items():
            tell(report, name, run, 60 * minutes)
    report.add(Figure("the best constant action", best_constant_action(RAINBOW[0]), "points"))
    report.write()


AGENTS = {"Rainbow": RAINBOW, "PPO": PPO}


def play(runs: dict[str, Path], seconds: float) -> None:
    """All of them at once, then Ctrl-C. Ends here when one fails sooner."""
    cores = sorted(os.sched_getaffinity(0))
    processes = [start(core, AGENTS[name], run) for core, (name, run) in zip(cores, runs.items(), strict=False)]
    try:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if failed := [process for process in processes if process.poll() is not None]:
                raise SystemExit(f"{failed[0].args} ended with {failed[0].returncode}")
            time.sleep(1)
        for process in processes:
            process.send_signal(signal.SIGINT)
        for process in processes:
            process.wait(SECONDS_TO_STOP)
    finally:
        for process in processes:
            process.kill()


def start(core: int, words: tuple[str, ...], out: Path) -> subprocess.Popen[bytes]:
    """`agentctl run` on one core."""
    command = [sys.executable, "-m", "agentctl.core.cli", "run", *words, *QUIET, "--out", str(out), "--json"]
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, preexec_fn=lambda: os.sched_setaffinity(0, {core})
    )


def tell(report: Report, name: str, run: Path, seconds: float) -> None:
    """The best and the last evaluation in time, and how many steps that took."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    judged = [line for line in lines if line["event"] == "evaluation" and line["seconds"] <= seconds]
    beside = ("random policy", judged[-1]["return_random"])
    report.curves[name] = [(round(line["seconds"] / 60, 2), line["return_mean"]) for line in judged]
    best = max(line["return_mean"] for line in judged)
    report.add(Figure(f"{name}: last return", judged[-1]["return_mean"], "points", baseline=beside, seeds=(1,)))
    report.add(Figure(f"{name}: best return", best, "points", baseline=beside, seeds=(1,)))
    report.add(Figure(f"{name}: steps", judged[-1]["step"], "steps"))
    report.add(Figure(f"{name}: minutes", judged[-1]["seconds"] / 60, "min"))


if __name__ == "__main__":
    main()
