"""`toy/bounce`: keep a ball in play with a paddle; a game for world models, since chance has its say only at the start.

- The ball is one cell of a square board and moves by one cell diagonally at every step. In the first or last column it
  turns sideways, in the first row downwards, in a corner both at once.
- The paddle is PADDLE cells of the last row. It moves first, by one cell; at the wall it stays where it is.
- When the ball would enter the last row, the column that it would enter counts: with the paddle there it bounces up
  instead, for +1; else it enters, for -1, and the episode ends with the ball to be seen beside the paddle.
- An episode starts with the ball anywhere in the upper half, falling to the left or to the right, and the paddle
  anywhere from where it still catches the ball, whichever way that flies, if it waits a step to see which.

One picture does not tell which way the ball flies; two do. With 16 cells and 200 steps, who never misses catches 7.

A step draws B pictures, 12 KiB a row: a copy of the board with the paddle, and the ball's 48 bytes on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from pydantic import Field

from agentctl.core.protocols import BaseConfig, Clock, Setup
from agentctl.core.types import Array, Arrays, Final, Snapshot, Step

STAY, LEFT, RIGHT = range(3)
MOVES = np.array([0, -1, 1])  # columns, by action
KEYS: Mapping[tuple[str, ...], int] = {("left",): LEFT, ("right",): RIGHT, (): STAY}
PADDLE = 4  # cells
CELL_PIXELS = 4
FRAME_SCALE = 5

BOARD_COLOUR, BALL_COLOUR, PADDLE_COLOUR = np.array([(18, 22, 34), (255, 214, 64), (64, 160, 255)], np.uint8)


class Bounce:
    """B boards side by side; a row that finishes starts again at once, with ball and paddle drawn anew."""

    class Config(BaseConfig):
        limit: int = Field(200, gt=0, description="Steps after which an episode is cut.")
        cells: int = Field(16, ge=2 * PADDLE, description="Rows and columns of the board.")
        cell_pixels: int = Field(CELL_PIXELS, gt=0, description="Width and height of a cell in the picture.")

    clock: ClassVar[Clock] = Clock("pausable")
    keys: ClassVar[Mapping[tuple[str, ...], int]] = KEYS
    fps: ClassVar[float] = 12.0

    def __init__(self, config: Config, setup: Setup) -> None:
        self.config = config
        self.batch = setup.batch
        self._boards = boards(config.cells, config.cell_pixels)
        self.observation_space = spaces.Dict({"picture": spaces.Box(0, 255, self._boards.shape[1:], np.uint8)})
        self.action_space: spaces.Space[Any] = spaces.Discrete(len(MOVES))

    def reset(self, seed: int) -> Arrays:
        """Start B episodes. Returns ``picture``: uint8 (B, H, W, 3)."""
        self._rng = np.random.default_rng(seed)
        self._ball, self._velocity = np.zeros((2, self.batch, 2), np.int64)  # (B, 2): row and column, and their change
        self._paddle, self._time = np.zeros((2, self.batch), np.int64)  # (B,): the leftmost column; steps
        self._start(np.arange(self.batch))
        return self._observe()

    def step(self, action: Array) -> Step:
        """Move each row's paddle by ``action``: int (B,), 0 stay, 1 left, 2 right; then its ball."""
        self._paddle = np.clip(self._paddle + MOVES[action], 0, self.config.cells - PADDLE)
        reward = self._fly()
        self._time += 1
        ended = reward < 0
        cut = ~ended & (self._time >= self.config.limit)
        final = self._restart(ended | cut)
        return Step(self._observe(), reward, ended, cut, final)

    def frame(self) -> Array:
        """Row 0 as a spectator sees it: uint8, FRAME_SCALE times the picture's size."""
        picture: Array = self._draw(self._ball[:1], self._paddle[:1])[0]
        return picture.repeat(FRAME_SCALE, axis=0).repeat(FRAME_SCALE, axis=1)

    def save(self) -> Snapshot:
        state = {"ball": self._ball, "velocity": self._velocity, "paddle": self._paddle, "time": self._time}
        return Snapshot({name: array.copy() for name, array in state.items()}, {"rng": self._rng.bit_generator.state})

    def load(self, snapshot: Snapshot) -> None:
        self._ball, self._velocity, self._paddle, self._time = (
            snapshot.arrays[name].copy() for name in ("ball", "velocity", "paddle", "time")
        )
        self._rng = np.random.default_rng()
        self._rng.bit_generator.state = snapshot.data["rng"]

    def close(self) -> None:
        """Nothing to close."""

    def _fly(self) -> Array:
        """Move each ball by one cell. Returns the reward, float32 (B,): 1 for a catch, -1 for a miss."""
        last = self.config.cells - 1
        (row, column), (down, right) = self._ball.T, self._velocity.T
        right = np.where(column == 0, 1, np.where(column == last, -1, right))
        down = np.where(row == 0, 1, down)
        column = column + right
        landing = row + down == last
        under = (self._paddle <= column) & (column < self._paddle + PADDLE)
        down = np.where(landing & under, -1, down)
        self._ball = np.stack([row + down, column], axis=1)
        self._velocity = np.stack([down, right], axis=1)
        return np.where(landing, np.where(under, 1, -1), 0).astype(np.float32)

    def _restart(self, finished: Array) -> Final | None:
        """Start finished rows anew and return what they saw last."""
        rows = np.flatnonzero(finished)
        if not rows.size:
            return None
        last = self._draw(self._ball[rows], self._paddle[rows])
        self._start(rows)
        return Final(rows, {"picture": last})

    def _start(self, rows: Array) -> None:
        """Draw how the episodes of ``rows`` begin."""
        cells = self.config.cells
        row = self._rng.integers(0, cells // 2, rows.size)
        column = self._rng.integers(0, cells, rows.size)
        right = 2 * self._rng.integers(0, 2, rows.size) - 1
        ball = np.stack([row, column], axis=1)
        lowest, highest = fair_places(ball, cells)
        self._ball[rows], self._velocity[rows] = ball, np.stack([np.ones_like(right), right], axis=1)
        self._paddle[rows] = self._rng.integers(lowest, highest, endpoint=True)
        self._time[rows] = 0

    def _observe(self) -> Arrays:
        return {"picture": self._draw(self._ball, self._paddle)}

    def _draw(self, ball: Array, paddle: Array) -> Array:
        """Pictures of K rows, uint8 (K, H, W, 3)."""
        pictures = self._boards[paddle]
        cells, pixels = self.config.cells, self.config.cell_pixels
        grid = pictures.reshape(len(pictures), cells, pixels, cells, pixels, 3)
        grid[np.arange(len(grid)), ball[:, 0], :, ball[:, 1]] = BALL_COLOUR
        return pictures


def boards(cells: int, pixels: int) -> Array:
    """The board without the ball, for every place of the paddle: uint8 (places, H, W, 3)."""
    side, places = cells * pixels, cells - PADDLE + 1
    pictures = np.full((places, side, side, 3), BOARD_COLOUR, np.uint8)
    for left in range(places):
        pictures[left, -pixels:, left * pixels : (left + PADDLE) * pixels] = PADDLE_COLOUR
    return pictures


def fold(way: Array, far: int) -> Array:
    """Where a walker to and fro between 0 and ``far`` stands after ``way`` cells from 0; negative: as the other way."""
    there: Array = far - np.abs(far - way % (2 * far))
    return there


def fair_places(ball: Array, cells: int) -> tuple[Array, Array]:
    """The least and the greatest column, int64 (K,), from which a paddle that first waits a step catches a ball.

    ``ball``: int64 (K, 2), falling from the upper half, to the left or to the right. The range is never empty: the two
    columns in which it may come down are at most ``cells - 1`` apart, and there is half the board's height to move.
    """
    row, column = ball.T
    steps = cells - 1 - row
    moves = steps - 1
    landings = np.stack([fold(steps - column, cells - 1), fold(steps + column, cells - 1)])
    lowest = np.maximum(landings.max(axis=0) - (PADDLE - 1) - moves, 0)
    highest = np.minimum(landings.min(axis=0) + moves, cells - PADDLE)
    return lowest, highest


# what a picture tells

FAINT = 0.25
"""Cells with less of a colour than this share of the brightest cell's count for nothing: they are noise."""

LOST = 0.2
"""A thing whose brightest cell has less of its colour than this is not there."""

UNMIX = np.linalg.pinv(np.stack([BALL_COLOUR, PADDLE_COLOUR]) - BOARD_COLOUR.astype(np.float64)).astype(np.float32)
"""Takes what a cell's colour has beyond the board's, (3,), to its shares of the ball's and the paddle's, (2,)."""


@dataclass(slots=True)
class Positions:
    """Where things are in N pictures, in cells: 0 is the middle of the first row or column."""

    ball: Array  # float32 (N, 2): row and column; NaN where it is lost
    paddle: Array  # float32 (N,): the column of its middle, 1.5 beyond that of its leftmost cell; NaN where it is lost
    visible: Array  # bool (N,): both are there


def find(pictures: Array, cell_pixels: int = CELL_PIXELS) -> Positions:
    """Read pictures of toy/bounce, (N, H, W, 3) with values from 0 to 255: also blurred ones, that a model decoded."""
    colours = cell_colours(pictures, cell_pixels)
    shares = (colours - BOARD_COLOUR) @ UNMIX
    ball, paddle = centre(shares[..., 0]), centre(shares[..., 1])
    return Positions(ball, paddle[:, 1], np.isfinite(ball[:, 0]) & np.isfinite(paddle[:, 0]))


def cell_colours(pictures: Array, pixels: int) -> Array:
    """The mean colour of each cell, float32 (N, R, C, 3); slices are summed three times as fast as axes."""
    count, height, width, _ = pictures.shape
    lines = np.zeros((count, height // pixels, width, 3), np.float32)
    total = np.zeros((count, height // pixels, width // pixels, 3), np.float32)
    for i in range(pixels):
        lines += pictures[:, i::pixels]
    for i in range(pixels):
        total += lines[:, :, i::pixels]
    mean: Array = total / pixels**2
    return mean


def centre(share: Array) -> Array:
    """The mean row and column of a colour, float32 (N, 2), weighted by each cell's ``share`` of it, (N, R, C)."""
    brightest = share.max(axis=(1, 2), keepdims=True)
    weight = np.where(share >= FAINT * brightest, share, 0)
    rows, columns = weight.sum(axis=2), weight.sum(axis=1)
    total = np.where(brightest[:, 0, 0] >= LOST, rows.sum(axis=1), np.nan)
    moments = [side @ np.arange(side.shape[1], dtype=np.float32) for side in (rows, columns)]
    return np.stack(moments, axis=1) / total[:, None]
