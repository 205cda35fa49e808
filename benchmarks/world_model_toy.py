"""A world model of `toy/bounce`: what it foresees, how far its dreams drift, and a policy that learns in them alone.

agentctl bench world-model-toy [--model RUN]

The model learns from random play. It is measured on games that it never saw, beside copying the last frame; the policy
that learnt in dreams plays the real game, beside one that learnt there with as many steps, and a random one. `--model`
names a run of configs/toy/bounce-model.yaml, as a benchmark that was stopped had learnt it.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from _results import Figure, Report, over_seeds, run_agentctl
from _worlds import World, changed_psnr, held_out, psnr_by_step, rollout

from agentctl.games.toy.bounce import find
from agentctl.world_models.token_metrics import TokenScore

SEEDS = (0, 1, 2)
ROWS, HORIZONS = 64, (1, 8, 32)
MODEL, POLICY = "configs/toy/bounce-model.yaml", ("configs/toy/bounce.yaml", "-s", "run.steps=60_000")
CELLS, CELL_PIXELS = 8, 8  # as in the model's YAML


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--model", type=Path, help="a run that has learnt the model already")
    given = made.parse_args().model
    report = Report("world-model-toy")
    with tempfile.TemporaryDirectory() as folder:
        model = given or Path(folder) / "model"
        if given is None:
            report.add(Figure("time to learn the model", run_agentctl(MODEL, out=model)["seconds"], "s"))
        foresight(report, World.of(model, ROWS))
        drift(report, World.of(model, ROWS, seed=778_000))
        report.write()  # kept whatever becomes of the rest
        policies(report, model, Path(folder))
    report.write()


def foresight(report: Report, world: World) -> None:
    """One step ahead, on 4 096 samples of new games."""
    score = TokenScore(world.model.sizes.codes)
    for batch in held_out(world, 16_384, 4_096, world.model.sizes.history):
        world.model.measure(batch, score, "parallel")
    found = score.metrics()
    copying = ("copying the last frame", found["copy_accuracy"])
    report.add(Figure("token accuracy", found["accuracy"], "share", baseline=copying))
    nothing = ("copying the last frame", 0.0)
    report.add(
        Figure("accuracy of changed tokens", found["changed_accuracy"], "share", baseline=nothing, goal=(">=", 0.95))
    )
    unigram = ("the tokens' frequencies", found["unigram_bits"])
    report.add(Figure("bits per token", found["bits"], "bits", baseline=unigram))
    report.add(Figure("F1 of rewards", found["reward_f1"], "share", baseline=("no reward foreseen", 0.0)))
    report.add(Figure("AUC of ends", found["ended_auc"], "share", baseline=("chance", 0.5)))


def drift(report: Report, world: World) -> None:
    """Many steps ahead on its own imagination, with the actions that were taken in the real game."""
    for _ in range(8):
        world.step()  # past the first frames, that have no history
    found = rollout(world, max(HORIZONS))
    for horizon in HORIZONS:
        rows = found.going[horizon - 1]
        real, imagined, start = found.real[horizon - 1][rows], found.imagined[horizon - 1][rows], found.start[rows]
        psnr = changed_psnr(imagined, real, start)
        copied = ("the frame at the start", changed_psnr(start, real, start))
        notes = f"{int(rows.sum())} games that went on so long"
        report.add(Figure(f"PSNR of changed pixels, {horizon} ahead", psnr, "dB", baseline=copied, notes=notes))
        error, stood = ball_error(imagined, real), ball_error(start, real)
        there = ("the frame at the start", stood)
        report.add(Figure(f"ball off by, {horizon} ahead", error, "cells", baseline=there, notes=notes))
    report.curves["PSNR by steps ahead"] = psnr_by_step(found, found.imagined)


def ball_error(shown: np.ndarray, real: np.ndarray) -> float:
    """Mean distance in cells; a ball that is not shown counts as a board's width."""
    away = np.linalg.norm(find(shown, CELL_PIXELS).ball - find(real, CELL_PIXELS).ball, axis=1)
    return float(np.nan_to_num(away, nan=CELLS).mean())


def policies(report: Report, model: Path, folder: Path) -> None:
    """The same agent with as many steps, in the game and in the model. Both are evaluated in the game."""
    outside = ("-s", f"game={{name: toy/bounce, cells: {CELLS}, cell_pixels: {CELL_PIXELS}, limit: 100, batch: 32}}")
    inside = ("-s", f"game={{name: imagined, run: {model}, batch: 32}}")
    runs = {
        name: [run_agentctl(*POLICY, *words, "-s", f"run.seed={seed}", out=folder / f"{name}-{seed}") for seed in SEEDS]
        for name, words in {"real": outside, "imagined": inside}.items()
    }
    beside = ("random policy", runs["real"][0]["return_random"])
    real, dreamt = ([run["return_mean"] for run in runs[name]] for name in ("real", "imagined"))
    report.add(over_seeds("return after learning in the game", real, SEEDS, "points", baseline=beside))
    report.add(over_seeds("return after learning in imagination", dreamt, SEEDS, "points", baseline=beside))
    ratio = float(np.mean(dreamt) / np.mean(real))
    report.add(Figure("imagination / game", ratio, "ratio", goal=(">=", 0.9), seeds=SEEDS))
    for name, title in {"real": "game", "imagined": "imagination"}.items():
        report.add(over_seeds(f"time of a run in the {title}", [run["seconds"] for run in runs[name]], SEEDS, "s"))


if __name__ == "__main__":
    main()
