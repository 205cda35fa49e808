"""Episodes on fixed seeds: the policy, and the random policy on the same seeds beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gymnasium import spaces

from agentctl.core.assembly import Assembly, Rewards
from agentctl.core.config import EvaluationSettings
from agentctl.core.errors import NotReadyError
from agentctl.core.pipeline import Flow, Pipeline
from agentctl.core.protocols import Game
from agentctl.core.types import Array, Arrays, Decision, Transition

Act = Callable[[Flow, Arrays], Array]


@dataclass(slots=True)
class Episodes:
    """What one evaluation measured; row i is episode i."""

    returns: list[float]  # the game's own reward, summed
    lengths: list[int]
    terms: dict[str, float]  # mean over episodes of each reward term's sum
    frames: list[Array] = field(default_factory=list)  # of episode 0, uint8 (H, W, 3)
    unseen: str = ""  # why there are no frames, when the game cannot be drawn here


class Evaluator:
    """Plays evaluation episodes in a game of its own; training never notices."""

    def __init__(self, assembly: Assembly, settings: EvaluationSettings) -> None:
        self.assembly, self.settings = assembly, settings
        self._random: list[float] | None = None

    def policy_episodes(self, *, frames: bool) -> Episodes:
        """The policy's episodes (``Policy.act``)."""
        policy = self.assembly.policy

        def act(flow: Flow, state: Arrays) -> Array:
            decision = policy.act(flow.policy, state, flow.first)
            flow.policy = decision.carry
            return decision.action

        pipeline = self.assembly.another_pipeline(self.settings.episodes)
        rewards = self.assembly.another_rewards(self.settings.episodes)
        return self._play(pipeline, act, rewards, frames)

    def random_returns(self) -> list[float]:
        """The random policy's returns on the same seeds; measured once."""
        if self._random is None:
            rng = np.random.default_rng(self.settings.seed)
            space = self.assembly.game.action_space

            def act(flow: Flow, state: Arrays) -> Array:
                return random_actions(space, len(flow.time), rng, state.get("action_mask"))

            self._random = self._play(Pipeline([], None, None), act, Rewards([]), frames=False).returns
        return self._random

    def _play(self, pipeline: Pipeline, act: Act, rewards: Rewards, frames: bool) -> Episodes:
        game = self.assembly.another_game(self.settings.episodes)
        try:
            return self._play_game(game, pipeline, act, rewards, frames)
        finally:
            game.close()

    def _play_game(self, game: Game, pipeline: Pipeline, act: Act, rewards: Rewards, frames: bool) -> Episodes:
        rows = self.settings.episodes
        tally = _Tally(rows)
        observation = game.reset(self.settings.seed)
        flow, state = pipeline.begin(observation, rows, self.assembly.policy.initial(rows))
        while tally.open.any() and tally.steps < self.settings.max_steps:
            if frames and tally.open[0]:
                frames = tally.film(game)
            first, action = flow.first, act(flow, state)
            step = game.step(action)
            next_state = pipeline.see(flow, step.observation, action, step.ended | step.cut)
            seen = Transition(
                state, first, {}, Decision(action), step.reward, step.ended, step.cut, step.finished, next_state, None
            )
            rewards.score(seen)
            tally.count(seen)
            state = next_state
        return tally.episodes()


@dataclass(slots=True)
class _Tally:
    rows: int
    steps: int = 0
    frames: list[Array] = field(default_factory=list)
    unseen: str = ""
    terms: dict[str, Array] = field(default_factory=dict)
    open: Array = field(init=False)
    returns: Array = field(init=False)
    lengths: Array = field(init=False)

    def __post_init__(self) -> None:
        self.open = np.ones(self.rows, bool)
        self.returns = np.zeros(self.rows)
        self.lengths = np.zeros(self.rows, np.int64)

    def film(self, game: Game) -> bool:
        """Keep row 0's picture; False, and why in ``unseen``, when this machine cannot draw the game."""
        try:
            self.frames.append(game.frame())
        except NotReadyError as error:
            self.unseen = str(error)
        return not self.unseen

    def count(self, seen: Transition) -> None:
        self.steps += 1
        self.returns += seen.reward * self.open
        self.lengths += self.open
        for name, term in seen.terms.items():
            self.terms[name] = self.terms.get(name, np.zeros(self.rows)) + term * self.open
        self.open = self.open & ~seen.over

    def episodes(self) -> Episodes:
        terms = {name: float(total.mean()) for name, total in self.terms.items()}
        return Episodes(self.returns.tolist(), self.lengths.tolist(), terms, self.frames, self.unseen)


def random_actions(space: spaces.Space[Any], batch: int, rng: np.random.Generator, mask: Array | None = None) -> Array:
    """Uniform actions for ``batch`` rows: (B,) or (B, n). ``mask``: bool (B, n), Discrete only; False never comes."""
    if isinstance(space, spaces.Discrete):
        if mask is None:
            return np.asarray(rng.integers(space.n, size=batch) + space.start)
        scores = rng.random((batch, int(space.n)))
        return np.asarray(np.argmax(np.where(mask.astype(bool), scores, -1.0), axis=1) + space.start)
    if isinstance(space, spaces.MultiDiscrete):
        return rng.integers(space.nvec, size=(batch, len(space.nvec)))
    if isinstance(space, spaces.Box):
        low, high = np.maximum(space.low, -1e3), np.minimum(space.high, 1e3)
        return rng.uniform(low, high, size=(batch, *space.shape)).astype(space.dtype)
    return np.stack([space.sample() for _ in range(batch)])
