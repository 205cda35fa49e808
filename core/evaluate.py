"""Episodes on fixed seeds: the policy, and the random policy on the same seeds beside it.

Evaluating changes nothing: whatever it moves in the policy and the world model (such as their random generators) is put
back afterwards. So training is the same however often it is evaluated, and one checkpoint always gives one figure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gymnasium import spaces

from agentctl.core.assembly import Assembly, Rewards
from agentctl.core.config import EvaluationSettings
from agentctl.core.errors import ConfigError, NotReadyError
from agentctl.core.pipeline import Flow, Pipeline
from agentctl.core.protocols import Game, SeveralGames
from agentctl.core.types import Array, Arrays, Carry, Decision, Table, Transition

MASK = "action_mask"
MAX_FRAMES = 3_600
"""Of an episode, two minutes of video at 30 a second: an hour of a long game would fill the memory."""

Act = Callable[[Flow, Arrays], Decision]


@dataclass(slots=True)
class Episodes:
    """What one evaluation measured; row i is episode i."""

    returns: list[float]  # the game's own reward, summed
    lengths: list[int]
    terms: dict[str, float]  # mean over episodes of each reward term's sum
    frames: list[Array] = field(default_factory=list)  # of episode 0, uint8 (H, W, 3)
    unseen: str = ""  # why there are no frames, when the game cannot be drawn here
    games: list[str] = field(default_factory=list)  # what each row played, where they played different games


class Evaluator:
    """Plays evaluation episodes in a game of its own, until ``stopped`` says that nobody waits for them any more."""

    def __init__(
        self, assembly: Assembly, settings: EvaluationSettings, stopped: Callable[[], bool] = lambda: False
    ) -> None:
        self.assembly, self.settings, self.stopped = assembly, settings, stopped
        self._random: list[float] | None = None

    def policy_episodes(self, *, frames: bool) -> Episodes | None:
        """The policy's episodes (``Policy.act``), or None when stopped."""
        policy, rows = self.assembly.policy, self.settings.episodes
        pipeline, rewards = self.assembly.another_pipeline(rows), self.assembly.another_rewards(rows)
        player = Player(pipeline, lambda flow, state: policy.act(flow.policy, state, flow.first), rewards)
        with self._nothing_changed():
            return self._play(player, policy.initial(rows), frames=frames)

    def random_returns(self) -> list[float] | None:
        """The random policy's returns on the same seeds, measured once, or None when stopped."""
        if self._random is None:
            rng = np.random.default_rng(self.settings.seed)
            space = self.assembly.game.action_space

            def act(flow: Flow, state: Arrays) -> Decision:
                return Decision(random_actions(space, len(flow.time), rng, state.get(MASK)))

            episodes = self._play(Player(self._what_shows_masks(), act, Rewards([])), {}, frames=False)
            self._random = None if episodes is None else episodes.returns
        return self._random

    def _what_shows_masks(self) -> Pipeline:
        """The perceptions, if one of them tells the legal actions; else nothing, which is faster."""
        from_perception = MASK in self.assembly.setup.space.spaces and MASK not in self.assembly.game.observation_space
        return Pipeline(self.assembly.pipeline.perceptions if from_perception else [], None, None)

    @contextmanager
    def _nothing_changed(self) -> Iterator[None]:
        parts: list[Any] = [self.assembly.policy, self.assembly.pipeline.world_model]
        before = [(part, part.save()) for part in parts if part is not None]
        try:
            yield
        finally:
            for part, snapshot in before:
                part.load(snapshot)

    def _play(self, player: Player, carry: Carry, *, frames: bool) -> Episodes | None:
        game = self.assembly.another_game(self.settings.episodes)
        tally = _Tally(self.settings.episodes, filming=frames)
        try:
            state = player.begin(game.reset(self.settings.seed), carry)
            while tally.open.any() and tally.steps < self.settings.max_steps:
                if self.stopped():
                    return None
                tally.film(game)
                state = tally.count(player.step(game, state))
        finally:
            game.close()
        episodes = tally.episodes()
        if isinstance(game, SeveralGames):
            episodes.games = list(game.row_names)
        return episodes


