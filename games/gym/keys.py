"""How a person plays a Gymnasium environment: by its own `get_keys_to_action()`, else by what is known of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import gymnasium
from gymnasium import spaces

from agentctl.core.keys import Combinations, numbered

LEFT_RIGHT: Combinations = {("left",): 0, (): 1, ("right",): 2}
LAKE: Combinations = {("left",): 0, ("down",): 1, ("right",): 2, ("up",): 3}
CLIFF: Combinations = {("up",): 0, ("right",): 1, ("down",): 2, ("left",): 3}
TAXI: Combinations = {("down",): 0, ("up",): 1, ("right",): 2, ("left",): 3, ("space",): 4, ("return",): 5}
KNOWN: dict[str, Combinations] = {
    "Acrobot": LEFT_RIGHT,
    "Blackjack": {("s",): 0, ("h",): 1},
    "CarRacing": {(): 0, ("right",): 1, ("left",): 2, ("up",): 3, ("down",): 4},
    "CartPole": {("left",): 0, ("right",): 1},
    "CliffWalking": CLIFF,
    "CliffWalkingSlippery": CLIFF,
    "FrozenLake": LAKE,
    "FrozenLake8x8": LAKE,
    "LunarLander": {(): 0, ("left",): 1, ("up",): 2, ("right",): 3},
    "Taxi": TAXI,
}
"""By the environment's name without its version, where it has discrete actions. Without ``()`` it waits for a key."""

PYGAME_1 = {273: "up", 274: "down", 275: "right", 276: "left"}
"""Key codes of the first pygame, which some environments still give (MountainCar); none of today's keys has them."""

SPECIAL = {" ": "space", "\r": "return", "\t": "tab"}


def keys_of_env(env: gymnasium.Env[Any, Any]) -> Combinations:
    """Raises ConfigError when there are neither keys nor actions that can be numbered."""
    try:
        own = env.get_wrapper_attr("get_keys_to_action")()
    except AttributeError:  # also what Atari's raises for continuous actions
        name = env.spec.name if env.spec else ""
        known = isinstance(env.action_space, spaces.Discrete) and name in KNOWN
        return KNOWN[name] if known else numbered(env.action_space)
    named = {names(keys): action for keys, action in own.items()}
    if isinstance(env.action_space, spaces.Discrete):
        named.setdefault((), int(env.action_space.start))  # the first action, as in gymnasium.utils.play
    return named


def names(keys: str | int | Iterable[str | int | None]) -> tuple[str, ...]:
    """A combination as pygame names its keys: Gymnasium gives ``"wa"``, ``119``, ``("w", "a")`` or ``(119, 97)``."""
    several = (keys,) if isinstance(keys, int) else keys
    return tuple(name_of(key) for key in several if key is not None)


def name_of(key: str | int) -> str:
    code = ord(key) if isinstance(key, str) else key
    if code in PYGAME_1:
        return PYGAME_1[code]
    if code < 128:
        return SPECIAL.get(chr(code), chr(code).lower())
    import pygame  # an environment with such codes has it too

    return pygame.key.name(code)
