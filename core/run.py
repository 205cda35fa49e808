"""What observers see of a run: its folder, its configuration, and each thing that happens."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentctl.core.types import Metrics, Table, Transition


@dataclass(slots=True)
class Evaluation:
    """Episodes on fixed seeds, beside the random policy on the same seeds."""

    step: int
    returns: list[float]
    lengths: list[int]
    random_returns: list[float]
    terms: dict[str, float] = field(default_factory=dict)  # mean sum over an episode, by reward term
    video: Path | None = None
    tables: dict[str, Table] = field(default_factory=dict)  # what the policy tells about itself; returns by game

    @property
    def return_mean(self) -> float:
        return sum(self.returns) / len(self.returns)

    @property
    def return_random(self) -> float:
        return sum(self.random_returns) / len(self.random_returns)


@dataclass(slots=True)
class Progress:
    """Where a run stands, at the end of each learning step and of each cycle."""

    step: int  # game steps over all rows
    steps: int  # of this many
    cycle: int
    seconds: float  # of this process
    steps_per_second: float
    episodes: int
    return_mean: float  # of the last 100 training episodes; nan before the first
    metrics: Metrics  # the last learning step's
    terms: dict[str, float] = field(default_factory=dict)  # mean per step since the last report, by reward term


class Observer:
    """Override what you want to see. Observers never change a run; an exception in one only switches it off."""

    def stepped(self, transition: Transition) -> None:
        """After every game step (called only when overridden)."""

    def learned(self, progress: Progress) -> None:
        """After every learning step."""

    def evaluated(self, evaluation: Evaluation) -> None:
        """After every evaluation."""

    def frames(self, frames: list[Any], evaluation: Evaluation) -> None:
        """The first evaluation episode as RGB frames, uint8 (H, W, 3) each (only collected when overridden)."""

    def saved(self, checkpoint: Path, progress: Progress) -> None:
        """After every checkpoint."""

    def event(self, kind: str, text: str) -> None:
        """Something a user should know: a fallback took over, an observer failed, a stop was asked for."""


@dataclass(slots=True)
class Run:
    """A run as plugins see it."""

    folder: Path | None  # None: nothing is written
    config: dict[str, Any]  # resolved, as in config.yaml
    lock: dict[str, Any]  # versions, seeds, as in run.lock.json
    quiet: bool = False  # --json: observers print nothing
    observers: list[Observer] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    progress: Progress | None = None
    summary: dict[str, Any] = field(default_factory=dict)  # the last line of `run --json`
