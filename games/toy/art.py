"""The toy's pictures: square tiles of TILE pixels, drawn by hand below, one letter of PALETTE per pixel.

The middle pixel of a tile tells what stands on it: no two things share that colour.
"""

from __future__ import annotations

import numpy as np

from agentctl.core.types import Array

TILE = 5
MIDDLE = TILE // 2

PALETTE = {
    " ": (206, 196, 170),  # floor
    "'": (194, 183, 155),  # floor, worn
    "#": (47, 52, 66),  # brick
    "-": (34, 38, 49),  # mortar
    "a": (196, 120, 24),  # amber door
    "A": (255, 196, 64),  # amber flame
    "b": (44, 88, 176),  # blue door
    "B": (104, 190, 255),  # blue flame
    "o": (250, 240, 210),  # door knob, and the halo of a flame
    "i": (120, 112, 100),  # lantern iron
    "x": (66, 60, 58),  # lantern, dark
    "g": (38, 122, 84),  # the agent's coat
    "h": (240, 200, 160),  # its face
}

FLOOR = ("     ", "   ' ", "     ", " '   ", "     ")
WALL = ("##-##", "-----", "####-", "-----", "##-##")
DOORS = (
    ("iaaai", "aaaaa", "aaaaa", "aaaoa", "aaaaa"),
    ("ibbbi", "bbbbb", "bbbbb", "bbbob", "bbbbb"),
)
LANTERN = (  # dark, amber, blue
    ("##i##", "-ixi-", "#ixi#", "-ixi-", "##i##"),
    ("#oio#", "oiAio", "oAAAo", "oiAio", "#oio#"),
    ("#oio#", "oiBio", "oBBBo", "oiBio", "#oio#"),
)
AGENT = (" hhh ", " hhh ", " ggg ", "ggggg", " g g ")


def sprite(drawing: tuple[str, ...]) -> Array:
    """Return a drawing as uint8 (TILE, TILE, 3)."""
    return np.array([[PALETTE[letter] for letter in line] for line in drawing], np.uint8)


def middle_colour(drawing: tuple[str, ...]) -> Array:
    """Return the colour by which a thing is known, uint8 (3,)."""
    return np.array(PALETTE[drawing[MIDDLE][MIDDLE]], np.uint8)
