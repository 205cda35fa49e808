"""Single pictures by number: as they are, or compressed without loss."""

from __future__ import annotations

from typing import Protocol

import lz4.block
import numpy as np

from agentctl.core.types import Array, Snapshot
from agentctl.plugins.replay.ring import Ring


class Frames(Protocol):
    """The last pictures, each under its number."""

    @property
    def oldest(self) -> int:
        """The number of the oldest one that is still there."""

    def add(self, pictures: Array) -> Array:
        """Numbers int64 (K,) of pictures uint8 (K, pixels)."""

    def take(self, numbers: Array) -> Array:
        """The pictures of these numbers, uint8 (*numbers.shape, pixels)."""

    def save(self) -> Snapshot: ...

    def load(self, snapshot: Snapshot) -> None: ...


class RawFrames:
    """Pictures as they are."""

    def __init__(self, ring: Ring) -> None:
        self._ring = ring
        self.save, self.load = ring.save, ring.load

    @property
    def oldest(self) -> int:
        return self._ring.oldest

    def add(self, pictures: Array) -> Array:
        return self._ring.extend({"frame": pictures})

    def take(self, numbers: Array) -> Array:
        return self._ring.take("frame", numbers)


class CompressedFrames:
    """The last ``window`` pictures, each compressed on its own (LZ4)."""

    def __init__(self, window: int) -> None:
        self._window, self._added, self._pixels = window, 0, 0
        self._blocks: list[bytes] = []

    @property
    def oldest(self) -> int:
        return max(0, self._added - self._window)

    def add(self, pictures: Array) -> Array:
        numbers = np.arange(self._added, self._added + len(pictures))
        self._pixels = pictures.shape[1]
        for picture in pictures:
            self._put(lz4.block.compress(np.ascontiguousarray(picture), store_size=False))
        return numbers

    def take(self, numbers: Array) -> Array:
        taken = np.empty((numbers.size, self._pixels), np.uint8)
        for index, slot in enumerate((numbers % self._window).ravel().tolist()):
            block = lz4.block.decompress(self._blocks[slot], uncompressed_size=self._pixels)
            taken[index] = np.frombuffer(block, np.uint8)
        return taken.reshape(*numbers.shape, self._pixels)

    def save(self) -> Snapshot:
        blocks = [self._blocks[number % self._window] for number in range(self.oldest, self._added)]
        sizes = np.array([len(block) for block in blocks], np.int64)
        arrays: dict[str, Array] = {"sizes": sizes, "blocks": np.frombuffer(b"".join(blocks), np.uint8)}
        return Snapshot(arrays, {"added": self._added, "pixels": self._pixels})

    def load(self, snapshot: Snapshot) -> None:
        ends = np.cumsum(snapshot.arrays["sizes"]).tolist()
        whole = snapshot.arrays["blocks"].tobytes()
        self._added, self._pixels = int(snapshot.data["added"]) - len(ends), int(snapshot.data["pixels"])
        self._blocks = [b""] * min(self._added, self._window)
        for begin, end in zip([0, *ends[:-1]], ends, strict=True):
            self._put(whole[begin:end])

    def _put(self, block: bytes) -> None:
        if len(self._blocks) < self._window:
            self._blocks.append(block)
        else:
            self._blocks[self._added % self._window] = block
        self._added += 1
