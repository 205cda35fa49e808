"""Drivers: each calls one kind of component as the loop would, on made-up experience, and looks at all it returns.

A driver's ``begin`` and ``step`` return the component's outputs by name, already checked: B rows, in the declared
space, of the right dtype, and nothing that was passed in changed. Shape key: B rows.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces

from agentctl.core.contracts import samples
from agentctl.core.contracts.finding import Breach
from agentctl.core.contracts.outputs import (
    Outputs,
    carried,
    column,
    learnt,
    rows_of,
    step_outputs,
    untouched,
    with_rows,
)
from agentctl.core.contracts.samples import Script, copies, misfit
from agentctl.core.types import Array, Arrays, Carry, Decision, Step, Transition

LEARN_EVERY = 16
"""Steps between two calls of ``learn``."""

READY_LIMIT = 5_000
"""Steps after which a replay must have been ready once."""


@dataclass
class Driver:
    """What all drivers have: the part, its script, and how long each call of ``verb`` took."""

    part: Any
    script: Script
    seconds: list[float] = field(default_factory=list)
    verb: ClassVar[str] = ""

    def begin(self) -> Outputs:
        return {}

    def step(self, t: int) -> Outputs:
        raise NotImplementedError

    def twin(self, part: Any) -> Driver:
        """The same driver at the same point, driving another part."""
        twin = copy.copy(self)
        vars(twin).update(
            {name: list(value) for name, value in vars(self).items() if isinstance(value, list)}, part=part
        )
        return twin

    @contextmanager
    def timed(self) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds.append(time.perf_counter() - began)


class GameDriver(Driver):
    """Plays legal actions drawn at random."""

    verb = "step"
    observation: Arrays

    def begin(self) -> Outputs:
        self.observation = self.part.reset(self.script.seed)
        return rows_of(self.observation, self.part.observation_space, self.script.rows, "reset()")

    def step(self, t: int) -> Outputs:
        return step_outputs(self.play(t), self.part.observation_space, self.script.rows)

    def play(self, t: int) -> Step:
        """One step, unchecked."""
        action = samples.sample_action(
            self.part.action_space, self.observation, self.script.rows, self.script.rng(t, 1)
        )
        with untouched("step", {"action": action}), self.timed():
            step: Step = self.part.step(action)
        self.observation = step.observation
        return step


class PerceptionDriver(Driver):
    verb = "perceive"

    def step(self, t: int) -> Outputs:
        observation = self.script.state(t)
        with untouched("perceive", observation), self.timed():
            percept = self.part.perceive(observation)
        return rows_of(percept, self.part.space, self.script.rows, "perceive()")


class WorldModelDriver(Driver):
    verb = "observe"
    carry: Carry
    seen: list[Transition]

    def begin(self) -> Outputs:
        self.carry, self.seen = self.part.initial(self.script.rows), []
        return carried(self.carry, self.script.rows)

    def step(self, t: int) -> Outputs:
        percept, action, first = self.script.state(t), self.script.action(t), self.script.first(t)
        led = self.script.action(t - 1) if t else None
        with untouched("observe", percept, self.carry, {"first": first}), self.timed():
            belief = self.part.observe(self.carry, percept, led, first)
        latent = rows_of(belief.latent, self.part.space, self.script.rows, "observe().latent")
        state = percept | dict(belief.latent)
        outputs = carried(belief.carry, self.script.rows) | latent | self.imagine(belief.carry, state, action)
        self.seen.append(self.script.transition(t, Decision(action), {}))
        self.carry = belief.carry
        return outputs | self.learn()

    def imagine(self, carry: Carry, state: Arrays, action: Array) -> Outputs:
        """One step ahead; the imagined state holds the state's names."""
        with untouched("imagine", carry, state, {"action": action}):
            imagined = self.part.imagine(carry, state, action)
        rows = self.script.rows
        outputs = {"reward": column(imagined.reward, np.float32, rows, "imagine().reward")}
        outputs["ended"] = column(imagined.ended, np.bool_, rows, "imagine().ended")
        known = {**self.script.setup.space.spaces, **self.part.space.spaces}
        for key, value in imagined.state.items():
            if key in known and (problem := misfit(value, known[key], rows)):
                raise Breach(f"imagine().state[{key!r}] {problem}", "imagine states that lie in the space of real ones")
            outputs[f"imagined {key}"] = np.asarray(value)
        return outputs

    def learn(self) -> Outputs:
        if len(self.seen) < LEARN_EVERY:
            return {}
        transitions, self.seen = self.seen, []
        return learnt(self.part, with_latents(transitions, self.part.space))


