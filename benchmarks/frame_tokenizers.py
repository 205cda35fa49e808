"""Ways to tokens of larger pictures, at nearly equal bits a frame: a token for 8 pixels, tiles, two levels, one for 16.

agentctl bench frame-tokenizers

Frames of 128 x 128 of toy/bounce and of Breakout under random play. All learn from the same frames, in the same order,
and are measured on games that they never saw. At the bits of 512 codes for every 8 pixels: one tokenizer of the whole
frame, one of its four tiles, and two levels, which have five times the tokens and so codes of 2 bits. A token for every
16 pixels cannot say so much: it stands, with the most codes that tokens may be of, beside one for 8 pixels with as few
bits.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from math import log2, prod
from typing import Any

import _cost
import numpy as np
from _results import Figure, Report
from _worlds import changed_psnr
from gymnasium import spaces

from agentctl.core.evaluate import random_actions
from agentctl.core.nn.shards import one_core
from agentctl.core.protocols import Setup
from agentctl.core.types import Array, Batch
from agentctl.games.atari.game import AtariGame
from agentctl.games.toy.bounce import Bounce, find
from agentctl.world_models.tokenizer import psnr
from agentctl.world_models.vqvae import VQVAE
from agentctl.world_models.vqvae2 import VQVAE2

SIDE, CELLS = 128, 16
ROWS, UPDATES, HELD_OUT = 16, 500, 16  # frames an update, updates, and steps of as many new games
LEARNT_FROM, UNSEEN = 0, 777_000  # seeds
MOST = [16, 16, 16, 15]  # values of a code's numbers: 61 440 codes, of at most 65 535
SPACE = spaces.Dict({"picture": spaces.Box(0, 255, (SIDE, SIDE, 3), np.uint8)})
WIDTH = {"width": 32, "threads": 1}


def main() -> None:
    report = Report("frame-tokenizers")
    for game in ("toy/bounce", "atari/breakout"):
        experience = list(islice(played(game, LEARNT_FROM), 0, 4 * UPDATES, 4))  # every fourth: neighbours look alike
        held_out = Held.of(game, experience)
        for name, model in tokenizers().items():
            for frames in experience:
                model.learn(batch_of(frames))
            measure(report, f"{game}, {name}", model, held_out)
    report.write()


def tokenizers() -> dict[str, Any]:
    """Untrained, by name."""
    setup = Setup(SPACE, spaces.Discrete(2))
    one = {
        "a token for 8 pixels": {"downsample": 8, "codes": 512},
        "4 tiles, a token for 8 pixels": {"downsample": 8, "codes": 512, "tile": 64},
        "a token for 16 pixels": {"downsample": 16, "quantizer": "fsq", "levels": MOST},
        "a token for 8 pixels, 16 codes": {"downsample": 8, "codes": 16},
    }
    made: dict[str, Any] = {
        name: VQVAE(VQVAE.Config.model_validate({**WIDTH, **options}), setup) for name, options in one.items()
    }
    made["two levels, 4 codes"] = VQVAE2(VQVAE2.Config.model_validate({**WIDTH, "codes": 4}), setup)
    return made


@dataclass(slots=True)
class Held:
    """Frames of games that nothing learns from, uint8 (N, H, W, 3) each, and the mean of those that are learnt from."""

    before: Array
    now: Array
    mean: Array
    ball: bool

    @staticmethod
    def of(game: str, learnt: list[Array]) -> Held:
        steps = list(islice(played(game, UNSEEN), 10, 11 + HELD_OUT))  # past the first, which look alike
        mean = np.mean([frames.mean(0) for frames in learnt], axis=0).round().astype(np.uint8)
        now = np.concatenate(steps[1:])
        return Held(np.concatenate(steps[:-1]), now, np.broadcast_to(mean, now.shape), game == "toy/bounce")


def played(name: str, seed: int) -> Iterator[Array]:
    """Frames of ROWS games under random actions, uint8 (ROWS, H, W, 3), step by step."""
    setup, rng = Setup(batch=ROWS), np.random.default_rng(seed)
    game: Any
    if name == "toy/bounce":
        game = Bounce(Bounce.Config(cells=CELLS, cell_pixels=SIDE // CELLS), setup)
    else:
        options = {"rom": "breakout", "height": SIDE, "width": SIDE, "colour": "rgb", "stack": 1, "threads": 1}
        game = AtariGame(AtariGame.Config.model_validate(options), setup)
    seen = game.reset(seed)
    while True:
        (frames,) = seen.values()
        yield frames
        seen = game.step(random_actions(game.action_space, ROWS, rng)).observation


def measure(report: Report, name: str, model: Any, held: Held) -> None:
    shown, seconds = there_and_back(model, held.now)
    counts = {key: prod(part.nvec.shape) for key, part in model.space.spaces.items()}
    codes, tokens = int(next(iter(model.space.spaces.values())).nvec.max()), sum(counts.values())
    report.add(Figure(f"{name}: bits", tokens * log2(codes), "bits", notes=f"{codes} codes"))
    report.add(Figure(f"{name}: tokens", tokens, "tokens"))
    report.add(Figure(f"{name}: PSNR", dB(shown, held.now), "dB", baseline=("the mean image", dB(held.mean, held.now))))
    copied = ("the frame before", changed_psnr(held.before, held.now, held.before))
    mean = changed_psnr(held.mean, held.now, held.before)
    changed = changed_psnr(shown, held.now, held.before)
    notes = f"the mean image: {mean:.1f} dB"
    report.add(Figure(f"{name}: PSNR of changed pixels", changed, "dB", baseline=copied, notes=notes))
    if held.ball:
        stood = ("the frame before", ball_error(held.before, held.now))
        report.add(Figure(f"{name}: ball off by", ball_error(shown, held.now), "cells", baseline=stood))
    report.add(Figure(f"{name}: there and back", 1e3 * seconds / len(held.now), "ms a frame"))
    needed = _cost.update(_cost.Shape(as_grid(tokens), codes))
    report.add(Figure(f"{name}: a transformer's update", needed / 1e9, "G multiply-adds a sample"))


@one_core()
def there_and_back(model: Any, frames: Array) -> tuple[Array, float]:
    """The frames drawn from their tokens, and the seconds of the faster of two times."""
    taken = []
    for _ in range(2):
        began = time.perf_counter()
        latent = model.observe({}, {"picture": frames}, None, np.zeros(len(frames), bool)).latent
        shown = model.decode(latent)["picture"]
        taken.append(time.perf_counter() - began)
    return shown, min(taken)


def dB(shown: Array, real: Array) -> float:
    return psnr(float(np.square((shown.astype(np.float32) - real) / 255).mean()))


def ball_error(shown: Array, real: Array) -> float:
    """Mean distance in cells; a ball that is not shown counts as a board's width."""
    away = np.linalg.norm(find(shown, SIDE // CELLS).ball - find(real, SIDE // CELLS).ball, axis=1)
    return float(np.nan_to_num(away, nan=CELLS).mean())


def as_grid(tokens: int) -> tuple[int, int]:
    """Any grid of so many: full attention costs the same."""
    return 1, tokens


def batch_of(frames: Array) -> Batch:
    """One step of N samples."""
    none = np.zeros((1, len(frames)), bool)
    return Batch(
        {"picture": frames[None]}, none, none.astype(np.int64), none.astype(np.float32), none, none, {}, {},
        {"picture": frames}, np.zeros((0, 2), np.int64), {"picture": frames[:0]},
    )  # fmt: skip


if __name__ == "__main__":
    main()
