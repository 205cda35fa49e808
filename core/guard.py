"""Run-time guard: a component with a declared fallback may fail a few times, then the fallback takes over for good."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from typing import Any

from agentctl.core.config import Chosen
from agentctl.core.errors import ConfigError

log = logging.getLogger("agentctl")

VERBS = {
    "perception": ("perceive",),
    "memory": ("recall", "write"),
    "reward": ("score",),
    "policy": ("act", "explore"),
    "world_model": ("observe",),
}
"""The calls that a guard watches, by kind. Learning is not guarded: a failure there must stop the run."""


class Guard:
    """Stands in front of a component. A failing call is answered by the fallback; after ``limit`` failures, all are."""

    def __init__(self, part: Any, fallback: Any, chosen: Chosen, limit: int) -> None:
        self.part, self.fallback, self.chosen, self.limit = part, fallback, chosen, limit
        self.errors = 0
        self.notify: Callable[[str, str], None] = lambda kind, text: log.warning("%s: %s", kind, text)
        for verb in VERBS[chosen.kind]:
            setattr(self, verb, self._watched(verb))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.part, name)

    @property
    def tripped(self) -> bool:
        """Whether the fallback has taken over."""
        return self.errors >= self.limit

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


def guarded(part: Any, fallback: Any, chosen: Chosen, limit: int) -> Guard:
    """``part`` behind a guard. Raises ConfigError when the fallback shows another space than ``part``."""
    if chosen.kind not in VERBS:
        raise ConfigError(
            f"{chosen.kind} {chosen.name!r}: a {chosen.kind} cannot have a fallback; only {', '.join(VERBS)}"
        )
    ours, theirs = getattr(part, "space", None), getattr(fallback, "space", None)
    if ours != theirs:
        assert chosen.fallback is not None
        raise ConfigError(
            f"{chosen.kind} {chosen.name!r} gives {ours}, but its fallback {chosen.fallback.name!r} gives {theirs}; "
            "they must match"
        )
    return Guard(part, fallback, chosen, limit)
