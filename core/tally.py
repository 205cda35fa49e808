"""What training gave so far: returns of whole games, and what each reward term came to."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from agentctl.core.types import Array, Snapshot, Transition

RECENT = 100


@dataclass(slots=True)
class Tally:
    """Returns are the game's own reward over whole games, lost lives included; a checkpoint's cut leaves one out."""

    running: Array  # float64 (B,): of the games being played
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))
    episodes: int = 0
    terms: dict[str, Array] = field(default_factory=dict)  # each float64 (B,): sums since the last report
    steps: int = 0  # of a row, since the last report

    def count(self, seen: Transition) -> None:
        """Add one step of the batch."""
        self.running += seen.reward
        finished = int(np.count_nonzero(seen.over))
        if finished:
            self.recent.extend(self.running[seen.over].tolist())
            self.episodes += finished
            self.running[seen.over] = 0.0
        self.steps += 1
        for name, term in seen.terms.items():
            if name in self.terms:
                self.terms[name] += term
            else:
                self.terms[name] = term.astype(np.float64)

    def merge(self, other: Tally) -> None:
        """Add what another one counted since its last report: of as many rows, played elsewhere."""
        self.recent.extend(other.recent)
        self.episodes += other.episodes
        self.steps += other.steps
        for name, term in other.terms.items():
            self.terms[name] = self.terms.get(name, 0.0) + term

    def abandon(self) -> None:
        """The games being played are not played to their end."""
        self.running[:] = 0.0

    def report(self) -> dict[str, float]:
        """Mean per step and row since the last report, by reward term."""
        count = max(self.steps * len(self.running), 1)
        return {name: float(total.sum()) / count for name, total in self.terms.items()}

    def reported(self) -> None:
        """Begin the next report."""
        self.terms, self.steps = {}, 0

    @property
    def return_mean(self) -> float:
        """Of the last 100 games; nan before the first."""
        return sum(self.recent) / len(self.recent) if self.recent else math.nan

    def save(self) -> Snapshot:
        arrays = {"running": self.running, **{f"term.{name}": total for name, total in self.terms.items()}}
        return Snapshot(arrays, {"recent": list(self.recent), "episodes": self.episodes, "steps": self.steps})

    def load(self, snapshot: Snapshot) -> None:
        self.running = snapshot.arrays["running"]
        self.terms = {key[5:]: total for key, total in snapshot.arrays.items() if key.startswith("term.")}
        self.recent = deque(snapshot.data["recent"], maxlen=RECENT)
        self.episodes, self.steps = snapshot.data["episodes"], snapshot.data["steps"]
