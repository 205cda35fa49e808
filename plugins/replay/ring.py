"""The last N entries of something, each under the number at which it came: 0, 1, 2 ... for ever.

An entry is one row of every named array. The arrays lie in memory, or in files that are mapped into it: then what was
written survives a kill, and what does not fit into memory lies on disk.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from agentctl.core.types import Array, Arrays, Snapshot


class Ring:
    """``window`` entries that count, and ``slack`` older ones that are not yet overwritten.

    Without a ``folder``, ``save`` hands over all that counts. With one it hands over only where it stands, and ``load``
    goes back to that: nothing is lost as long as no more than ``slack`` entries have come since.
    """

    def __init__(self, window: int, slack: int = 0, folder: Path | None = None) -> None:
        self.window, self.added = window, 0
        self._capacity = window + (slack if folder else 0)
        self._folder = folder
        self._arrays: dict[str, Array] = {}
        self._files: list[np.memmap] = []
        self._mark = np.zeros(1, np.int64)  # how many have come, on disk too: more than a checkpoint knows of
        self._lost = 0  # entries that were overwritten after the checkpoint that was gone back to

    @property
    def oldest(self) -> int:
        """The number of the oldest entry that counts."""
        return max(0, self.added - self.window, self._lost)

    def extend(self, entries: Arrays) -> Array:
        """Add K entries, each array (K, ...). Returns their numbers, int64 (K,)."""
        if not self._arrays:
            self._mark = self._room("added", (), np.dtype(np.int64), 1)
            self._arrays = {key: self._room(key, array.shape[1:], array.dtype) for key, array in entries.items()}
        count = len(next(iter(entries.values())))
        numbers = np.arange(self.added, self.added + count)
        slots = numbers % self._capacity
        for key, array in entries.items():
            self._arrays[key][slots] = array
        self.added += count
        self._mark[0] = self.added
        return numbers

    def take(self, key: str, numbers: Array) -> Array:
        """One array's entries of these numbers, int64 of any shape: a copy of shape (*numbers.shape, ...)."""
        taken: Array = self._arrays[key][numbers % self._capacity]
        return taken

    def names(self, prefix: str) -> list[str]:
        """The arrays whose name begins like this."""
        return [key for key in self._arrays if key.startswith(prefix)]

    def save(self) -> Snapshot:
        shapes = {key: [array.dtype.str, list(array.shape[1:])] for key, array in self._arrays.items()}
        data = {"added": self.added, "capacity": self._capacity, "arrays": shapes}
        if self._folder is not None:
            for file in self._files:
                file.flush()
            return Snapshot(data=data)
        live = np.arange(self.oldest, self.added)
        return Snapshot({key: self.take(key, live) for key in self._arrays}, data)

    def load(self, snapshot: Snapshot) -> None:
        """Raises ValueError when its files are gone or of another size."""
        if snapshot.data["capacity"] != self._capacity:
            raise ValueError(
                f"it has room for {self._capacity} entries, and had for {snapshot.data['capacity']}: "
                "set the replay's capacity, game.batch and run.cycle_steps back"
            )
        if not snapshot.data["added"]:
            self._lost = self.added  # emptied: numbers go on, for an earlier checkpoint may still need the files
            return
        self.added = int(snapshot.data["added"])
        self._reopen(snapshot)
        for key, array in snapshot.arrays.items():
            self._lost = self.added - len(array)  # fewer than the window where it was emptied once
            self._arrays[key][np.arange(self._lost, self.added) % self._capacity] = array

    def _reopen(self, snapshot: Snapshot) -> None:
        if (self._folder is None) == (not snapshot.arrays):
            raise ValueError("what it held lies in the files of its own run's folder: resume it there")
        if self._folder is not None and not (self._folder / "added.bin").exists():
            raise ValueError(f"{self._folder}: its files are gone; start the run anew, or put them back")
        self._mark = self._room("added", (), np.dtype(np.int64), 1)
        self._lost = int(self._mark[0]) - self._capacity
        self._arrays = {
            key: self._room(key, tuple(shape), np.dtype(kind)) for key, (kind, shape) in snapshot.data["arrays"].items()
        }

    def _room(self, key: str, shape: tuple[int, ...], dtype: np.dtype[Any], entries: int = 0) -> Array:
        """Space for every entry of one array; pages that were never written take no memory."""
        whole = (entries or self._capacity, *shape)
        if self._folder is None:
            return np.zeros(whole, dtype)
        path = self._folder / f"{key.replace('/', '.')}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        nbytes = max(1, math.prod(whole) * dtype.itemsize)
        with path.open("ab") as file:
            file.truncate(nbytes)  # sparse; what is there stays
        self._files.append(np.memmap(path, np.uint8, "r+"))
        return np.asarray(self._files[-1])[: math.prod(whole) * dtype.itemsize].view(dtype).reshape(whole)
