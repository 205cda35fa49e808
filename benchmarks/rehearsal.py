"""How much of an old game a tokenizer forgets while it learns a new one, with codebook rehearsal and without.

agentctl bench rehearsal

A tokenizer learns Pong, then, from there, Breakout: without rehearsal, with frames of Pong that the quantiser's
distances chose, and with as many chosen at random. What it still makes of Pong's frames is measured on games that
nothing learnt from: on all pixels, and on those that are not the background's. Beside it stands the mean picture, which
is hard to beat on all pixels: nearly all of them never change.
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
        before = drawn(report, first, old, f"{OLD} before {NEW}")
        for name, rehearsal in WAYS.items():
            run = Path(folder) / name.replace(" ", "-")
            learnt(NEW, {"from": str(first), "rehearsal": rehearsal}, run)
            after = drawn(report, run, old, f"{OLD} after {NEW}, {name}")
            report.add(Figure(f"{OLD} forgotten, {name}", before - after, "dB"))
            drawn(report, run, new, f"{NEW}, {name}")
    report.write()


def drawn(report: Report, run: Path, pictures: Array, title: str) -> float:
    """The PSNR of pictures that go through a run's tokenizer and back, over all pixels: returned too."""
    shown, mean = redrawn(run, pictures), pictures.mean(axis=0, keepdims=True)
    moving = (pictures != np.median(pictures, axis=0)).any(-1)
    for what, where in {"all pixels": np.ones_like(moving), "what is not background": moving}.items():
        beside = ("the mean picture", quality(np.broadcast_to(mean, pictures.shape), pictures, where))
        report.add(Figure(f"{title}: {what}", quality(shown, pictures, where), "dB", baseline=beside))
    return quality(shown, pictures, np.ones_like(moving))


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


def redrawn(run: Path, pictures: Array) -> Array:
    """What a run's tokenizer makes of pictures (N, H, W, 3)."""
    eyes: Any = opened(run, 1).pipeline.world_model
    parts = []
    for part in np.array_split(pictures, len(pictures) // 100):
        belief = eyes.observe({}, {"pixels": part}, None, np.ones(len(part), bool))
        parts.append(eyes.decode(belief.latent)["pixels"])
    return np.concatenate(parts)


def quality(shown: Array, real: Array, where: Array) -> float:
    """The PSNR in dB over the pixels ``where`` (N, H, W)."""
    return psnr(float(np.square((shown[where] - real[where].astype(np.float32)) / 255).mean()))


if __name__ == "__main__":
    main()
