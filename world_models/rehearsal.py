"""Codebook rehearsal: while a tokenizer learns a new game, it learns on from some frames of those before.

After CUCL (Cheng et al. 2023, https://arxiv.org/abs/2311.14911), our adaptation. CUCL learns features of photos, with a
contrastive loss on a product quantiser; taken from it is how rehearsed samples are chosen: where a task ends, those
whose two augmented views come out of the quantiser furthest apart. Here a game ends with its run, the quantiser is the
tokenizer's, a view is the frame moved by up to MOVES pixels, and what is rehearsed is drawing the frame. CUCL's script
chooses at random by default: so does ``choose: random``.

A run keeps candidates, drawn evenly from all frames that it learnt from (reservoir sampling: Vitter 1985). A run that
begins with its tokenizer chooses among them, and rehearses beside them what that run had rehearsed.

Shape key: N frames of H x W pixels and C channels; M rehearsed ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from pydantic import Field

from agentctl.core.protocols import BaseConfig
from agentctl.core.types import Array, Snapshot

MOVES = 2
"""Pixels that a view may be off in each direction."""

AT_ONCE = 128
"""Frames that are looked at together: all of them would take gigabytes."""

PREFIX = "rehearsal"
Quantised = Callable[[Array], Array]
"""uint8 (N, H, W, C) -> float32 (N, ...): the codes that frames become."""


class Rehearsal:
    class Config(BaseConfig):
        frames: int = Field(256, gt=0, description="of each earlier run, that are rehearsed")
        share: float = Field(0.5, gt=0, description="rehearsed frames for each new one of an update")
        choose: Literal["distance", "random"] = Field(
            "distance", description="distance: frames that the quantiser tells apart when they move; or any"
        )
        candidates: int = Field(1_024, gt=0, description="frames of this run that are kept, for later ones to choose")

    def __init__(self, config: Config, shape: tuple[int, int, int], seed: int) -> None:
        """``shape``: H, W, C of a frame."""
        self.config = config
        self.memory = np.zeros((0, *shape), np.uint8)  # (M, H, W, C), rehearsed
        self._candidates = np.zeros((config.candidates, *shape), np.uint8)
        self._seen = 0  # frames of this run
        self._rng = np.random.default_rng(seed)

    @property
    def candidates(self) -> Array:
        """Those that there are yet, uint8 (N, H, W, C)."""
        return self._candidates[: self._seen]

    @property
    def nbytes(self) -> int:
        return self._candidates.nbytes + self.memory.nbytes

    def take_over(self, earlier: Snapshot, quantised: Quantised) -> None:
        """Rehearse what an earlier run did, and the chosen of its candidates. Raises ValueError when it kept none."""
        if PREFIX not in earlier.data:
            raise ValueError("rehearsal: the run that `from` names kept no frames: it needs `rehearsal` too")
        own = earlier.arrays[f"{PREFIX}/candidates"]
        self.memory = np.concatenate([earlier.arrays[f"{PREFIX}/memory"], own[self._chosen(own, quantised)]])

    def joined(self, frames: Array) -> Array:
        """New ``frames`` (N, H, W, C), which are noted, and rehearsed ones behind them."""
        self._note(frames)
        if not len(self.memory):
            return frames
        drawn = self._rng.integers(len(self.memory), size=max(1, round(self.config.share * len(frames))))
        return np.concatenate([frames, self.memory[drawn]])

    def save(self) -> Snapshot:
        arrays = {f"{PREFIX}/memory": self.memory.copy(), f"{PREFIX}/candidates": self.candidates.copy()}
        return Snapshot(arrays, {PREFIX: {"seen": self._seen, "rng": self._rng.bit_generator.state}})

    def load(self, snapshot: Snapshot) -> None:
        """Raises ValueError where the checkpoint kept another number of candidates."""
        held = snapshot.arrays[f"{PREFIX}/candidates"]
        self._seen = int(snapshot.data[PREFIX]["seen"])
        if len(held) != min(self._seen, self.config.candidates):
            raise ValueError(f"rehearsal: the checkpoint has {len(held)} candidates: set `candidates` back to that")
        self._candidates[: len(held)] = held
        self.memory = snapshot.arrays[f"{PREFIX}/memory"].copy()
        self._rng.bit_generator.state = snapshot.data[PREFIX]["rng"]

    def _chosen(self, frames: Array, quantised: Quantised) -> Array:
        """Which ones, int64 (at most ``config.frames``,), ascending."""
        if self.config.choose == "random":
            order = self._rng.permutation(len(frames))
        else:
            order = np.argsort(-view_distances(frames, quantised, self._rng), kind="stable")
        return np.sort(order[: self.config.frames])

    def _note(self, frames: Array) -> None:
        """Keep each as likely as any other that ever came (Algorithm R)."""
        number = self._seen + np.arange(len(frames))
        room = len(self._candidates)
        place = np.where(number < room, number, self._rng.integers(number + 1))
        for k in np.flatnonzero(place < room):
            self._candidates[place[k]] = frames[k]
        self._seen += len(frames)


def view_distances(frames: Array, quantised: Quantised, rng: np.random.Generator) -> Array:
    """How far apart two views of each frame come out of the quantiser: mean squared distances, float64 (N,)."""
    found = [np.zeros(0)]
    for start in range(0, len(frames), AT_ONCE):
        part = frames[start : start + AT_ONCE]
        one, other = (quantised(moved(part, rng)).reshape(len(part), -1) for _ in range(2))
        found.append(np.square(one.astype(np.float64) - other).mean(axis=1))
    return np.concatenate(found)


def moved(frames: Array, rng: np.random.Generator) -> Array:
    """Each frame (N, H, W, C) moved by up to MOVES pixels in both directions; what comes into sight is its edge."""
    _, height, width, _ = frames.shape
    down, right = rng.integers(-MOVES, MOVES + 1, (2, len(frames), 1))
    rows = np.clip(np.arange(height) + down, 0, height - 1)
    columns = np.clip(np.arange(width) + right, 0, width - 1)
    view: Array = frames[np.arange(len(frames))[:, None, None], rows[:, :, None], columns[:, None, :]]
    return view
