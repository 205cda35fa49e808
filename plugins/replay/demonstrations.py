"""Recorded episodes, learnt from in epochs: every sample once, in random order, then the episodes that are held out.

Which are held out is drawn once, game by game, so that no step has a neighbour on the other side. The recordings are
read anew by every process that trains; a checkpoint holds the order and the place in it.
"""

from __future__ import annotations

import zlib
from collections.abc import Hashable, Sequence
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
"""Steps that a model is judged by at most, the first ones: more would tell little more, and an image is 28 kB."""


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
            absolute = tuple(path.absolute() for path in value)  # a run may be resumed from another folder
            if len(set(absolute)) < len(absolute):
                raise ValueError("one recording stands there twice")
            return absolute

    def __init__(self, config: Config, setup: Setup) -> None:
        self._config, self.recordings = config, config.recordings
        found = [Recording(folder) for folder in config.recordings]
        for recording in found:
            recording.check_not_empty()
        self._lengths = np.array([length for recording in found for length in recording.lengths.values()])
        self._content = zlib.crc32(repr([recording.checksums for recording in found]).encode())
        rng = np.random.default_rng(setup.seed)
        games = [(k, *game) for k, recording in enumerate(found) for _, game in sorted(recording.games.items())]
        self._held_out = held_out(games, config.validation, rng)  # bool (episodes,)
        self._check_length()
        self._seed = int(rng.integers(2**31))
        self._steps = int(self._lengths.sum())
        alone = replace(setup, batch=1, folder=None)
        self._history = History(self._steps, alone, compress=config.compress, episodes=len(self._lengths))
        self.nbytes = self._history.nbytes
        self._epoch = self._place = 0
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
            judged = self._starts(self._held_out, None)[: MOST_HELD_OUT // self._config.length]
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
        return rng.permutation(self._starts(~self._held_out, rng))

    def _starts(self, chosen: Array, rng: np.random.Generator | None) -> Array:
        """Where samples begin within each ``chosen`` episode, bool (episodes,), one after the other, none over its end.

        What an episode has beyond a multiple of their length lies, by chance (``rng``), before the first or after the
        last of them.
        """
        ends, length = np.cumsum(self._lengths), self._config.length
        parts = [np.zeros(0, np.int64)]
        for begin, end in zip((ends - self._lengths)[chosen], ends[chosen], strict=True):
            spare = (end - begin) % length if end - begin >= length else 0
            parts.append(np.arange(begin + (rng.integers(spare + 1) if rng else 0), end - length + 1, length))
        return np.concatenate(parts)

    def _check_length(self) -> None:
        """Raise ConfigError when no episode to learn from, or none to judge by, is as long as a sample."""
        for what, chosen in (("learn from", ~self._held_out), ("judge by", self._held_out)):
            longest = int(self._lengths[chosen].max(initial=0))
            if chosen.any() and longest < self._config.length:
                raise ConfigError(
                    f"replay.length {self._config.length}: the longest episode to {what} has {longest} steps; lower it"
                )


def held_out(games: Sequence[Hashable], share: float, rng: np.random.Generator) -> Array:
    """Which episodes are kept from learning, bool (episodes,), from the game that each belongs to.

    The share of the games, rounded: at least one where there are two, never all.
    """
    distinct = list(dict.fromkeys(games))
    count = min(max(1, round(len(distinct) * share)), len(distinct) - 1) if share > 0 else 0
    chosen = {distinct[index] for index in rng.permutation(len(distinct))[:count]}
    return np.array([game in chosen for game in games])
