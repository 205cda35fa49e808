"""From observation to state, one batch of rows at a time: perceptions, world model, memory, in that order.

Plain method calls; components were created by hooks long before. What lives across steps is in :class:`Flow`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gymnasium import spaces

from agentctl.core.errors import ConfigError
from agentctl.core.protocols import Memory, Perception, WorldModel
from agentctl.core.types import Array, Arrays, Carry, Decision, Final, Step, Transition


@dataclass(slots=True)
class Flow:
    """What a batch of rows carries from step to step."""

    time: Array  # int64 (B,): steps since the row's episode began
    world: Carry = field(default_factory=dict)
    policy: Carry = field(default_factory=dict)
    first: Array = field(init=False)  # bool (B,): the row is at the start of an episode

    def __post_init__(self) -> None:
        self.first = np.equal(self.time, 0)


@dataclass(slots=True)
class Pipeline:
    """The stages between a game and a policy. ``state`` is the union of percept, latent and context, by name."""

    perceptions: list[Perception]
    world_model: WorldModel | None
    memory: Memory | None

    def begin(self, observation: Arrays, batch: int, policy_carry: Carry) -> tuple[Flow, Arrays]:
        """A fresh flow at the start of B episodes, and the first state."""
        world = self.world_model.initial(batch) if self.world_model else {}
        flow = Flow(np.zeros(batch, np.int64), world, policy_carry)
        return flow, self._state(flow, observation, None)

    def advance(self, flow: Flow, state: Arrays, decision: Decision, step: Step) -> Transition:
        """What happened in one step, from ``state`` to the state after it, not yet scored. Advances ``flow``."""
        first, carry = flow.first, flow.policy
        final = None if step.final is None else self.peek(flow, step.observation, step.final, decision.action)
        flow.policy = decision.carry
        next_state = self.see(flow, step.observation, decision.action, step.ended | step.cut)
        over, total = step.finished, step.reward
        return Transition(
            state, first, carry, decision, step.reward, step.ended, step.cut, over, next_state, final, total=total
        )

    def see(self, flow: Flow, observation: Arrays, action: Array, stopped: Array) -> Arrays:
        """The state after ``action``; ``stopped`` rows (bool (B,)) have begun a new episode. Advances ``flow``."""
        flow.time, flow.first = np.where(stopped, 0, flow.time + 1), stopped
        return self._state(flow, observation, action)

    def peek(self, flow: Flow, observation: Arrays, final: Final, action: Array) -> Final:
        """The states in which rows stopped, as ``see`` would have shown them; changes nothing but what parts draw."""
        if self.world_model is None and self.memory is None:
            return Final(final.rows, self._perceive(final.arrays))
        whole = {key: value.copy() for key, value in observation.items()}
        for key, value in final.arrays.items():
            whole[key][final.rows] = value
        state = self._perceive(whole)
        time = flow.time + 1
        if self.world_model is not None:
            state |= self.world_model.observe(flow.world, state, action, time == 0).latent
        if self.memory is not None:
            state |= self.memory.recall(state, time)
        return Final(final.rows, {key: value[final.rows] for key, value in state.items()})

    def _state(self, flow: Flow, observation: Arrays, action: Array | None) -> dict[str, Array]:
        state = self._perceive(observation)
        if self.world_model is not None:
            belief = self.world_model.observe(flow.world, state, action, flow.first)
            flow.world = belief.carry
            state |= belief.latent
        if self.memory is not None:
            context = self.memory.recall(state, flow.time)
            self.memory.write(state, flow.time)
            state |= context
        return state

    def _perceive(self, observation: Arrays) -> dict[str, Array]:
        if not self.perceptions:
            return dict(observation)
        seen, percept = dict(observation), dict[str, Array]()
        for perception in self.perceptions:
            added = perception.perceive(seen)
            percept |= added
            seen |= added
        return percept


def cut_everywhere(seen: Transition) -> None:
    """Stop every row where it stands, because what follows is another game: whatever did not end is cut.

    Each row gets a final state; where the game itself gave one it stays, elsewhere it is the next state.
    """
    rows = np.arange(len(seen.ended))
    arrays = {key: value.copy() for key, value in seen.next_state.items()}
    if seen.final is not None:
        for key, value in seen.final.arrays.items():
            arrays[key][seen.final.rows] = value
    seen.cut = ~seen.ended
    seen.final = Final(rows, arrays)


def joined(space: spaces.Dict, added: spaces.Dict, stage: str, origin: str) -> spaces.Dict:
    """``space`` with the names that ``stage`` adds. Raises ConfigError when a name is taken."""
    both = set(space.spaces) & set(added.spaces)
    if both:
        raise ConfigError(
            f"{origin}: {stage} adds {sorted(both)}, which an earlier stage already gives; switch one off"
        )
    return spaces.Dict({**space.spaces, **added.spaces})


def describe(space: spaces.Space[Any], batch: int | None = None) -> str:
    """A space in one line, with the leading B: ``pixels Box(8, 4, 84, 84) uint8``."""
    if isinstance(space, spaces.Dict):
        return ", ".join(f"{key} {describe(value, batch)}" for key, value in space.spaces.items()) or "nothing"
    lead = () if batch is None else (batch,)
    if isinstance(space, spaces.Box):
        return f"Box{(*lead, *space.shape)} {space.dtype}".replace(",)", ")")
    name = type(space).__name__
    if isinstance(space, spaces.MultiDiscrete) and np.ptp(space.nvec) == 0:  # a grid of tokens, say
        return f"{name}{(*lead, *space.shape)} of {space.nvec.flat[0]}".replace(",)", ")")
    detail = getattr(space, "n", None) or ", ".join(str(n) for n in getattr(space, "nvec", ()))
    return f"{name}({detail})" if batch is None else f"{batch} x {name}({detail})"