@dataclass(slots=True)
class Player:
    """Drives one batch of games: perceive, act, score."""

    pipeline: Pipeline
    act: Act
    rewards: Rewards
    flow: Flow = field(init=False)

    def begin(self, observation: Arrays, carry: Carry) -> Arrays:
        """The first state of the episodes that begin with ``observation``."""
        rows = len(next(iter(observation.values())))
        self.flow, state = self.pipeline.begin(observation, rows, carry)
        return state

    def step(self, game: Game, state: Arrays) -> Transition:
        decision = self.act(self.flow, state)
        seen = self.pipeline.advance(self.flow, state, decision, game.step(decision.action))
        self.rewards.score(seen)
        return seen


@dataclass(slots=True)
class _Tally:
    rows: int
    filming: bool
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

    def film(self, game: Game) -> None:
        """Keep row 0's picture while somebody watches; ``unseen`` says why when this machine cannot draw the game."""
        if not self.filming or not self.open[0] or len(self.frames) >= MAX_FRAMES:
            return
        try:
            self.frames.append(game.frame())
        except NotReadyError as error:
            self.unseen, self.filming = str(error), False

    def count(self, seen: Transition) -> Arrays:
        """Add one step of the episodes that are still open. Returns the next state."""
        self.steps += 1
        self.returns += seen.reward * self.open
        self.lengths += self.open
        for name, term in seen.terms.items():
            self.terms[name] = self.terms.get(name, np.zeros(self.rows)) + term * self.open
        self.open = self.open & ~seen.over
        return seen.next_state

    def episodes(self) -> Episodes:
        terms = {name: float(total.mean()) for name, total in self.terms.items()}
        return Episodes(self.returns.tolist(), self.lengths.tolist(), terms, self.frames, self.unseen)


def by_game(games: Sequence[str], returns: Sequence[float], random_returns: Sequence[float]) -> Table:
    """Mean returns of the rows of each game, beside the random policy's."""
    rows = {name: [row for row, played in enumerate(games) if played == name] for name in dict.fromkeys(games)}
    means = {
        name: [float(np.mean([found[row] for row in mine])) for found in (returns, random_returns)]
        for name, mine in rows.items()
    }
    episodes = {name: float(len(mine)) for name, mine in rows.items()}
    return Table(["return", "random policy", "episodes"], {name: [*means[name], episodes[name]] for name in rows})


def random_actions(space: spaces.Space[Any], batch: int, rng: np.random.Generator, mask: Array | None = None) -> Array:
    """Uniform actions for ``batch`` rows: (B,) for Discrete, (B, n) otherwise. Raises ConfigError for other spaces.

    ``mask``: (B, n) for Discrete, (B, sum(nvec)) for MultiDiscrete; what is False or 0 there never comes.
    """
    if isinstance(space, spaces.Discrete):
        return np.asarray(_choices(int(space.n), batch, rng, mask) + space.start)
    if isinstance(space, spaces.MultiDiscrete):
        parts = [None] * len(space.nvec) if mask is None else np.split(mask, np.cumsum(space.nvec)[:-1], axis=1)
        chosen = [_choices(int(n), batch, rng, part) for n, part in zip(space.nvec, parts, strict=True)]
        return np.asarray(np.stack(chosen, axis=1) + space.start)
    if isinstance(space, spaces.MultiBinary):
        return np.asarray(rng.integers(2, size=(batch, *space.shape), dtype=np.int8))
    if isinstance(space, spaces.Box):
        low, high = np.maximum(space.low, -1e3), np.minimum(space.high, 1e3)
        return np.asarray(rng.uniform(low, high, size=(batch, *space.shape)), space.dtype)
    raise ConfigError(f"no random reference for actions {space}: use Discrete, MultiDiscrete, MultiBinary or Box")


def _choices(n: int, batch: int, rng: np.random.Generator, mask: Array | None) -> Array:
    """One of ``n`` per row, int64 (B,)."""
    if mask is None:
        return rng.integers(n, size=batch)
    return np.asarray(np.argmax(np.where(mask.astype(bool), rng.random((batch, n)), -1.0), axis=1))
