"""The single-environment form of any game, for learners written for Gymnasium: ``make("atari/pong", stack=4)``."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from agentctl.core.protocols import Game, Setup
from agentctl.core.types import Array, Arrays


class GameEnv(gymnasium.Env[Any, Any]):
    """A game of one row as a `gymnasium.Env`. An observation that is one array is given bare, several as a dict.

    A game restarts by itself when it finishes: `step` gives the last observation of the old episode, the next `reset`
    the first of the new one. Where only a life was lost, ``info["over"]`` is False and `reset` lets the game go on.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}

    def __init__(self, game: Game, render_mode: str | None = None) -> None:
        self.game = game
        self.render_mode = render_mode
        names = list(game.observation_space.spaces)
        self._only = names[0] if len(names) == 1 else None
        self.observation_space = game.observation_space if self._only is None else game.observation_space[self._only]
        self.action_space = game.action_space
        self._next: Arrays | None = None  # the first observation of an episode that has already begun

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; with ``seed``, or in the middle of one, the whole game starts anew."""
        super().reset(seed=seed)
        if seed is not None or self._next is None:
            self._next = self.game.reset(int(self.np_random.integers(2**31)) if seed is None else seed)
        observation, self._next = self._row(self._next), None
        return observation, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Returns observation, reward, terminated, truncated, info."""
        step = self.game.step(np.asarray(action)[None])
        ended, cut = bool(step.ended[0]), bool(step.cut[0])
        if ended or cut:
            self._next = step.observation
        seen = step.observation if step.final is None else step.final.arrays
        info = {} if step.over is None else {"over": bool(step.over[0])}
        return self._row(seen), float(step.reward[0]), ended, cut, info

    def render(self) -> Array | None:
        """uint8 (H, W, 3), RGB, or None without ``render_mode="rgb_array"``."""
        return self.game.frame() if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        self.game.close()

    def _row(self, arrays: Arrays) -> Any:
        return {name: array[0] for name, array in arrays.items()} if self._only is None else arrays[self._only][0]


def make(name: str, *, seed: int = 0, render_mode: str | None = None, **options: Any) -> GameEnv:
    """The registered game ``name`` with its ``options``, as one Gymnasium environment.

    Raises ConfigError for a wrong option and PluginError for an unknown or missing game.
    """
    from agentctl.core.plugins import default_registry

    game = default_registry().build("game", {"name": name, **options}, Setup(batch=1, seed=seed))
    return GameEnv(game, render_mode)
