"""Run-time guard: a component with a declared fallback may fail a few times, then the fallback takes over for good.

A failing call is answered by the fallback, so the run goes on. What a component carries stays its own: the carry of a
guarded policy or world model holds the fallback's under ``fallback.<name>`` once that has taken over, never both.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Sized
from dataclasses import replace
from typing import Any

import numpy as np

from agentctl.core.config import Chosen
from agentctl.core.errors import ConfigError
from agentctl.core.types import Array, Batch, Carry, Metrics, Snapshot

log = logging.getLogger("agentctl")

VERBS = {
    "perception": ("perceive",),
    "memory": ("recall", "write"),
    "reward": ("score",),
    "policy": ("act", "explore"),
    "world_model": ("observe", "imagine"),
}
"""The calls that a guard watches, by kind. Learning is not watched: a failure there must stop the run."""

PREFIX = "fallback."


class Guard:
    """Stands in front of a component. A failing call is answered by the fallback; after ``limit`` failures, all are."""

    def __init__(self, part: Any, fallback: Any, chosen: Chosen, limit: int) -> None:
        self.part, self.fallback, self.chosen, self.limit = part, fallback, chosen, limit
        self.errors = 0
        self.notify: Callable[[str, str], None] = lambda kind, text: log.warning("%s: %s", kind, text)
        for verb in VERBS[chosen.kind]:
            setattr(self, verb, self._watched(verb))

    def __getattr__(self, name: str) -> Any:
        """Whatever is not watched is the business of the one in charge."""
        return getattr(self.fallback if self.tripped else self.part, name)

    @property
    def tripped(self) -> bool:
        """Whether the fallback has taken over."""
        return self.errors >= self.limit

    def save(self) -> Snapshot:
        """Both components' states. The count of errors is the loop's to keep."""
        ours, theirs = self.part.save(), self.fallback.save()
        arrays = {**ours.arrays, **_prefixed(theirs.arrays)}
        return Snapshot(arrays, {"part": ours.data, "fallback": theirs.data})

    def load(self, snapshot: Snapshot) -> None:
        self.part.load(Snapshot(_own(snapshot.arrays), snapshot.data["part"]))
        self.fallback.load(Snapshot(_unprefixed(snapshot.arrays), snapshot.data["fallback"]))

    def _watched(self, verb: str) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            if not self.tripped:
                try:
                    return getattr(self.part, verb)(*args)
                except Exception as error:
                    self._count(error)
            return getattr(self.fallback, verb)(*args)

        return call

    def _count(self, error: Exception) -> None:
        self.errors += 1
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"[{frame.filename}:{frame.lineno}]"
        what = f"{self.chosen.kind} {self.chosen.name!r} failed: {type(error).__name__}: {error} {where}"
        assert self.chosen.fallback is not None
        stand_in = self.chosen.fallback.name
        after = (
            f"{stand_in!r} takes over for the rest of the run" if self.tripped else f"{stand_in!r} answered this call"
        )
        self.notify("fallback", f"{what}; {after} (error {self.errors} of {self.limit})")


class CarryGuard(Guard):
    """A guard of what carries state from step to step: a policy or a world model."""

    def initial(self, batch: int) -> Carry:
        return _prefixed(self.fallback.initial(batch)) if self.tripped else self.part.initial(batch)

    def learn(self, batch: Batch) -> Metrics:
        """Who is in charge learns; a batch's carry is always that one's own."""
        if not self.tripped:
            return self.part.learn(batch)  # type: ignore[no-any-return]
        return self.fallback.learn(replace(batch, carry=_unprefixed(batch.carry)))  # type: ignore[no-any-return]

    def _watched(self, verb: str) -> Callable[..., Any]:
        def call(carry: Carry, *args: Any) -> Any:
            if not self.tripped:
                try:
                    return getattr(self.part, verb)(carry, *args)
                except Exception as error:
                    self._count(error)
            return self._stand_in(verb, carry, *args)

        return call

    def _stand_in(self, verb: str, carry: Carry, *args: Any) -> Any:
        """The fallback's answer. Until it has taken over it starts without a past each time."""
        rows: Sized = args[-1]  # `first`, or the action to imagine
        theirs = _unprefixed(carry) or self.fallback.initial(len(rows))
        answer = getattr(self.fallback, verb)(theirs, *args)
        if self.tripped:
            return replace(answer, carry=_prefixed(answer.carry))
        fresh = self.part.initial(len(rows))
        kept = carry if verb == "imagine" else _forget(carry, fresh, args[-1])
        return replace(answer, carry=kept)


def guarded(part: Any, fallback: Any, chosen: Chosen, limit: int) -> Guard:
    """``part`` behind a guard. Raises ConfigError when the fallback shows another space than ``part``."""
    ours, theirs = getattr(part, "space", None), getattr(fallback, "space", None)
    if ours != theirs:
        assert chosen.fallback is not None
        raise ConfigError(
            f"{chosen.kind} {chosen.name!r} gives {ours}, but its fallback {chosen.fallback.name!r} gives {theirs}; "
            "they must match"
        )
    return (CarryGuard if chosen.kind in {"policy", "world_model"} else Guard)(part, fallback, chosen, limit)


def _forget(carry: Carry, fresh: Carry, first: Array) -> Carry:
    """``carry``, fresh in the rows that are at their ``first`` step."""
    rows = np.flatnonzero(first)
    if not rows.size:
        return carry
    copies = {key: value.copy() for key, value in carry.items()}
    for key, value in copies.items():
        value[rows] = fresh[key][rows]
    return copies


def _prefixed(arrays: Carry) -> dict[str, Array]:
    return {PREFIX + key: value for key, value in arrays.items()}


def _unprefixed(arrays: Carry) -> dict[str, Array]:
    return {key.removeprefix(PREFIX): value for key, value in arrays.items() if key.startswith(PREFIX)}


def _own(arrays: Carry) -> dict[str, Array]:
    return {key: value for key, value in arrays.items() if not key.startswith(PREFIX)}
