"""Frames cut into tiles, which one small tokenizer reads and draws each by itself: a way to larger frames.

What was learnt of one tile holds for all, and a token depends on its own tile alone. The price is that neighbours do
not know of each other, so that edges of tiles may be seen.
"""

from __future__ import annotations

from dataclasses import dataclass

from einops import rearrange
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Tiling:
    """How many tiles a frame has."""

    rows: int
    columns: int

    def apart(self, whole: Tensor) -> Tensor:
        """(N, C, H, W) -> (N * rows * columns, C, H / rows, W / columns)"""
        return rearrange(whole, "n c (i y) (j x) -> (n i j) c y x", i=self.rows, j=self.columns)

    def together(self, tiles: Tensor) -> Tensor:
        """What ``apart`` took apart, with as many pixels or tokens a tile as there are."""
        return rearrange(tiles, "(n i j) c y x -> n c (i y) (j x)", i=self.rows, j=self.columns)


def tiling(shape: tuple[int, int, int], tile: int | None, downsample: int) -> Tiling:
    """Of frames H, W, C into squares of ``tile`` pixels; None: a frame is one tile.

    Raises ValueError where pixels, or parts of tokens, would be left over.
    """
    height, width, _ = shape
    if tile is None:
        return Tiling(1, 1)
    if height % tile or width % tile or tile % downsample:
        raise ValueError(
            f"tokenizer: tile {tile} must divide the frame's {height} x {width} pixels, and be a multiple of "
            f"downsample {downsample}: choose another tile, or null"
        )
    return Tiling(height // tile, width // tile)
