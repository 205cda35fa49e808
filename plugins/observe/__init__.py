"""Observers, one plugin each: progress, metrics, tensorboard, recorder, report. Here stands what they share.

Each module attaches its observer when a run starts; ``-p no:NAME`` leaves one out. What a module needs beyond the core
is imported when a run uses it, so that listing the plugins stays cheap.
"""

from __future__ import annotations

import time

from agentctl.core.checkpoint import list_checkpoints
from agentctl.core.run import Run


class Pace:
    """Says when it is time again: the first time at once, then at most once every ``interval`` seconds."""

    __slots__ = ("_interval", "_next")

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._next = 0.0

    def due(self) -> bool:
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + self._interval
        return True


def announce(run: Run, kind: str, text: str) -> None:
    """Tell every observer of the run something that its user should know."""
    for observer in list(run.observers):
        observer.event(kind, text)


def resume_step(run: Run) -> int:
    """The step that training in the run's folder continues from: that of its latest checkpoint, 0 without one."""
    found = list_checkpoints(run.folder / "checkpoints") if run.folder else []
    return int(found[-1].name.removeprefix("step-").partition(".")[0]) if found else 0
