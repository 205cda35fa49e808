"""A world model that knows its game by heart: a corridor of four cells, and a lamp that tells by which end to leave.

Leaving by the end that the lamp tells pays 1, by the other nothing; both end the episode. In an episode's first picture
the lamp burns; whether also later is an option. What is best is known, and what each cell is worth then.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from agentctl.core.contracts.stand_in import StandIn
from agentctl.core.protocols import BaseConfig, Setup
from agentctl.core.types import Array, Arrays, Batch, Belief, Carry, Imagined

CELLS, PIXELS = 4, 4
LEFT, RIGHT = range(2)
DARK, TO_LEFT, TO_RIGHT = range(3)

LATENT = spaces.Dict({"place": spaces.Discrete(CELLS), "lamp": spaces.Discrete(3)})
PICTURE = spaces.Box(0, 255, (CELLS * PIXELS, CELLS * PIXELS, 3), np.uint8)


def drawn() -> Array:
    """Every picture, uint8 (places, lamps, H, W, 3): the place a red column, the lamp blue in the lower half."""
    pictures = np.zeros((CELLS, 3, *PICTURE.shape), np.uint8)
    for place in range(CELLS):
        pictures[place, :, :, PIXELS * place : PIXELS * (place + 1), 0] = 255
    pictures[..., CELLS * PIXELS // 2 :, :, 2] = 100 * np.arange(3)[:, None, None]
    return pictures


PICTURES = drawn()


class Corridor(StandIn):
    """Carries where the agent stands and what the lamp told; reads both from the picture alone."""

    class Config(BaseConfig):
        lit: bool = True  # the lamp burns on
        endless: bool = False  # nothing ends: at the ends it stands still, and is paid at each step

    def __init__(self, config: Config, setup: Setup | None = None) -> None:
        self.config, self.space, self.version = config, LATENT, 0

    def initial(self, batch: int) -> Carry:
        return {"told": np.zeros(batch, np.int64)}

    def observe(self, carry: Carry, percept: Arrays, action: Array | None, first: Array) -> Belief:
        picture = percept["picture"]
        place, lamp = picture[:, 0, ::PIXELS, 0].argmax(1), picture[:, -1, 0, 2] // 100
        told = np.where(first | (lamp != DARK), lamp, carry["told"]).astype(np.int64)
        return Belief({"told": told}, {"place": place, "lamp": lamp.astype(np.int64)})

    def imagine(self, carry: Carry, state: Arrays, action: Array) -> Imagined:
        place = state["place"] + np.where(action == RIGHT, 1, -1)
        out = (place < 0) | (place == CELLS)
        right = (place < 0) & (carry["told"] == TO_LEFT) | (place == CELLS) & (carry["told"] == TO_RIGHT)
        lamp = carry["told"] if self.config.lit else np.zeros_like(place)
        after = {"place": np.clip(place, 0, CELLS - 1), "lamp": lamp}
        return Imagined(carry, {**state, **after}, right.astype(np.float32), out & (not self.config.endless))

    def decode(self, latent: Arrays) -> Arrays:
        return {"picture": PICTURES[latent["place"], latent["lamp"]]}


def setup(**options: Any) -> Setup:
    world: Any = Corridor(Corridor.Config(**options))
    space = spaces.Dict({"picture": PICTURE, **LATENT.spaces})
    return Setup(space, spaces.Discrete(2), batch=8, world_model=world)


def beginnings(world: Any, rng: np.random.Generator, rows: int) -> dict[str, Array]:
    """Situations in which episodes begin, each array (N, ...)."""
    latent = {"place": rng.integers(CELLS, size=rows), "lamp": rng.integers(TO_LEFT, TO_RIGHT + 1, rows)}
    return {**world.decode(latent), **latent}


def played(world: Any, rng: np.random.Generator, rows: int = 16, steps: int = 4) -> Batch:
    """Random play of ``steps`` steps from episodes' beginnings on; where one ends, the next begins."""
    state, first, told = beginnings(world, rng, rows), np.ones(rows, bool), np.zeros(rows, np.int64)
    made: list[Any] = []
    for _ in range(steps):
        action = rng.integers(2, size=rows)
        told = np.where(first, state["lamp"], told)
        outcome = world.imagine({"told": told}, state, action)
        made.append((state, first, action, outcome))
        fresh, going = beginnings(world, rng, rows), {**outcome.state, **world.decode(outcome.state)}
        first = outcome.ended
        state = {key: np.where(first.reshape(-1, *[1] * (a.ndim - 1)), fresh[key], a) for key, a in going.items()}
    states, firsts, actions, outcomes = zip(*made, strict=True)
    ended = np.stack([outcome.ended for outcome in outcomes])
    last = {key: array[:0] for key, array in state.items()}
    return Batch(
        {key: np.stack([each[key] for each in states]) for key in state}, np.stack(firsts), np.stack(actions),
        np.stack([outcome.reward for outcome in outcomes]), ended, np.zeros_like(ended), {}, {},
        state, np.zeros((0, 2), np.int64), last,
    )  # fmt: skip
