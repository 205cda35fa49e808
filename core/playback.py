"""Playing a recording again: through a run's perception, world model, memory and rewards, and beside its policy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces

from agentctl.core.assembly import Assembly, Rewards
from agentctl.core.errors import ConfigError, NotReadyError
from agentctl.core.evaluate import Player
from agentctl.core.pipeline import Pipeline
from agentctl.core.protocols import BaseConfig, Clock
from agentctl.core.recording import Episode, Recording
from agentctl.core.types import Array, Arrays, Decision, Final, Snapshot, Step, Transition

TOLERANCE = 1e-6
"""Of rewards; those that differ by less, relative to their size where that is above 1, are the same."""


class RecordedGame:
    """A recording in a game's clothes: whatever is done, what happened happens again.

    Each row shows its episodes one after the other; then, or without any, it is not ``live`` and stands still.
    """

    Config: ClassVar[type[BaseConfig]] = BaseConfig

    def __init__(
        self, recording: Recording, rows: Sequence[Sequence[int]], space: spaces.Dict, action_space: spaces.Space[Any]
    ) -> None:
        """``rows``: the numbers of each row's episodes; the spaces are those of the game that it stands for."""
        self.observation_space, self.action_space = space, action_space
        self.clock = Clock()
        self._recording, self._rows = recording, [list(row) for row in rows]
        self._naming = recording.named(space)

    def reset(self, seed: int) -> Arrays:
        self._waiting = [iter(row) for row in self._rows]
        self.live = np.array([len(row) > 0 for row in self._rows])  # bool (B,)
        anything = next(number for row in self._rows for number in row)  # what a row without episodes shows
        self._playing = [self._read(next(row, anything)) for row in self._waiting]
        self._time = np.zeros(len(self._rows), np.int64)
        return self._observation()

    @property
    def playing(self) -> list[Episode]:
        """Of each row; where it is not ``live``, its last one."""
        return self._playing

    @property
    def time(self) -> Array:
        """Steps since each row's episode began, int64 (B,)."""
        return self._time

    @property
    def action(self) -> Array:
        """What was done next, (B,) or (B, n); in rows that stand still, what was done last."""
        return self._now("actions")

    def step(self, action: Array) -> Step:
        """What the recorded action led to."""
        reward, live = self._now("rewards"), self.live.copy()
        self._time += live
        done = live & (self._time == [episode.length for episode in self._playing])
        ended = done & [episode.ended for episode in self._playing]
        over = done & [episode.over for episode in self._playing]
        rows = np.flatnonzero(done)
        final = Final(rows, {key: last[rows] for key, last in self._observation().items()}) if len(rows) else None
        for row in rows:
            self._go_on(int(row))
        return Step(self._observation(), np.where(live, reward, 0.0), ended, done & ~ended, final, over)

    def frame(self) -> Array:
        raise NotReadyError("a recording holds observations, no pictures for spectators: record no video")

    def save(self) -> Snapshot | None:
        return None

    def load(self, snapshot: Snapshot) -> None:
        raise RuntimeError("a recording begins anew by reset()")

    def close(self) -> None:
        """Nothing is open."""

    def _go_on(self, row: int) -> None:
        number = next(self._waiting[row], None)
        if number is None:
            self.live[row] = False
        else:
            self._playing[row], self._time[row] = self._read(number), 0

    def _read(self, number: int) -> Episode:
        episode = self._recording.episode(number)
        episode.observations = {self._naming[name]: values for name, values in episode.observations.items()}
        return episode

    def _observation(self) -> Arrays:
        named = [episode.observations for episode in self._playing]
        return {
            key: np.stack([seen[key][time] for seen, time in zip(named, self._time, strict=True)])
            for key in self.observation_space.spaces
        }

    def _now(self, what: str) -> Array:
        """Of the step that comes next."""
        at = zip(self._playing, self._time, strict=True)
        return np.stack([getattr(episode, what)[min(time, episode.length - 1)] for episode, time in at])