class MemoryDriver(Driver):
    verb = "recall"

    def step(self, t: int) -> Outputs:
        state, moment = self.script.state(t), self.script.time(t)
        with untouched("recall", state, {"time": moment}), self.timed():
            context = self.part.recall(state, moment)
        outputs = rows_of(context, self.part.space, self.script.rows, "recall()")
        with untouched("write", state, {"time": moment}):
            self.part.write(state, moment)
        return outputs


class RewardDriver(Driver):
    verb = "score"

    def step(self, t: int) -> Outputs:
        transition = self.script.transition(t, Decision(self.script.action(t)), {})
        given = [transition.state, transition.next_state, {"reward": transition.reward, "total": transition.total}]
        with untouched("score", *given), self.timed():
            terms = self.part.score(transition)
        if not terms:
            raise Breach("score() returned no term", "return at least one named term, each float32 (B,)")
        return {name: column(term, np.float32, self.script.rows, f"score()[{name!r}]") for name, term in terms.items()}


class PolicyDriver(Driver):
    """Explores and acts on each state, and learns from what exploring led to."""

    verb = "explore"
    carry: Carry
    acting: Carry
    seen: list[Transition]

    def begin(self) -> Outputs:
        self.carry, self.seen = self.part.initial(self.script.rows), []
        self.acting = self.carry
        return carried(self.carry, self.script.rows)

    def step(self, t: int) -> Outputs:
        state, first = self.script.state(t), self.script.first(t)
        with untouched("explore", self.carry, state, {"first": first}), self.timed():
            explored = self.part.explore(self.carry, state, first)
        with untouched("act", self.acting, state, {"first": first}):
            acted = self.part.act(self.acting, state, first)
        outputs = self.decided("explore()", explored) | self.decided("act()", acted)
        self.seen.append(self.script.transition(t, explored, self.carry))
        self.carry, self.acting = explored.carry, acted.carry
        return outputs | self.learn()

    def decided(self, verb: str, decision: Decision) -> Outputs:
        rows, remedy = self.script.rows, "return actions that lie in setup.action_space, in its dtype"
        if problem := misfit(decision.action, self.script.setup.action_space, rows):
            raise Breach(f"{verb}.action {problem}", remedy)
        extras = {
            f"{verb} extra {key}": with_rows(value, rows, f"{verb} extra {key}")
            for key, value in decision.extras.items()
        }
        return {f"{verb}.action": decision.action, **carried(decision.carry, rows), **extras}

    def learn(self) -> Outputs:
        if len(self.seen) < LEARN_EVERY:
            return {}
        transitions, self.seen = self.seen, []
        return learnt(self.part, samples.gather(transitions))


class ReplayDriver(Driver):
    verb = "add"

    def step(self, t: int) -> Outputs:
        self.add(t)
        if not self.part.ready():
            return {}
        batch = self.part.sample()
        outputs = {"reward": batch.reward, "first": batch.first, "action": batch.action, "ended": batch.ended}
        return copies({**outputs, **{f"state {key}": value for key, value in batch.state.items()}})

    def add(self, t: int) -> Transition:
        """One transition in, with a carry and extras such as a policy's."""
        rows = self.script.rows
        decision = Decision(self.script.action(t), extras={"value": self.script.reward(t) * 2})
        transition = self.script.transition(t, decision, {"hidden": np.full((rows, 2), t, np.float32)})
        with untouched("add", transition.state, transition.next_state, decision.extras), self.timed():
            self.part.add(transition)
        return transition


def steps_until_ready(replay: Any, script: Script) -> int:
    """How many steps a replay wants before it is learnt from. Raises Breach after READY_LIMIT steps."""
    driver = ReplayDriver(replay, script)
    for t in range(READY_LIMIT):
        driver.add(t)
        if replay.ready():
            return t + 1
    remedy = 'give Config an example that is ready sooner: ConfigDict(json_schema_extra={"examples": [{...}]})'
    raise Breach(f"not ready after {READY_LIMIT} steps of {script.rows} rows", remedy)


DRIVERS: dict[str, type[Driver]] = {
    "game": GameDriver,
    "perception": PerceptionDriver,
    "world_model": WorldModelDriver,
    "memory": MemoryDriver,
    "reward": RewardDriver,
    "policy": PolicyDriver,
    "replay": ReplayDriver,
}


def with_latents(transitions: list[Transition], space: spaces.Dict) -> Any:
    """The batch that a world model learns from: states hold the latents too, as the pipeline gives them."""
    batch = samples.gather(transitions)
    rng = np.random.default_rng(len(transitions))
    for key, part in space.spaces.items():
        steps, rows = batch.reward.shape
        batch.state = {**batch.state, key: np.stack([samples.sample(part, rows, rng) for _ in range(steps)])}
        batch.next_state = {**batch.next_state, key: samples.sample(part, rows, rng)}
        batch.final_state = {**batch.final_state, key: samples.sample(part, len(batch.final_index), rng)}
    return batch
