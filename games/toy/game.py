"""`toy/lantern`: find the right one of two doors in a maze, with a lantern that tells which, and only once.

On the first picture of an episode the lantern burns in the colour of the right door; from the first step on it is
dark. Entering the right door gives +1, the wrong door -1, and both end the episode; a time limit cuts it. So the game
asks for a perception (it shows pixels), a memory (the door must be remembered), and many steps before any reward.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
from gymnasium import spaces
from pydantic import Field, model_validator

from agentctl.core.protocols import BaseConfig, Clock, Setup
from agentctl.core.types import Array, Arrays, Final, Snapshot, Step
from agentctl.games.toy import art

MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))  # up, right, down, left as (row, column)
KEYS: Mapping[tuple[str, ...], int] = {("up",): 0, ("right",): 1, ("down",): 2, ("left",): 3}
FRAME_SCALE = 4

MAZE = (
    "###############",
    "#a.....#.....b#",
    "#.###.###.###.#",
    "#...#.....#...#",
    "###.###.###.###",
    "#...#.#.#.#...#",
    "#.###.#.#.###.#",
    "#...#.#.#.#...#",
    "###.#.#.#.#.###",
    "#.............#",
    "#######S#######",
    "#######*#######",
)  # the start is a dead end: were it not, an agent could tell by where it stands which way the lantern sent it


class Lantern:
    """B mazes side by side; a row that finishes starts again at once, with a door drawn anew."""

    class Config(BaseConfig):
        limit: int = Field(100, gt=0, description="Steps after which an episode is cut.")
        maze: tuple[str, ...] = Field(
            MAZE,
            description="The map by lines: `#` wall, `.` floor, `S` start, `*` lantern, `a` amber door, `b` blue door.",
        )

        @model_validator(mode="after")
        def _playable(self) -> Self:
            check_maze(self.maze)
            return self

    clock: ClassVar[Clock] = Clock("pausable")
    keys: ClassVar[Mapping[tuple[str, ...], int]] = KEYS
    fps: ClassVar[float] = 10.0

    def __init__(self, config: Config, setup: Setup) -> None:
        self.config = config
        self.batch = setup.batch
        tiles = np.array([list(line) for line in config.maze])
        self._next_cell = neighbours(tiles)
        self._door_at = np.select([tiles == "a", tiles == "b"], [1, 2]).ravel()  # 0: no door
        self._start = int(np.flatnonzero(tiles == "S")[0])
        self._lantern = int(np.flatnonzero(tiles == "*")[0])
        self._background = background(tiles)
        self._agent_sprite = art.sprite(art.AGENT)
        self._lantern_sprites = np.stack([art.sprite(drawing) for drawing in art.LANTERN])
        height, width = tiles.shape[0] * art.TILE, tiles.shape[1] * art.TILE
        self.observation_space = spaces.Dict({"picture": spaces.Box(0, 255, (height, width, 3), np.uint8)})
        self.action_space: spaces.Space[Any] = spaces.Discrete(len(MOVES))

    def reset(self, seed: int) -> Arrays:
        """Start B episodes. Returns ``picture``: uint8 (B, H, W, 3)."""
        self._rng = np.random.default_rng(seed)
        self._cell = np.full(self.batch, self._start)
        self._time = np.zeros(self.batch, np.int64)
        self._right_door = self._rng.integers(1, 3, self.batch)
        return self._observe()

    def step(self, action: Array) -> Step:
        """Move each row by ``action``: int (B,), 0 up, 1 right, 2 down, 3 left; into a wall it stays where it is."""
        self._cell = self._next_cell[self._cell, action]
        self._time += 1
        door = self._door_at[self._cell]
        ended = door > 0
        cut = ~ended & (self._time >= self.config.limit)
        reward = np.where(ended, np.where(door == self._right_door, 1, -1), 0).astype(np.float32)
        final = self._restart(ended | cut)
        return Step(self._observe(), reward, ended, cut, final)

    def frame(self) -> Array:
        """Row 0 as a spectator sees it: uint8, FRAME_SCALE times the picture's size."""
        picture: Array = self._draw(self._cell[:1], self._shown()[:1])[0]
        return picture.repeat(FRAME_SCALE, axis=0).repeat(FRAME_SCALE, axis=1)

    def save(self) -> Snapshot:
        arrays = {"cell": self._cell.copy(), "time": self._time.copy(), "right_door": self._right_door.copy()}
        return Snapshot(arrays, {"rng": self._rng.bit_generator.state})

    def load(self, snapshot: Snapshot) -> None:
        self._cell = snapshot.arrays["cell"].copy()
        self._time = snapshot.arrays["time"].copy()
        self._right_door = snapshot.arrays["right_door"].copy()
        self._rng = np.random.default_rng()
        self._rng.bit_generator.state = snapshot.data["rng"]

    def close(self) -> None:
        """Nothing to close."""

    def _restart(self, finished: Array) -> Final | None:
        """Put finished rows back to the start and return what they saw last."""
        rows = np.flatnonzero(finished)
        if not rows.size:
            return None
        last = self._draw(self._cell[rows], self._shown()[rows])
        self._cell[rows] = self._start
        self._time[rows] = 0
        self._right_door[rows] = self._rng.integers(1, 3, rows.size)
        return Final(rows, {"picture": last})

    def _observe(self) -> Arrays:
        return {"picture": self._draw(self._cell, self._shown())}

    def _shown(self) -> Array:
        """What the lantern shows, int (B,): the right door (1 amber, 2 blue) in the first picture, then 0, dark."""
        return np.where(self._time == 0, self._right_door, 0)

    def _draw(self, cell: Array, shown: Array) -> Array:
        """Pictures of K rows, uint8 (K, H, W, 3)."""
        pictures = np.repeat(self._background[None], len(cell), axis=0)
        height, width = pictures.shape[1] // art.TILE, pictures.shape[2] // art.TILE
        tiles = pictures.reshape(len(cell), height, art.TILE, width, art.TILE, 3)
        tiles[np.arange(len(cell)), cell // width, :, cell % width] = self._agent_sprite
        tiles[:, self._lantern // width, :, self._lantern % width] = self._lantern_sprites[shown]
        return pictures


def neighbours(tiles: Array) -> Array:
    """Where each move leads from each cell, int64 (cells, 4): cells are numbered row by row."""
    grid = np.indices(tiles.shape)
    blocked = np.isin(tiles, ["#", "*"])
    here = np.arange(tiles.size).reshape(tiles.shape)
    table = []
    for move in MOVES:
        row = np.clip(grid[0] + move[0], 0, tiles.shape[0] - 1)
        column = np.clip(grid[1] + move[1], 0, tiles.shape[1] - 1)
        table.append(np.where(blocked[row, column], here, here[row, column]).ravel())
    return np.stack(table, axis=1)


def background(tiles: Array) -> Array:
    """The maze without the agent, the lantern dark: uint8 (H, W, 3)."""
    drawings = {"#": art.WALL, ".": art.FLOOR, "S": art.FLOOR, "a": art.DOORS[0], "b": art.DOORS[1]}
    drawings["*"] = art.LANTERN[0]
    return np.concatenate(
        [np.concatenate([art.sprite(drawings[letter]) for letter in line], axis=1) for line in tiles], axis=0
    )


def check_maze(maze: tuple[str, ...]) -> None:
    """Raise ValueError for a maze that cannot be drawn or won."""
    letters = "".join(maze)
    if len({len(line) for line in maze}) != 1:
        raise ValueError(f"the maze's lines must be equally long, not {[len(line) for line in maze]}")
    if unknown := set(letters) - set("#.S*ab"):
        raise ValueError(f"the maze holds {sorted(unknown)}: use `#` wall, `.` floor, `S`, `*`, `a` and `b`")
    if repeated := {letter: letters.count(letter) for letter in "S*ab" if letters.count(letter) != 1}:
        raise ValueError(f"the maze needs one each of `S`, `*`, `a` and `b`, and holds {repeated}")
    reached = reachable(neighbours(np.array([list(line) for line in maze])), letters.index("S"))
    if walled := [door for door in "ab" if letters.index(door) not in reached]:
        raise ValueError(f"no way leads from `S` to door {walled}: open a wall of the maze")


def reachable(next_cell: Array, start: int) -> set[int]:
    """The cells that some walk from ``start`` visits."""
    reached, frontier = {start}, {start}
    while frontier:
        frontier = {int(cell) for cell in next_cell[sorted(frontier)].ravel()} - reached
        reached |= frontier
    return reached
