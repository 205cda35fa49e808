"""How much of an old game a tokenizer forgets while it learns a new one, with codebook rehearsal and without.

agentctl bench rehearsal

A tokenizer learns Pong, then, from there, Breakout: without rehearsal, with frames of Pong that the quantiser's
distances chose, and with as many chosen at random. What it still makes of Pong's frames is measured on games that
nothing learnt from. The mean picture of a game stands beside.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from _results import Figure, Report, run_agentctl
from _worlds import HELD_OUT, opened

from agentctl.core.evaluate import random_actions
from agentctl.core.types import Array
from agentctl.world_models.tokenizer import psnr

YAML = "configs/atari/pong-model.yaml"
OLD, NEW = "pong", "breakout"
UPDATES, EVERY, WARMUP = 1_000, 16, 2_000
WAYS: dict[str, dict[str, Any] | None] = {
    "without rehearsal": None,
    "rehearsal": {"frames": 256, "choose": "distance"},
    "rehearsal of random frames": {"frames": 256, "choose": "random"},
}
ROWS, STEPS, APART = 8, 1_600, 8


def main() -> None:
    report = Report("rehearsal")
    old, new = frames(OLD), frames(NEW)
    with tempfile.TemporaryDirectory() as folder:
        first = Path(folder) / OLD
        learnt(OLD, {"rehearsal": {}}, first)
        beside = ("the mean picture", psnr(float((old / 255).var(axis=0).mean())))
        before = quality(first, old)
        report.add(Figure(f"{OLD} before {NEW}", before, "dB", baseline=beside))
        for name, rehearsal in WAYS.items():
            run = Path(folder) / name.replace(" ", "-")
            learnt(NEW, {"from": str(first), "rehearsal": rehearsal}, run)
            after = quality(run, old)
            report.add(Figure(f"{OLD} after {NEW}, {name}", after, "dB", baseline=beside))
            report.add(Figure(f"{OLD} forgotten, {name}", before - after, "dB"))
            mean = ("the mean picture", psnr(float((new / 255).var(axis=0).mean())))
            report.add(Figure(f"{NEW}, {name}", quality(run, new), "dB", baseline=mean))
    report.write()


def learnt(game: str, more: dict[str, Any], run: Path) -> None:
    eyes = {"name": "vqvae", "codes": 512, "width": 32, "lr": 2e-3, "threads": 1, "frozen_after": UPDATES, **more}
    replay = {"name": "uniform", "capacity": 40_000, "warmup": WARMUP, "every": EVERY, "batch_size": 32}
    steps = WARMUP + EVERY * UPDATES
    settings = {"game": shown(game), "world_model": eyes, "replay": replay}
    words = [word for key, part in settings.items() for word in ("-s", f"{key}={json.dumps(part)}")]
    for key, value in {"run.steps": steps, "run.cycle_steps": steps, "evaluation.max_steps": 50}.items():
        words += ["-s", f"{key}={value}"]
    run_agentctl(YAML, *words, out=run)


def shown(game: str) -> dict[str, Any]:
    return {"name": f"atari/{game}", "batch": 8, "height": 64, "width": 64, "colour": "rgb", "stack": 1, "threads": 1}


def frames(game: str) -> Array:
    """Of games that nothing learnt from, uint8 (N, H, W, 3)."""
    from agentctl.core.plugins import default_registry
    from agentctl.core.protocols import Setup

    options = {key: value for key, value in shown(game).items() if key != "batch"}
    play, rng = default_registry().build("game", options, Setup(batch=ROWS)), np.random.default_rng(HELD_OUT)
    seen = [play.reset(HELD_OUT)["pixels"]]
    for step in range(1, STEPS):
        observation = play.step(random_actions(play.action_space, ROWS, rng)).observation
        if step % APART == 0:
            seen.append(observation["pixels"])
    play.close()
    return np.concatenate(seen)


def quality(run: Path, pictures: Array) -> float:
    """The PSNR of pictures that go through a run's tokenizer and back."""
    eyes: Any = opened(run, 1).pipeline.world_model
    errors = []
    for part in np.array_split(pictures, len(pictures) // 100):
        belief = eyes.observe({}, {"pixels": part}, None, np.ones(len(part), bool))
        errors.append(np.square(eyes.decode(belief.latent)["pixels"] / 255.0 - part / 255.0).mean((1, 2, 3)))
    return psnr(float(np.concatenate(errors).mean()))


if __name__ == "__main__":
    main()
