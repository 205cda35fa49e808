"""Worlds of eight tokens in which it is known what can be foreseen, and what cannot."""

import json
from typing import Any

import numpy as np
from gymnasium import spaces

from agentctl.core.protocols import Setup
from agentctl.core.types import Array, Batch, Snapshot

PLACES, ACTIONS = 8, 3


def setup(codes: int = 2, places: int = PLACES) -> Setup:
    tokens = spaces.MultiDiscrete(np.full((1, places), codes), dtype=np.uint16)  # type: ignore[arg-type]
    return Setup(space=spaces.Dict({"tokens": tokens}), action_space=spaces.Discrete(ACTIONS, start=1))


def dots(place: Array) -> Array:
    """Frames with one dot each, uint16 (T, N, 1, P)."""
    return np.eye(PLACES, dtype=np.uint16)[place][:, :, None]


def batch_of(frames: Array, action: Array, **rest: Array) -> Batch:
    """T steps of N samples from frames (T + 1, N, 1, P)."""
    steps, rows = action.shape
    none = np.zeros((steps, rows), bool)
    given = {"first": none, "reward": none.astype(np.float32), "ended": none, **rest}
    index, final = np.zeros((0, 2), np.int64), {"tokens": frames[-1][:0]}
    return Batch(
        {"tokens": frames[:-1]}, given["first"], action, given["reward"], given["ended"], none, {}, {},
        {"tokens": frames[-1]}, index, final,
    )  # fmt: skip


def gliding(rng: np.random.Generator, rows: int = 64, steps: int = 2) -> Batch:
    """Dots that go to and fro between the walls: but for there, one frame does not tell which way."""
    far = PLACES - 1
    way = rng.integers(2 * far, size=rows) + np.arange(steps + 1)[:, None]
    return batch_of(dots(far - np.abs(far - way % (2 * far))), rng.integers(1, ACTIONS + 1, (steps, rows)))


def driven(rng: np.random.Generator, rows: int = 64, steps: int = 2, late: int = 0) -> Batch:
    """Dots that go where the action says; ``late`` steps after it. A reward of the action's sign; 3 ends."""
    action = rng.integers(1, ACTIONS + 1, (steps + late, rows))
    places = [rng.integers(PLACES, size=rows)]
    for moved in action[:steps]:
        places.append(driven_to(places[-1], moved))
    told = action[late:]
    return batch_of(dots(np.stack(places)), told, reward=(told - 2).astype(np.float32), ended=told == 3)


def driven_to(place: Array, action: Array) -> Array:
    """Where a dot is after an action, at a wall where it was."""
    return np.clip(place + action - 2, 0, PLACES - 1)


def trained(world: Any, experience: Any, updates: int, **options: Any) -> dict[str, float]:
    """The figures on new samples after so many updates."""
    rng = np.random.default_rng(0)
    for _ in range(updates):
        world.learn(experience(rng, **options))
    metrics: dict[str, float] = world.loss(experience(rng, rows=256, **options)).metrics
    return metrics


def revived(snapshot: Snapshot) -> Snapshot:
    """The snapshot as a checkpoint gives it back: its data through JSON."""
    return Snapshot({k: v.copy() for k, v in snapshot.arrays.items()}, json.loads(json.dumps(snapshot.data)))
