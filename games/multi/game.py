"""`multi`: the rows of a batch play different games, shown and played alike, so that one model or policy learns all.

Row b plays the game at place b modulo n of the n ``games``. Every row shows

- ``pixels``: its game's picture. All games must be set to show pictures of one shape, and nothing else;
- ``game``: the place of its game in the list;
- ``action_mask``: the actions that its game has.

An action is a position of a joystick with one button: the 18 of Atari, in ALE's order. A game's own actions are found
there by the keys that a person plays it with (`Playable`), so that left is left in all games. A position that a game
does not have does what no key does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from pydantic import ConfigDict, Field, field_validator

from agentctl.core.config import choose
from agentctl.core.errors import AgentctlError
from agentctl.core.keys import steps_per_second
from agentctl.core.plugins import Registry, default_registry
from agentctl.core.protocols import BaseConfig, Game, Imagining, Playable, Setup
from agentctl.core.standing import named, prefixed
from agentctl.core.types import Array, Arrays, Final, Snapshot, Step

MASK = "action_mask"
DIRECTIONS = ("up", "right", "left", "down", "up right", "up left", "down right", "down left")
POSITIONS = tuple(
    frozenset(keys.split()) for keys in ("", "space", *DIRECTIONS, *(f"{direction} space" for direction in DIRECTIONS))
)
"""The joystick's, as keys held together, in the order of ALE's actions: no key is the first."""

EXAMPLE: list[Any] = [
    {"name": "toy/bounce", "cells": 8, "cell_pixels": 8},
    {"name": "toy/bounce", "cells": 16, "cell_pixels": 4},
]


@dataclass(slots=True)
class Member:
    """One of the games, and its place in the batch."""

    name: str
    game: Game
    image: str  # what it calls its picture
    rows: Array  # int64 (K,): those of the batch that play it
    actions: Array  # int64 (18,): its own action at each position of the joystick
    legal: Array  # int8 (18,): 1 where it has one


class MultiGame:
    """B rows, split among the games as evenly as can be. With fewer rows than games the last games are not played."""

    class Config(BaseConfig):
        model_config = ConfigDict(json_schema_extra={"examples": [{"games": EXAMPLE}]})

        games: list[dict[str, Any] | str] = Field(
            min_length=1, description="the games, each by its name or as a block of its name and options"
        )

        @field_validator("games")
        @classmethod
        def _resolved(cls, games: list[dict[str, Any] | str]) -> list[dict[str, Any] | str]:
            registry = default_registry()
            return [resolved(registry, game) for game in games]

    def __init__(self, config: Config, setup: Setup) -> None:
        """Raises ValueError where the games' pictures differ in shape, or one cannot be played by a joystick."""
        self.config, self.batch = config, setup.batch
        registry, count = default_registry(), len(config.games)
        places = np.arange(self.batch) % count
        self._members = [
            member(registry, block, np.flatnonzero(places == place), setup.seed)  # type: ignore[arg-type]  # resolved
            for place, block in enumerate(config.games)
        ]
        picture = common_picture(self._members)
        self.clock = self._members[0].game.clock
        if other := [m.name for m in self._members if m.game.clock != self.clock]:
            raise ValueError(f"games: {', '.join(other)} keeps time otherwise than {self._members[0].name}")
        self._playing = [m for m in self._members if m.rows.size]
        self._shown = {"game": places, MASK: np.stack([self._members[place].legal for place in places])}
        mask = spaces.Box(0, 1, (len(POSITIONS),), np.int8)
        self.observation_space = spaces.Dict({"pixels": picture, "game": spaces.Discrete(count), MASK: mask})
        self.action_space: spaces.Space[Any] = spaces.Discrete(len(POSITIONS))

    @property
    def row_names(self) -> list[str]:
        """What each row plays: its ``game`` and the name, `1 atari/pong`."""
        return [f"{place} {self._members[place].name}" for place in self._shown["game"]]

    @property
    def keys(self) -> Mapping[tuple[str, ...], int]:
        """Those of row 0's game."""
        legal = self._members[0].legal
        return {tuple(keys): place for place, keys in enumerate(POSITIONS) if legal[place]}

    @property
    def fps(self) -> float:
        """That of row 0's game."""
        return steps_per_second(self._members[0].game)

    def reset(self, seed: int) -> Arrays:
        """Start all games, each from a seed of its own."""
        seeds = np.random.SeedSequence(seed).generate_state(len(self._members)) >> 1
        begun = [m.game.reset(int(own)) for m, own in zip(self._playing, seeds, strict=False)]
        return self._observed(begun)

    def step(self, action: Array) -> Step:
        """Move each row's joystick: int (B,), a place in POSITIONS."""
        steps = [m.game.step(m.actions[action[m.rows]]) for m in self._playing]
        reward, ended, cut = (self._gathered([getattr(s, k) for s in steps]) for k in ("reward", "ended", "cut"))
        over = self._gathered([s.finished for s in steps]) if any(s.over is not None for s in steps) else None
        return Step(self._observed([s.observation for s in steps]), reward, ended, cut, self._final(steps), over)

    def frame(self) -> Array:
        """What a spectator sees of row 0's game."""
        return self._members[0].game.frame()

    def save(self) -> Snapshot | None:
        """None where one of the games cannot give its state."""
        kept = [m.game.save() for m in self._playing]
        if None in kept:
            return None
        whole = [part for part in kept if part is not None]
        arrays = {key: array for k, part in enumerate(whole) for key, array in prefixed(str(k), part.arrays).items()}
        return Snapshot(arrays, {"games": [part.data for part in whole]})

    def load(self, snapshot: Snapshot) -> None:
        for k, m in enumerate(self._playing):
            m.game.load(Snapshot(named(snapshot.arrays, str(k)), snapshot.data["games"][k]))

    def close(self) -> None:
        for m in self._members:
            m.game.close()

    def _observed(self, parts: Sequence[Arrays]) -> dict[str, Array]:
        """What all rows show, from what each game shows of its own."""
        pixels = self._gathered([part[m.image] for m, part in zip(self._playing, parts, strict=True)])
        return {"pixels": pixels, **{key: array.copy() for key, array in self._shown.items()}}

    def _gathered(self, parts: Sequence[Array]) -> Array:
        """(B, ...) from each game's rows (K, ...)."""
        whole = np.empty((self.batch, *parts[0].shape[1:]), parts[0].dtype)
        for m, part in zip(self._playing, parts, strict=True):
            whole[m.rows] = part
        return whole

    def _final(self, steps: Sequence[Step]) -> Final | None:
        found = [(m, s.final) for m, s in zip(self._playing, steps, strict=True) if s.final is not None]
        if not found:
            return None
        rows = np.concatenate([m.rows[final.rows] for m, final in found])
        pixels = np.concatenate([final.arrays[m.image] for m, final in found])
        order = np.argsort(rows)
        rows = rows[order]
        return Final(rows, {"pixels": pixels[order], **{key: array[rows] for key, array in self._shown.items()}})


