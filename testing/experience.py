"""Experience to test with: made-up transitions, and batches of a real game."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from agentctl.core.contracts.samples import Script, gather, sample_action
from agentctl.core.contracts.subject import CELLS, MOVES
from agentctl.core.protocols import Game, Policy, Setup
from agentctl.core.types import Array, Arrays, Batch, Carry, Decision, Transition

MADE_UP = Setup(CELLS, MOVES)


def transitions(count: int, batch: int = 8, setup: Setup = MADE_UP, seed: int = 7) -> Iterator[Transition]:
    """``count`` made-up steps of ``batch`` rows in the setup's spaces: random states, no two rewards alike."""
    script = Script(setup, batch, seed)
    for t in range(count):
        yield script.transition(t, Decision(script.action(t)), {})


def episode_batch(game: Game, policy: Policy | None = None, *, steps: int = 32, seed: int = 0) -> Batch:
    """``steps`` steps of every row of ``game``, as ``policy`` explores it, or at random without one."""
    observation = game.reset(seed)
    rows = len(next(iter(observation.values())))
    first = np.ones(rows, bool)
    carry: Carry = {} if policy is None else policy.initial(rows)
    gathered = []
    for t in range(steps):
        decision = _decide(game, policy, carry, observation, first, np.random.default_rng((seed, t)))
        step = game.step(decision.action)
        gathered.append(
            Transition(
                observation,
                first,
                carry,
                decision,
                step.reward,
                step.ended,
                step.cut,
                step.finished,
                step.observation,
                step.final,
                {"game": step.reward},
                step.reward,
            )  # fmt: skip
        )
        observation, first, carry = step.observation, step.ended | step.cut, decision.carry
    return gather(gathered)


def _decide(
    game: Game, policy: Policy | None, carry: Carry, state: Arrays, first: Array, rng: np.random.Generator
) -> Decision:
    if policy is not None:
        return policy.explore(carry, state, first)
    return Decision(sample_action(game.action_space, state, len(first), rng))
