"""A plugin of parts whose every value is known beforehand, so that a test can say what should follow what.

The game shows who and when it is (seed, row, episode, time); the world model counts and remembers the action that led
here; the memory recalls the time it wrote last. The `flaky` parts raise on chosen calls. A YAML that names them has
``plugins: [.../clockwork.py]``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from agentctl.core import BaseConfig, Component, Setup, hookimpl
from agentctl.core.protocols import Clock
from agentctl.core.types import (
    Array,
    Arrays,
    Batch,
    Belief,
    Carry,
    Decision,
    Final,
    Imagined,
    Loss,
    Metrics,
    Snapshot,
    Step,
    Transition,
)

FILE = Path(__file__).resolve()
NUMBER = spaces.Box(-1, 2**40, (), np.int64)


@hookimpl
def agentctl_games() -> list[Component]:
    return [Component("clockwork/game", f"{__name__}:Clockwork", "shows who and when it is")]


@hookimpl
def agentctl_world_models() -> list[Component]:
    return [
        Component("clockwork/model", f"{__name__}:Counting", "counts steps, draws noise"),
        Component("flaky/model", f"{__name__}:FlakyModel", "fails now and then"),
    ]


@hookimpl
def agentctl_memories() -> list[Component]:
    return [
        Component("clockwork/memory", f"{__name__}:Before", "recalls the time it wrote last"),
        Component("flaky/memory", f"{__name__}:FlakyMemory", "fails now and then"),
    ]


@hookimpl
def agentctl_perceptions() -> list[Component]:
    return [
        Component("clockwork/eye", f"{__name__}:Eye", "sees all"),
        Component("flaky/eye", f"{__name__}:FlakyEye", "fails now and then"),
    ]


@hookimpl
def agentctl_rewards() -> list[Component]:
    return [
        Component("clockwork/reward", f"{__name__}:Bonus", "one for every step"),
        Component("flaky/reward", f"{__name__}:FlakyBonus", "fails now and then"),
    ]


@hookimpl
def agentctl_policies() -> list[Component]:
    return [
        Component("clockwork/policy", f"{__name__}:Learner", "learns, by one generator for everything"),
        Component("flaky/policy", f"{__name__}:FlakyLearner", "fails now and then"),
    ]


def yaml(**options: Any) -> dict[str, Any]:
    """A run of all clockwork parts; ``options`` are the game's, and ``run`` and ``evaluation`` settings."""
    run = {"steps": 96, "cycle_steps": 32, "seed": 3, **options.pop("run", {})}
    evaluation = {"episodes": 3, "max_steps": 12, **options.pop("evaluation", {})}
    return {
        "game": {"name": "clockwork/game", "batch": 4, **options},
        "world_model": "clockwork/model",
        "memory": "clockwork/memory",
        "policy": "clockwork/policy",
        "replay": {"name": "rollout", "steps": 5},
        "run": run,
        "evaluation": evaluation,
        "plugins": [str(FILE)],
    }


