"""`toy_cells`: read the toy's picture, and nothing else: where the agent stands, and what the lantern says."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

from agentctl.core.protocols import BaseConfig, Setup
from agentctl.core.types import Array, Arrays
from agentctl.games.toy import art


class Cells:
    """Looks at the middle pixel of every tile, where each thing of the toy has a colour of its own."""

    class Config(BaseConfig):
        """Nothing to choose."""

    def __init__(self, config: Config, setup: Setup) -> None:
        shape = setup.space["picture"].shape if "picture" in setup.space.spaces else None
        if shape is None or len(shape) != 3 or shape[0] % art.TILE or shape[1] % art.TILE:
            raise ValueError(f"toy_cells reads the `picture` of toy/lantern and is given {setup.space}; remove it here")
        cells = (shape[0] // art.TILE) * (shape[1] // art.TILE)
        self.space = spaces.Dict({"cell": spaces.Discrete(cells), "lantern": spaces.Discrete(3)})
        self._agent = rgb_number(art.middle_colour(art.AGENT))
        self._amber, self._blue = (rgb_number(art.middle_colour(lit)) for lit in art.LANTERN[1:])

    def perceive(self, observation: Arrays) -> Arrays:
        """``picture``: uint8 (B, H, W, 3). Returns ``cell``, counted row by row from the upper left, and ``lantern``:
        0 dark, 1 amber, 2 blue; both int64 (B,).
        """
        middles = rgb_number(observation["picture"][:, art.MIDDLE :: art.TILE, art.MIDDLE :: art.TILE])
        tiles = middles.reshape(len(middles), -1)
        lantern = np.where((tiles == self._amber).any(axis=1), 1, np.where((tiles == self._blue).any(axis=1), 2, 0))
        return {"cell": (tiles == self._agent).argmax(axis=1), "lantern": lantern}


def rgb_number(pixels: Array) -> Array:
    """Pixels (..., 3) as one number each, 0xRRGGBB: int32 (...)."""
    red, green, blue = np.moveaxis(pixels.astype(np.int32), -1, 0)
    number: Array = red << 16 | green << 8 | blue
    return number
