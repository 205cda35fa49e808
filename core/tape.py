"""Recording a player: whole episodes of every row, as the game showed them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from agentctl.core.evaluate import Player
from agentctl.core.protocols import BaseConfig, Game
from agentctl.core.recording import Episode, Recorder
from agentctl.core.types import Array, Arrays, Step, Transition


@dataclass(slots=True)
class Recorded:
    """What a recording came to."""

    returns: list[float] = field(default_factory=list)  # of whole games
    episodes: int = 0  # lost lives count where they end an episode
    steps: int = 0


def record(
    player: Player, tape: Tape, state: Arrays, recorder: Recorder, games: int, stopped: Callable[[], bool]
) -> Recorded:
    """Play ``games`` whole games from ``state`` on and write their episodes down; ``stopped`` ends it sooner.

    Each row plays its share of them, so that short games are not preferred to long ones.
    """
    done = Recorded()
    rows = len(player.flow.time)
    left = games // rows + (np.arange(rows) < games % rows)
    while left.any() and not stopped():
        seen = player.step(tape, state)
        state = seen.next_state
        for episode in tape.finished(seen):
            if left[episode.row]:
                recorder.write(episode)
                done.episodes += 1
                done.steps += episode.length
        done.returns += [tape.returns[row][-1] for row in np.flatnonzero(seen.over & (left > 0))]
        left[seen.over] = np.maximum(left[seen.over] - 1, 0)
    return done


class Tape:
    """A game whose rows are written down while they are played."""

    Config: ClassVar[type[BaseConfig]] = BaseConfig

    def __init__(self, game: Game) -> None:
        self.game = game
        self.observation_space, self.action_space, self.clock = game.observation_space, game.action_space, game.clock
        self.frame, self.save, self.load, self.close = game.frame, game.save, game.load, game.close

    def reset(self, seed: int) -> Arrays:
        observation = self.game.reset(seed)
        rows = len(next(iter(observation.values())))
        self._takes = [Take(row, [_row(observation, row)]) for row in range(rows)]
        self.score = np.zeros(rows)  # of each row's game so far
        self.time = np.zeros(rows, np.int64)  # its steps
        self.returns: list[list[float]] = [[] for _ in range(rows)]  # of each row's whole games
        return observation

    def step(self, action: Array) -> Step:
        self._last = step = self.game.step(action)
        self.score += step.reward
        self.time += 1
        for row in np.flatnonzero(step.finished):
            self.returns[row].append(float(self.score[row]))
            self.score[row] = self.time[row] = 0
        return step

    def finished(self, seen: Transition) -> list[Episode]:
        """Take in the last step, now that it is scored; the episodes that it finished."""
        done, step = [], self._last
        for take in self._takes:
            take.add(seen)
            if not (step.ended | step.cut)[take.row]:
                take.observations.append(_row(step.observation, take.row))
                continue
            take.observations.append(_last(step, take.row))
            done.append(take.episode(seen))
            take.begin(_row(step.observation, take.row))
        return done


@dataclass(slots=True)
class Take:
    """An episode of one row so far."""

    row: int
    observations: list[Arrays]
    steps: list[dict[str, Array]] = field(default_factory=list)
    terms: list[dict[str, Array]] = field(default_factory=list)

    def begin(self, observation: Arrays) -> None:
        self.observations, self.steps, self.terms = [observation], [], []

    def add(self, seen: Transition) -> None:
        figures = {"action": seen.decision.action, "reward": seen.reward, "total": seen.total}
        self.steps.append({name: np.array(values[self.row]) for name, values in figures.items()})
        self.terms.append({name: np.array(values[self.row]) for name, values in seen.terms.items()})

    def episode(self, seen: Transition) -> Episode:
        steps = _stacked(self.steps)
        return Episode(
            observations=_stacked(self.observations),
            actions=steps["action"],
            rewards=steps["reward"].astype(np.float32),
            ended=bool(seen.ended[self.row]),
            over=bool(seen.over[self.row]),
            row=self.row,
            terms=_stacked(self.terms),
            total=steps["total"].astype(np.float32),
        )


def _last(step: Step, row: int) -> Arrays:
    """What a finished row saw last; where only a life was lost the game goes on with it."""
    if step.final is not None and row in step.final.rows:
        return _row(step.final.arrays, int(np.searchsorted(step.final.rows, row)))
    return _row(step.observation, row)


def _row(arrays: Arrays, row: int) -> Arrays:
    return {name: np.array(values[row]) for name, values in arrays.items()}


def _stacked(rows: list[Arrays] | list[dict[str, Array]]) -> dict[str, Array]:
    """Each (T, ...)."""
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}