class Clockwork:
    class Config(BaseConfig):
        saves: bool = True
        hazard: float = 0.1  # chance of an end per step
        lives: float = 0.0  # chance of a lost life per step: an end after which the game goes on
        limit: int = 6
        slow: float = 0.0  # seconds a step takes

    clock = Clock()

    def __init__(self, config: Config, setup: Setup) -> None:
        self.config, self.batch = config, setup.batch
        self.observation_space = spaces.Dict(dict.fromkeys(("seed", "row", "episode", "time"), NUMBER))
        self.action_space = spaces.Discrete(3)
        self.closed = False
        self.drawn = 0

    def reset(self, seed: int) -> Arrays:
        self._seed = seed
        self._rng = np.random.default_rng(seed)
        self._episode, self._time = np.zeros((2, self.batch), np.int64)
        return self._shown()

    def step(self, action: Array) -> Step:
        if self.config.slow:
            import time

            time.sleep(self.config.slow)
        reward = ((action + self._time) % 3).astype(np.float32)
        self._time = self._time + 1
        ended = self._rng.random(self.batch) < self.config.hazard
        cut = ~ended & (self._time >= self.config.limit)
        over = ended | cut
        lost = ~over & (self._rng.random(self.batch) < self.config.lives)
        final = None
        if over.any():
            rows = np.flatnonzero(over)
            final = Final(rows, {name: value[rows] for name, value in self._shown().items()})
            self._episode = self._episode + over
            self._time = np.where(over, 0, self._time)
        return Step(self._shown(), reward, ended | lost, cut, final, over)

    def frame(self) -> Array:
        self.drawn += 1
        return np.zeros((16, 16, 3), np.uint8)

    def save(self) -> Snapshot | None:
        if not self.config.saves:
            return None
        arrays = {"episode": self._episode, "time": self._time}
        return Snapshot(arrays, {"seed": self._seed, "rng": self._rng.bit_generator.state})

    def load(self, snapshot: Snapshot) -> None:
        self._episode, self._time = snapshot.arrays["episode"], snapshot.arrays["time"]
        self._seed = snapshot.data["seed"]
        self._rng.bit_generator.state = snapshot.data["rng"]

    def close(self) -> None:
        self.closed = True

    def _shown(self) -> dict[str, Array]:
        rows = np.arange(self.batch)
        return {"seed": np.full(self.batch, self._seed), "row": rows, "episode": self._episode, "time": self._time}


class Counting:
    """Latent: ``count`` steps since the first, the action that ``led`` here (-1: none), and noise."""

    class Config(BaseConfig):
        pass

    def __init__(self, config: Config, setup: Setup) -> None:
        noise = spaces.Box(0, 1, (), np.float64)
        self.space = spaces.Dict({"count": NUMBER, "led": NUMBER, "noise": noise})
        self._rng = np.random.default_rng(setup.seed + 1)
        self._learnt = 0.0

    def initial(self, batch: int) -> Carry:
        return {"count": np.full(batch, -1)}

    def observe(self, carry: Carry, percept: Arrays, action: Array | None, first: Array) -> Belief:
        count = np.where(first, 0, carry["count"] + 1)
        led = np.full(len(first), -1) if action is None else np.where(first, -1, action)
        return Belief({"count": count}, {"count": count, "led": led, "noise": self._rng.random(len(first))})

    def imagine(self, carry: Carry, state: Arrays, action: Array) -> Imagined:
        return Imagined(carry, state, np.zeros(len(action), np.float32), np.zeros(len(action), bool))

    def decode(self, latent: Arrays) -> Arrays:
        return latent

    def loss(self, batch: Batch) -> Loss:
        return Loss(float(batch.successors()["noise"].mean()))

    def learn(self, batch: Batch) -> Metrics:
        self._learnt += self.loss(batch).total
        return {"learnt": self._learnt}

    def save(self) -> Snapshot:
        return Snapshot(data={"rng": self._rng.bit_generator.state, "learnt": self._learnt})

    def load(self, snapshot: Snapshot) -> None:
        self._rng.bit_generator.state, self._learnt = snapshot.data["rng"], snapshot.data["learnt"]


class Before:
    """``before``: the time of the last write in this episode, -1 at its start. Counts all it ever wrote."""

    class Config(BaseConfig):
        pass

    def __init__(self, config: Config, setup: Setup) -> None:
        self.space = spaces.Dict({"before": NUMBER})
        self._held = np.full(setup.batch, -1)
        self._writes = 0

    def recall(self, state: Arrays, time: Array) -> Arrays:
        return {"before": np.where(time == 0, -1, self._held)}

    def write(self, state: Arrays, time: Array) -> None:
        self._held = state["time"].copy()
        self._writes += 1

    def save(self) -> Snapshot:
        return Snapshot({"held": self._held}, {"writes": self._writes})

    def load(self, snapshot: Snapshot) -> None:
        self._held, self._writes = snapshot.arrays["held"], snapshot.data["writes"]


