"""`bounce_expert`: sees by two pictures which way the ball flies, and goes where it will come down."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces
from pydantic import Field

from agentctl.core.protocols import BaseConfig, Setup
from agentctl.core.types import Array, Arrays, Batch, Carry, Decision, Metrics, Snapshot
from agentctl.games.toy.bounce import CELL_PIXELS, LEFT, MOVES, RIGHT, STAY, find, fold

NEAR = 0.75
"""Columns between the paddle's middle and the ball's at which it stays: it cannot come closer than 0.5."""


class BounceExpert:
    class Config(BaseConfig):
        cell_pixels: int = Field(CELL_PIXELS, gt=0, description="width of a cell, as in toy/bounce")
        epsilon: float = Field(0.0, ge=0, le=1, description="share of random actions, for games that differ")

    def __init__(self, config: Config, setup: Setup) -> None:
        picture = setup.space.spaces.get("picture")
        shape = picture.shape if isinstance(picture, spaces.Box) else ()
        if len(shape) != 3 or shape[0] != shape[1] or shape[0] % config.cell_pixels:
            raise ValueError(
                f"bounce_expert reads the `picture` of toy/bounce, square and of cells of {config.cell_pixels} pixels, "
                f"and is given {setup.space}; play toy/bounce with perception: pixels and the game's cell_pixels"
            )
        if not isinstance(setup.action_space, spaces.Discrete) or setup.action_space.n != len(MOVES):
            raise ValueError(f"bounce_expert knows Discrete({len(MOVES)}), not {setup.action_space}; play toy/bounce")
        self._config, self._cells = config, shape[0] // config.cell_pixels
        self._rng = np.random.default_rng(setup.seed)

    def initial(self, batch: int) -> Carry:
        return {"ball": np.zeros((batch, 2), np.float32)}

    def act(self, carry: Carry, state: Arrays, first: Array) -> Decision:
        """``carry["ball"]``: float32 (B, 2), row and column of the ball one picture ago; NaN where it was not seen."""
        seen = find(state["picture"], self._config.cell_pixels)
        ball = np.rint(seen.ball)
        before = np.where(first[:, None], np.nan, carry["ball"])
        move = towards(landing(before, ball, self._cells), seen.paddle)
        return Decision(self._chosen(move, state), {"ball": ball})

    explore = act

    def learn(self, batch: Batch) -> Metrics:
        return {}

    def save(self) -> Snapshot:
        return Snapshot(data={"rng": self._rng.bit_generator.state})

    def load(self, snapshot: Snapshot) -> None:
        self._rng.bit_generator.state = snapshot.data["rng"]

    def _chosen(self, move: Array, state: Arrays) -> Array:
        """``move``, or any legal action: where ``epsilon`` says so, or where ``move`` is not legal; int64 (B,)."""
        legal = np.asarray(state.get("action_mask", np.ones((len(move), len(MOVES))))) != 0
        preference = legal + self._rng.random(legal.shape)
        by_chance = self._rng.random(len(move)) < self._config.epsilon
        chosen: Array = np.where(by_chance | ~legal[np.arange(len(move)), move], preference.argmax(axis=1), move)
        return chosen


def landing(before: Array, ball: Array, cells: int) -> Array:
    """The column in which the ball will next enter the last row: float (B,), NaN where its motion is not known.

    ``before`` and ``ball``: float (B, 2), row and column in the last picture and in this one. Unfolded at the walls the
    ball's way is a straight one: so many steps on, it is so many cells further.
    """
    (row, column), (down, right) = ball.T, np.sign(ball - before).T
    steps = 1 + (cells - 2 - down * row) % (2 * (cells - 2))
    known = down * right != 0
    return np.where(known, fold(right * column + steps, cells - 1), np.nan)


def towards(column: Array, paddle: Array) -> Array:
    """The action that brings the paddle's middle nearer to ``column``, int64 (B,); STAY where either is not known."""
    gap = column - paddle
    return np.where(gap > NEAR, RIGHT, np.where(gap < -NEAR, LEFT, STAY))