def resolved(registry: Registry, game: Mapping[str, Any] | str) -> dict[str, Any]:
    """A game's block with all its options. Raises ValueError for what that game does not take."""
    block = {"name": game} if isinstance(game, str) else dict(game)
    if "batch" in block:
        raise ValueError("games share the rows evenly: set game.batch, and no batch of one of them")
    try:
        chosen = choose(registry, "game", block, ("games",))
    except AgentctlError as error:
        raise ValueError(str(error)) from error
    return {"name": chosen.name, **chosen.config.model_dump(mode="json")}


def member(registry: Registry, block: Mapping[str, Any], rows: Array, seed: int) -> Member:
    """The game that ``block`` names, built for its rows. Raises ValueError when it shows or does what does not fit."""
    name = str(block["name"])
    game: Game = registry.build("game", block, Setup(batch=max(1, rows.size), seed=seed))
    if isinstance(game, Imagining):
        raise ValueError(f"games: {name} is imagined, and would be measured so: play it alone")
    shown = list(game.observation_space)
    if len(shown) != 1 or not is_picture(game.observation_space[shown[0]]):
        raise ValueError(f"games: {name} shows {game.observation_space}; each game must show one picture alone")
    actions, legal = by_joystick(name, game)
    return Member(name, game, shown[0], rows, actions, legal)


def by_joystick(name: str, game: Game) -> tuple[Array, Array]:
    """A game's action at each position, int64 (18,), and whether it has one there, int8 (18,).

    Raises ValueError for keys that no joystick has, and where there is nothing to do while no key is held.
    """
    own = {frozenset(keys): action for keys, action in game.keys.items()} if isinstance(game, Playable) else {}
    if frozenset() not in own or not own.keys() <= set(POSITIONS):
        held = ", ".join(sorted("+".join(sorted(keys)) or "none" for keys in own)) or "no keys at all"
        raise ValueError(
            f"games: {name} is played by {held}; `multi` takes games that are played by arrows and space, and that "
            "have an action for no key"
        )
    idle = own[frozenset()]
    actions = np.array([own.get(keys, idle) for keys in POSITIONS], np.int64)
    return actions, np.array([keys in own for keys in POSITIONS], np.int8)


def common_picture(members: Sequence[Member]) -> spaces.Space[Any]:
    """The space of all pictures. Raises ValueError naming those that differ."""
    pictures = {f"{m.name} {m.game.observation_space[m.image].shape}": m for m in members}
    if len({m.game.observation_space[m.image].shape for m in members}) > 1:
        raise ValueError(f"games: their pictures must be of one shape, set by their own options: {', '.join(pictures)}")
    first = members[0]
    return first.game.observation_space[first.image]


def is_picture(space: spaces.Space[Any]) -> bool:
    return isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) in (3, 4)
