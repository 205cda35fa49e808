"""Measuring a run's world model on games that it never saw, beside what knows nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agentctl.core.assembly import Assembly, assemble
from agentctl.core.checkpoint import latest_checkpoint
from agentctl.core.evaluate import MASK, random_actions
from agentctl.core.folder import composition_of
from agentctl.core.foresight import stopped_states
from agentctl.core.pipeline import Flow
from agentctl.core.runner import restore
from agentctl.core.types import Array, Arrays, Batch, Decision, Transition
from agentctl.plugins.replay.uniform import Uniform

HELD_OUT = 777_000
"""The seed of games that nothing learns from."""


@dataclass(slots=True)
class World:
    """A trained run's parts, and rows of its game under random actions."""

    assembly: Assembly
    model: Any
    image: str
    flow: Flow
    state: Arrays
    rng: np.random.Generator

    @staticmethod
    def of(run: Path, rows: int, seed: int = HELD_OUT) -> World:
        assembly = opened(run, rows)
        model, space = assembly.pipeline.world_model, assembly.game.observation_space
        flow, state = assembly.pipeline.begin(assembly.game.reset(seed), rows, {})
        (image,) = (key for key in state if key in space.spaces and state[key].dtype == np.uint8)
        return World(assembly, model, image, flow, state, np.random.default_rng(seed))

    def step(self) -> Transition:
        """A random action in every row."""
        game = self.assembly.game
        action = random_actions(game.action_space, len(self.flow.time), self.rng, self.state.get(MASK))
        seen = self.assembly.pipeline.advance(self.flow, self.state, Decision(action), game.step(action))
        self.state = seen.next_state
        return seen


def opened(run: Path, rows: int) -> Assembly:
    """The run's parts with its weights; nothing learns."""
    assembly = assemble(composition_of(run).without("replay"), batch=rows)
    restore(assembly, latest_checkpoint(run))
    return assembly


def held_out(world: World, steps: int, samples: int, history: int, size: int = 64) -> Iterator[Batch]:
    """``samples`` samples of ``history`` steps, drawn from ``steps`` new ones over all rows, in batches."""
    options = {"capacity": steps, "warmup": 0, "every": 1, "batch_size": size, "length": history}
    replay = Uniform(Uniform.Config.model_validate(options), world.assembly.setup)
    for _ in range(steps // world.assembly.batch):
        replay.add(world.step())
    for _ in range(samples // size):
        yield replay.sample()


@dataclass(slots=True)
class Rollout:
    """What came, and what was imagined after the same start and actions. T steps of B rows."""

    start: Array  # uint8 (B, H, W, C)
    real: Array  # uint8 (T, B, H, W, C)
    imagined: Array
    going: Array  # bool (T, B): the real episode has not stopped before


def rollout(world: World, steps: int) -> Rollout:
    """Random actions from where the world stands."""
    carry, state, start = world.flow.world, world.state, world.state[world.image].copy()
    rows, real, imagined, stopped = len(start), [], [], []
    for _ in range(steps):
        seen = world.step()
        ahead = world.model.imagine(carry, state, seen.decision.action)
        carry, state = ahead.carry, ahead.state
        real.append(stopped_states(seen)[world.image])
        imagined.append(state[world.image])
        stopped.append(seen.ended | seen.cut)
    gone = np.logical_or.accumulate(np.stack([np.zeros(rows, bool), *stopped[:-1]]))
    return Rollout(start, np.stack(real), np.stack(imagined), ~gone)


def psnr_by_step(found: Rollout, shown: Array) -> list[tuple[float, float]]:
    """Steps ahead, from 1, and dB of ``shown`` (T, B, H, W, C) over the pixels that are not as they were at the start.

    Of the games that went on so long; where there are none, no more steps.
    """
    steps = [(step, rows) for step, rows in enumerate(found.going) if rows.any()]
    return [
        (float(step + 1), round(changed_psnr(shown[step][rows], found.real[step][rows], found.start[rows]), 2))
        for step, rows in steps
    ]


def changed_psnr(shown: Array, real: Array, start: Array) -> float:
    """In dB, over the pixels that are no longer as they were at the start: (N, H, W, C) each. nan where none is."""
    changed = (real != start).any(-1)
    error = np.square(shown.astype(float) - real)[changed].mean() if changed.any() else np.nan
    return float(10 * np.log10(255**2 / max(error, 1e-9)))
