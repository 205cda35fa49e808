"""One world model of three games, and how soon it foresees a fourth, beside one that begins from nothing.

agentctl bench multi-game [--work FOLDER]

A tokenizer and a transformer learn Pong, Breakout and toy/bounce together, from random play, and are scored game by
game on episodes that nothing learnt from. Then both go on in a game that they never saw, with little experience. The
transformer is measured beside one that begins anew, with the same tokenizer, the same frames and as many updates: on
the same tokens, what is compared is the transformer alone. Copying the last frame stands beside both.

With `--work` what has learnt is kept there, and a benchmark that was stopped goes on with the runs that are missing.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from _results import Figure, Report, run_agentctl
from _worlds import World, held_out

from agentctl.core.types import Metrics
from agentctl.world_models.token_metrics import TokenScore

YAML = "configs/atari/multi-model.yaml"
SIZE = {"height": 64, "width": 64, "colour": "rgb", "stack": 1, "threads": 1}
LEARNT = [
    {"name": "atari/pong", **SIZE},
    {"name": "atari/breakout", **SIZE},
    {"name": "toy/bounce", "cells": 16, "cell_pixels": 4},
]
UNSEEN = {"name": "atari/space_invaders", **SIZE}
EYES = {"codes": 512, "receptive_field": "patch", "width": 32, "threads": 1, "lr": 2e-3}
BRAIN = {"generation": "v3", "layers": 2, "dim": 64, "heads": 4, "lr": 2e-3, "threads": 1}
EYE_UPDATES, BRAIN_UPDATES, NEW_EYE_UPDATES = 1_600, 2_400, 400
FEW = (50, 200, 800)
"""Updates of the transformer on the game that it never saw."""

EVERY, BATCH, HISTORY, WARMUP = 8, 48, 4, 2_400
PLAYED, SAMPLES = 12_000, 2_048


def main() -> None:
    parser = argparse.ArgumentParser(prog="agentctl bench multi-game")
    parser.add_argument("--work", type=Path, help="keep what has learnt here, and go on with it")
    given, report = parser.parse_args(), Report("multi-game")
    with tempfile.TemporaryDirectory() as scratch:
        work = given.work or Path(scratch)
        together(report, work)
        few_shots(report, work)
    report.write()


def together(report: Report, work: Path) -> None:
    """Three games in one model."""
    seconds = learnt(LEARNT, tokenizer(EYE_UPDATES), EYE_UPDATES, work / "eyes")
    seconds += learnt(LEARNT, transformer(work / "eyes"), BRAIN_UPDATES, work / "three")
    report.add(Figure("time to learn three games", seconds, "s"))
    for game, block in enumerate(LEARNT):
        score(report, World.of(work / "three", 12), str(block["name"]), game)


def few_shots(report: Report, work: Path) -> None:
    """The fourth game, from what was learnt and from nothing."""
    begun = {**tokenizer(NEW_EYE_UPDATES), "from": str(work / "eyes")}
    learnt([UNSEEN], begun, NEW_EYE_UPDATES, work / "new-eyes")
    for updates in FEW:
        found = {}
        for name, more in {"after three games": {"from": str(work / "three")}, "from nothing": {}}.items():
            run = work / f"{name.replace(' ', '-')}-{updates}"
            learnt([UNSEEN], transformer(work / "new-eyes") | more, updates, run)
            title = f"{UNSEEN['name']}, {updates} updates {name}"
            found[name] = score(report, World.of(run, 8), title, 0)["changed_accuracy"]
        gain = found["after three games"] - found["from nothing"]
        report.add(Figure(f"{UNSEEN['name']}, {updates} updates: gain on changed tokens", gain, "share"))


def tokenizer(updates: int) -> dict[str, Any]:
    return {"name": "vqvae", **EYES, "frozen_after": updates}


def transformer(eyes: Path) -> dict[str, Any]:
    return {"name": "token_transformer", **BRAIN, "tokenizer": {**EYES, "from": str(eyes), "frozen_after": 0}}


def learnt(games: list[dict[str, Any]], model: dict[str, Any], updates: int, run: Path) -> float:
    """Seconds that it took; what is there already is not learnt again."""
    done = run.with_name(f"{run.name}.json")
    if not done.exists():
        shutil.rmtree(run, ignore_errors=True)  # a run that was stopped
        replay: dict[str, Any] = {"name": "uniform", "capacity": 40_000}
        if model["name"] == "token_transformer":  # tokens are kept, so that no frame is read twice
            replay = {"name": "tokens", "capacity": 40_000, "history": 1, "length": HISTORY, "priority": False}
            replay["keep"] = ["tokens", "game", "action_mask"]
        replay |= {"warmup": WARMUP, "every": EVERY, "batch_size": BATCH}
        told = {"game": {"name": "multi", "batch": 12, "games": games}, "world_model": model, "replay": replay}
        steps = WARMUP + EVERY * updates
        settings = {"run.steps": steps, "run.cycle_steps": steps, "evaluation.episodes": 3, "evaluation.max_steps": 50}
        words = [word for key, part in told.items() for word in ("-s", f"{key}={json.dumps(part)}")]
        words += [word for key, value in settings.items() for word in ("-s", f"{key}={value}")]
        done.write_text(json.dumps(run_agentctl(YAML, *words, out=run)), encoding="utf-8")
    seconds: float = json.loads(done.read_text(encoding="utf-8"))["seconds"]
    return seconds


def score(report: Report, world: World, title: str, game: int) -> Metrics:
    """One step ahead, all tokens at once, on samples of one game that nothing learnt from."""
    total = TokenScore(world.model.sizes.codes)
    for batch in held_out(world, PLAYED, SAMPLES, HISTORY):
        world.model.measure(batch, total, "parallel", game)
    found = total.metrics()
    copying, nothing = ("copying the last frame", found["copy_accuracy"]), ("copying the last frame", 0.0)
    report.add(Figure(f"{title}: token accuracy", found["accuracy"], "share", baseline=copying))
    notes = f"{found['changed_share']:.1%} of all"
    changed = found["changed_accuracy"]
    report.add(Figure(f"{title}: accuracy of changed tokens", changed, "share", baseline=nothing, notes=notes))
    unigram = ("the tokens' frequencies", found["unigram_bits"])
    report.add(Figure(f"{title}: bits per token", found["bits"], "bits", baseline=unigram))
    return found


if __name__ == "__main__":
    main()