def playback(recording: Recording, assembly: Assembly) -> Iterator[Transition]:
    """Every whole episode, one after the other in one row, as a run of this assembly would have seen it."""
    space, actions = assembly.game.observation_space, assembly.game.action_space
    check_fit(recording, actions)
    game = RecordedGame(recording, [list(recording.lengths)], space, actions)
    player = Player(
        assembly.another_pipeline(1), lambda flow, state: Decision(game.action), assembly.another_rewards(1)
    )
    state = player.begin(game.reset(0), {})
    while game.live.all():
        seen = player.step(game, state)
        state = seen.next_state
        yield seen


def check_fit(recording: Recording, space: spaces.Space[Any]) -> None:
    """Raise AgentctlError when there is nothing to play, or the recording's actions are not the game's."""
    recording.check_not_empty()
    if recording.action_space != space:
        raise ConfigError(f"{recording.folder}: its actions are {recording.action_space}, the game's are {space}")


@dataclass(frozen=True, slots=True)
class Difference:
    """A step at which a run does otherwise than was recorded."""

    episode: int
    step: int
    what: str  # "action", "total" or a reward term's name
    recorded: Any
    now: Any


@dataclass(slots=True)
class Comparison:
    """A run beside a recording, step by step."""

    steps: int = 0
    differences: list[Difference] = field(default_factory=list)
    unknown: set[str] = field(default_factory=set)  # reward terms that only one of the two has

    def count(self, what: str) -> int:
        return sum(difference.what == what for difference in self.differences)


def compare(recording: Recording, assembly: Assembly) -> Comparison:
    """Show the recording to the assembly, in the rows it was made in, and note where it decides or scores otherwise.

    The recorded action is what happens next, whatever the policy says; so one difference does not lead to others.
    """
    check_fit(recording, assembly.game.action_space)
    rows = recording.rows
    space, actions = assembly.game.observation_space, assembly.game.action_space
    game = RecordedGame(recording, rows, space, actions)
    pipeline, rewards = assembly.another_pipeline(len(rows)), assembly.another_rewards(len(rows))
    return _compared(game, assembly, pipeline, rewards)


def _compared(game: RecordedGame, assembly: Assembly, pipeline: Pipeline, rewards: Rewards) -> Comparison:
    found, policy = Comparison(), assembly.policy
    flow, state = pipeline.begin(game.reset(0), len(game.live), policy.initial(len(game.live)))
    while game.live.any():
        decision = policy.act(flow.policy, state, flow.first)
        live, episodes, time = np.flatnonzero(game.live), list(game.playing), game.time.copy()
        recorded = Decision(game.action, decision.carry)
        seen = pipeline.advance(flow, state, recorded, game.step(recorded.action))
        rewards.score(seen)
        state = seen.next_state
        found.steps += len(live)
        for row in live:
            now = {"action": decision.action[row], "total": seen.total[row]}
            now |= {name: term[row] for name, term in seen.terms.items()}
            _note(found, episodes[row], int(time[row]), now)
    return found


def _note(found: Comparison, episode: Episode, step: int, now: Mapping[str, Any]) -> None:
    """Compare one step of one row."""
    then = {"action": episode.actions[step], **{name: term[step] for name, term in episode.terms.items()}}
    if len(episode.total):
        then["total"] = episode.total[step]
    found.unknown |= (now.keys() ^ then.keys()) - {"total"}
    for what in now.keys() & then.keys():
        if not same(then[what], now[what]):
            then_value, now_value = (np.asarray(value).tolist() for value in (then[what], now[what]))
            found.differences.append(Difference(episode.number, step, what, then_value, now_value))


def same(then: Any, now: Any) -> bool:
    """Whether two values are the same, real numbers up to ``TOLERANCE``."""
    if np.asarray(then).dtype.kind == "f":
        return bool(np.allclose(then, now, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True))
    return bool(np.array_equal(then, now))
