"""Recorded episodes, learnt from in epochs: every step once, in random order, then the episodes that are held out.

Which episodes are held out is drawn once, episode by episode, so that no step has a neighbour on the other side. The
recordings are read anew by every process that trains; a checkpoint holds the order and the place in it.
"""

from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydantic import Field, field_validator

from agentctl.core.errors import ConfigError
from agentctl.core.protocols import BaseConfig, Setup
from agentctl.core.recording import Recording
from agentctl.core.types import Array, Batch, Snapshot, Transition
from agentctl.plugins.replay.history import History

MOST_HELD_OUT = 5_000
"""Steps that a model is judged by, in whole episodes: more would tell little more, and an image is 28 kB."""


class Demonstrations:
    class Config(BaseConfig):
        recordings: tuple[Path, ...] = Field(min_length=1, description="folders that `agentctl record` wrote")
        batch_size: int = Field(64, gt=0, description="samples in a batch (B)")
        length: int = Field(1, gt=0, description="steps in a row of each sample (T): more for a recurrent policy")
        validation: float = Field(0.1, ge=0, lt=1, description="share of the episodes that are held out to judge by")
        compress: bool = Field(False, description="keep pictures compressed (LZ4): smaller, slower")

        @field_validator("recordings")
        @classmethod
        def _absolute(cls, value: tuple[Path, ...]) -> tuple[Path, ...]:
            return tuple(path.absolute() for path in value)  # a run may be resumed from another folder

    def __init__(self, config: Config, setup: Setup) -> None:
        self._config, self.recordings = config, config.recordings
        found = [Recording(folder) for folder in config.recordings]
        self._steps = sum(recording.steps for recording in found)
        if self._steps < config.length:
            raise ConfigError(f"{config.recordings[0]}: it holds {self._steps} steps, fewer than one sample needs")
        self._content = zlib.crc32(repr([sorted(recording.lengths.items()) for recording in found]).encode())
        self._lengths = [length for recording in found for length in recording.lengths.values()]
        self._history = History(self._steps, replace(setup, batch=1, folder=None), compress=config.compress)
        self.nbytes = self._history.nbytes
        rng = np.random.default_rng(setup.seed)
        self._held_out = held_out(len(self._lengths), config.validation, rng)  # bool (episodes,)
        self._epoch = self._place = 0
        self._seed = int(rng.integers(2**31))
        self._order = self._shuffled()

    def add(self, transition: Transition) -> None:
        """One step of one row; they come in the order of the recordings."""
        self._history.add(transition)

    def ready(self) -> bool:
        return self._history.added == self._steps

    def sample(self) -> Batch:
        """The next samples of the epoch, (T, B, ...); after its last ones, one batch that is ``held_out``, in order."""
        if self._place >= len(self._order):
            self._epoch, self._place = self._epoch + 1, 0
            self._order = self._shuffled()
            judged = self._starts(self._few_held_out(), 0)
            if len(judged):
                return replace(self._history.batch(judged, self._config.length), held_out=True)
        starts = self._order[self._place : self._place + self._config.batch_size]
        self._place += len(starts)
        return self._history.batch(starts, self._config.length)

    def save(self) -> Snapshot:
        return Snapshot(data={"epoch": self._epoch, "place": self._place, "content": self._content})

    def load(self, snapshot: Snapshot) -> None:
        """Raises ConfigError when the recordings are no longer those that the checkpoint knows."""
        if snapshot.data["content"] != self._content:
            raise ConfigError("the recordings have changed since the checkpoint; put them back, or start a new run")
        self._epoch, self._place = int(snapshot.data["epoch"]), int(snapshot.data["place"])
        self._order = self._shuffled()

    def _shuffled(self) -> Array:
        """Where the epoch's samples begin, int64 (N,): the same for the same epoch."""
        rng = np.random.default_rng((self._seed, self._epoch))
        starts = self._starts(~self._held_out, int(rng.integers(self._config.length)))
        return rng.permutation(starts)

    def _starts(self, chosen: Array, offset: int) -> Array:
        """Where samples begin within each ``chosen`` episode: bool (episodes,). None reaches over its end."""
        ends = np.cumsum(self._lengths)
        spans = zip(ends - self._lengths, ends, chosen, strict=True)
        length = self._config.length
        parts = [np.arange(begin + offset, end - length + 1, length) for begin, end, wanted in spans if wanted]
        return np.concatenate([np.zeros(0, np.int64), *parts])

    def _few_held_out(self) -> Array:
        """The first held-out episodes, up to about ``MOST_HELD_OUT`` steps: bool (episodes,)."""
        before = np.cumsum(np.where(self._held_out, self._lengths, 0)) - np.where(self._held_out, self._lengths, 0)
        return self._held_out & (before < MOST_HELD_OUT)


def held_out(episodes: int, share: float, rng: np.random.Generator) -> Array:
    """Which episodes are kept from learning, bool (episodes,): the share rounded, at least one, never all."""
    count = min(max(1, round(episodes * share)), episodes - 1) if share > 0 else 0
    chosen = np.zeros(episodes, bool)
    chosen[rng.permutation(episodes)[:count]] = True
    return chosen
