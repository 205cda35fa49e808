"""The last steps of every row as they happened, with the states around them, ready to be taken out as batches.

Steps are numbered over all rows: step ``t`` of row ``b`` is ``t * B + b``, so that the step after ``i`` is ``i + B``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
from gymnasium import spaces

from agentctl.core.protocols import Setup
from agentctl.core.types import Array, Arrays, Batch, Snapshot, Transition
from agentctl.plugins.replay.frames import CompressedFrames, Frames, RawFrames
from agentctl.plugins.replay.ring import Ring
from agentctl.plugins.replay.states import States, stack_depth

log = logging.getLogger("agentctl")

STEP_NBYTES = 64  # of a step: where its states lie, action, reward, flags
NOWHERE = -1  # the number of a final state that there is none of


class History:
    """``capacity`` steps over all rows, or less where episodes are so short that their ends fill the room for states.

    In a run's folder it lies in files (see Ring), unless pictures are compressed.
    """

    def __init__(
        self, capacity: int, setup: Setup, *, compress: bool, episodes: int | None = None, ends: int | None = None
    ) -> None:
        """``episodes``: there are so many in all, and none of their states is ever forgotten.

        ``ends``: room for so many states beside one a step, where each is large; null: for a quarter more.
        """
        self._rows = setup.batch
        self._folder = setup.folder / "replay" if setup.folder and not compress else None
        self._slack = 2 * (setup.save_every + setup.batch)  # a step may lead to two states: an end, and a start
        pictures = capacity + capacity // 32 + 8 * setup.batch  # a step's, and those of ends and starts of episodes
        room = capacity + (capacity // 4 + setup.batch if ends is None else ends)
        self.nbytes = capacity * STEP_NBYTES + pictures * sum(map(_nbytes, setup.space.spaces.values()))
        self._steps = self._ring("steps", capacity)
        if episodes is not None:
            room = capacity + 2 * episodes + setup.batch
            pictures = room * max(1, *map(stack_depth, setup.space.spaces.values()), 1)  # touched only as they come
        states = self._ring("states", room)
        self._states = States(setup.space, states, self._frames(pictures, compress=compress))
        self.oldest = 0  # the first step of which everything is still there
        self._reached: Arrays = {}  # the states that the last step led to, and their numbers
        self._numbers = np.zeros(0, np.int64)

    @property
    def added(self) -> int:
        """How many steps have ever come; the next one's number."""
        return self._steps.added

    def add(self, transition: Transition) -> None:
        """One step of every row."""
        before = self._numbers_of(transition.state)
        final = np.full(self._rows, NOWHERE, np.int64)
        if transition.final is not None:
            rows = transition.final.rows
            ended = {key: array[rows] for key, array in transition.state.items()}
            final[rows] = self._states.add(transition.final.arrays, ended, before[rows])
        self._numbers = self._states.add(transition.next_state, transition.state, before)
        self._reached = transition.next_state
        self._steps.extend(
            {
                "state": before,
                "next_state": self._numbers,
                "final": final,
                "first": transition.first,
                "action": transition.decision.action,
                "reward": transition.total,
                "ended": transition.ended,
                "cut": transition.cut,
                **{f"extras/{key}": array for key, array in transition.decision.extras.items()},
                **{f"carry/{key}": array for key, array in transition.carry.items()},
            }
        )
        self._forget()

    def batch(self, starts: Array, length: int) -> Batch:
        """The ``length`` (T) steps from each of ``starts``, int64 (N,), on: a batch of T steps of N rows."""
        steps, numbers = self._steps, starts + self._rows * np.arange(length)[:, None]
        final = steps.take("final", numbers)
        index = np.argwhere(final != NOWHERE)
        return Batch(
            state=self._states.take(steps.take("state", numbers)),
            first=steps.take("first", numbers),
            action=steps.take("action", numbers),
            reward=steps.take("reward", numbers),
            ended=steps.take("ended", numbers),
            cut=steps.take("cut", numbers),
            extras={key.partition("/")[2]: steps.take(key, numbers) for key in steps.names("extras/")},
            carry={key.partition("/")[2]: steps.take(key, starts) for key in steps.names("carry/")},
            next_state=self._states.take(steps.take("next_state", numbers[-1])),
            final_index=index,
            final_state=self._states.take(final[tuple(index.T)]),
        )

    def save(self) -> Snapshot:
        parts = {"steps": self._steps.save(), **self._states.save()}
        arrays = {f"{name}:{key}": array for name, part in parts.items() for key, array in part.arrays.items()}
        data = {"parts": {name: part.data for name, part in parts.items()}, "oldest": self.oldest}
        return Snapshot({**arrays, "numbers": self._numbers}, data)

    def load(self, snapshot: Snapshot) -> None:
        parts = {name: Snapshot(data=data) for name, data in snapshot.data["parts"].items()}
        for name, array in snapshot.arrays.items():
            part, _, key = name.partition(":")
            if key:
                parts[part].arrays[key] = array
        self._steps.load(parts.pop("steps"))
        self._states.load(parts)
        self.oldest, self._numbers = int(snapshot.data["oldest"]), snapshot.arrays["numbers"].copy()
        self._reached = self._states.take(self._numbers) if len(self._numbers) else {}
        known = self.oldest
        self._forget()
        if self.oldest > known and len(self._numbers):
            log.warning("%s: %d old steps were overwritten since that checkpoint", self._folder, self.oldest - known)

    def _numbers_of(self, state: Arrays) -> Array:
        """Where these states lie: they are what the last step led to, unless the games were started anew."""
        same = state is self._reached or (
            len(self._numbers) and all(np.array_equal(array, self._reached[key]) for key, array in state.items())
        )
        return self._numbers if same else self._states.add(state)

    def _forget(self) -> None:
        """Steps go when the room of their states is needed."""
        self.oldest = min(self.added, max(self.oldest, self._steps.oldest))
        while self.oldest < self.added:
            next_ones = np.arange(self.oldest, min(self.oldest + self._rows, self.added))
            if self._states.alive(self._steps.take("state", next_ones)):
                break
            self.oldest += len(next_ones)

    def _ring(self, name: str, window: int) -> Ring:
        return Ring(window, self._slack, self._folder / name if self._folder else None)

    def _frames(self, window: int, *, compress: bool) -> Callable[[str], Frames]:
        def make(key: str) -> Frames:
            return CompressedFrames(window) if compress else RawFrames(self._ring(f"frames/{key}", window))

        return make


def _nbytes(space: spaces.Space[object]) -> int:
    """Bytes that one more state takes: the whole value, or of stacked pictures one and where they lie."""
    size = int(np.prod(space.shape or ())) * (space.dtype or np.dtype(np.float32)).itemsize
    depth = stack_depth(space)
    return size // depth + 8 * depth if depth else size
