"""Which keys mean which action, for a person who plays: the held ones together, by their names in pygame."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from gymnasium import spaces

from agentctl.core.errors import ConfigError
from agentctl.core.protocols import Game, Playable

NUMBERED = "0123456789abcdefghijklmnoqrstuvwxyz"  # without p, which pauses
SLOW = 10.0  # steps a second

Combinations = Mapping[tuple[str, ...], Any]
"""Keys held together -> the action they ask for; ``()``: what to do while no key is held."""


class Keys:
    """What held keys ask for."""

    def __init__(self, combinations: Combinations) -> None:
        self._actions = {frozenset(keys): action for keys, action in combinations.items()}
        self.names = tuple(dict.fromkeys(name for keys in combinations for name in keys))
        self.waits = frozenset() not in self._actions  # there is nothing to do without a key

    def action(self, held: Sequence[str], including: Collection[str] = ()) -> Any | None:
        """The action of the most of the keys ``held``, in the order of their pressing; of as many, the latest counts.

        So left, held while right is pressed too, does not hinder it. ``including``: keys that must be among them.
        """
        when = {name: index for index, name in enumerate(held)}
        fitting = [keys for keys in self._actions if set(including) <= keys <= when.keys()]
        if not fitting:
            return None
        return self._actions[max(fitting, key=lambda keys: (len(keys), sorted(map(when.__getitem__, keys))[::-1]))]


def keys_of(game: Game) -> Combinations:
    """The game's own keys; where it declares none, its actions by number. Raises ConfigError when neither will do."""
    return game.keys if isinstance(game, Playable) else numbered(game.action_space)


def steps_per_second(game: Game) -> float:
    """How fast a game is played by hand, unless it is told otherwise."""
    return float(game.fps) if isinstance(game, Playable) else game.clock.hz or SLOW


def numbered(space: spaces.Space[Any]) -> Combinations:
    """The keys 0 to 9, then the letters. Raises ConfigError for what cannot be numbered so."""
    if not isinstance(space, spaces.Discrete) or space.n > len(NUMBERED):
        raise ConfigError(
            f"no keys are known for the actions {space}: the game must declare them, see `Playable` in "
            f"agentctl.core.protocols (up to {len(NUMBERED)} discrete actions are numbered without it)"
        )
    return {(NUMBERED[index],): int(space.start) + index for index in range(int(space.n))}