class Learner:
    """Carries its ``age``; its weight depends on everything it ever learnt, its actions on the weight and on chance."""

    class Config(BaseConfig):
        pass

    def __init__(self, config: Config, setup: Setup) -> None:
        self._rng = np.random.default_rng(setup.seed)
        self.weight = 0.5

    def initial(self, batch: int) -> Carry:
        return {"age": np.zeros(batch, np.int64)}

    def act(self, carry: Carry, state: Arrays, first: Array) -> Decision:
        age = np.where(first, 0, carry["age"]) + 1
        chance = self._rng.random(len(first))
        noise = state.get("noise", 0.0)
        action = (np.floor((chance + self.weight + noise) * 7) + age) % 3
        return Decision(action.astype(np.int64), {"age": age}, {"chance": chance})

    explore = act

    def learn(self, batch: Batch) -> Metrics:
        self.weight = (self.weight * 0.7 + float(batch.reward.mean()) + float(batch.extras["chance"].sum())) % 1
        return {"weight": self.weight}

    def save(self) -> Snapshot:
        return Snapshot({"weight": np.array(self.weight)}, {"rng": self._rng.bit_generator.state})

    def load(self, snapshot: Snapshot) -> None:
        self.weight = float(snapshot.arrays["weight"])
        self._rng.bit_generator.state = snapshot.data["rng"]


class Eye:
    """The observation as it is."""

    class Config(BaseConfig):
        pass

    def __init__(self, config: Config, setup: Setup) -> None:
        self.space = setup.space

    def perceive(self, observation: Arrays) -> Arrays:
        return dict(observation)


class Bonus:
    class Config(BaseConfig):
        pass

    def __init__(self, config: Config, setup: Setup) -> None:
        pass

    def score(self, transition: Transition) -> Arrays:
        return {"bonus": np.ones_like(transition.reward)}

    def save(self) -> Snapshot:
        return Snapshot()

    def load(self, snapshot: Snapshot) -> None:
        pass


class Flaky(BaseConfig):
    fails: tuple[int, ...] = ()  # which calls, counted from 0
    fails_from: int = 2**31  # and all from this one on


def fail_when_due(part: Any) -> None:
    """Count a call of ``part``; raise when it is one that fails."""
    call, part.calls = getattr(part, "calls", 0), getattr(part, "calls", 0) + 1
    if call in part.config.fails or call >= part.config.fails_from:
        raise RuntimeError(f"flaky at call {call}")


class FlakyEye(Eye):
    Config = Flaky  # type: ignore[assignment]

    def __init__(self, config: Flaky, setup: Setup) -> None:
        super().__init__(Eye.Config(), setup)
        self.config = config

    def perceive(self, observation: Arrays) -> Arrays:
        fail_when_due(self)
        return super().perceive(observation)


class FlakyBonus(Bonus):
    Config = Flaky  # type: ignore[assignment]

    def __init__(self, config: Flaky, setup: Setup) -> None:
        self.config = config

    def score(self, transition: Transition) -> Arrays:
        fail_when_due(self)
        return super().score(transition)


class FlakyMemory(Before):
    Config = Flaky  # type: ignore[assignment]

    def __init__(self, config: Flaky, setup: Setup) -> None:
        super().__init__(Before.Config(), setup)
        self.config = config

    def recall(self, state: Arrays, time: Array) -> Arrays:
        fail_when_due(self)
        return super().recall(state, time)


class FlakyModel(Counting):
    Config = Flaky  # type: ignore[assignment]

    def __init__(self, config: Flaky, setup: Setup) -> None:
        super().__init__(Counting.Config(), setup)
        self.config = config

    def observe(self, carry: Carry, percept: Arrays, action: Array | None, first: Array) -> Belief:
        fail_when_due(self)
        return super().observe(carry, percept, action, first)


class FlakyLearner(Learner):
    Config = Flaky  # type: ignore[assignment]

    def __init__(self, config: Flaky, setup: Setup) -> None:
        super().__init__(Learner.Config(), setup)
        self.config, self.calls = config, 0

    def explore(self, carry: Carry, state: Arrays, first: Array) -> Decision:
        fail_when_due(self)
        return super().act(carry, state, first)

    def save(self) -> Snapshot:
        snapshot = super().save()
        return Snapshot(snapshot.arrays, {**snapshot.data, "calls": self.calls})

    def load(self, snapshot: Snapshot) -> None:
        super().load(snapshot)
        self.calls = snapshot.data["calls"]
