"""When a replay is learnt from: not before it is warm, then once every so many steps."""

from __future__ import annotations


class Schedule:
    def __init__(self, warmup: int, every: int) -> None:
        self._warmup, self._every = warmup, every
        self.owed = 0  # steps that were made and not yet learnt for

    @property
    def due(self) -> bool:
        return self.owed >= self._every

    def passed(self, steps: int, total: int) -> None:
        """``steps`` more were made, ``total`` so far."""
        if total >= self._warmup:
            self.owed += steps

    def take(self) -> None:
        """A batch is taken. Raises RuntimeError when none is due."""
        if not self.due:
            raise RuntimeError(f"{self.owed} of {self._every} steps since the last batch: sample() only when ready()")
        self.owed -= self._every
