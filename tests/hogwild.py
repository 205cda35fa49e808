"""A plugin of a policy that workers share, without torch, whose every number is known; and what processes do in tests.

A YAML that names it has ``plugins: [.../clockwork.py, .../hogwild.py]``.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from agentctl.core import BaseConfig, Component, Setup, hookimpl
from agentctl.core.shared import Shared
from agentctl.core.types import Array, Arrays, Batch, Carry, Decision, Metrics, Snapshot, Transition

FILE = Path(__file__).resolve()
SLOTS = 64
UPDATES, STEPS, REWARD = range(3)


@hookimpl
def agentctl_policies() -> list[Component]:
    return [Component("hogwild/ledger", f"{__name__}:Ledger", "counts what every worker learnt, in shared memory")]


@hookimpl
def agentctl_rewards() -> list[Component]:
    return [Component("hogwild/count", f"{__name__}:Count", "counts the steps it has scored")]


class Ledger:
    """Adds up what batches hold, slowly enough for two that add at once to lose some."""

    class Config(BaseConfig):
        workers: int = 2
        misbehaves: str = ""  # what a worker does when it learns: see MISCHIEF
        sign: str = ""  # the file in which the first one that misbehaves leaves its process id; then no other does
        every_time: bool = False

    def __init__(self, config: Config, setup: Setup) -> None:
        self.config, self.workers, self.shared_nbytes = config, config.workers, 8 * (3 + SLOTS)
        self.rows, self.folder, self.joined = setup.batch, setup.folder, False
        self.rng = np.random.default_rng(setup.seed)
        self.locked: Callable[[], Any] = nullcontext
        self.numbers, self.own = np.zeros(3 + SLOTS), np.zeros(1)

    def share(self, shared: Shared) -> None:
        numbers = np.frombuffer(shared.buffer)
        numbers[:] = self.numbers
        self.numbers, self.locked = numbers, shared.locked

    def join(self, shared: Shared, seed: int) -> None:
        self.numbers, self.locked, self.joined = np.frombuffer(shared.buffer), shared.locked, True
        self.rng = np.random.default_rng(seed)
        with self.locked():
            slot = 3 + int(np.flatnonzero(self.numbers[3:] == 0)[0])
            self.numbers[slot] = 1e-9
        self.own = self.numbers[slot : slot + 1]  # what this worker alone has added

    def initial(self, batch: int) -> Carry:
        return {}

    def act(self, carry: Carry, state: Arrays, first: Array) -> Decision:
        return Decision(np.zeros(len(first), np.int64))

    def explore(self, carry: Carry, state: Arrays, first: Array) -> Decision:
        return Decision(self.rng.integers(3, size=len(first)))

    def learn(self, batch: Batch) -> Metrics:
        assert self.joined and self.folder is None, "only workers learn, and they write no files"
        with self.locked():
            self.misbehave()
            numbers = self.numbers[:3].copy()
            time.sleep(1e-4)
            self.numbers[:3] = numbers + [1, batch.reward.size, batch.reward.sum()]
        self.own += 1
        return {"seed": float(batch.state["seed"][0, 0])}

    def misbehave(self) -> None:
        sign = Path(self.config.sign)
        if self.config.misbehaves and (self.config.every_time or not sign.exists()):
            sign.with_suffix(".new").write_text(str(os.getpid()))
            sign.with_suffix(".new").rename(sign)
            MISCHIEF[self.config.misbehaves]()

    def save(self) -> Snapshot:
        return Snapshot({"numbers": self.numbers.copy()})

    def load(self, snapshot: Snapshot) -> None:
        self.numbers[:] = snapshot.arrays["numbers"]


def fail() -> None:
    raise RuntimeError("the ledger is full")


def die_before_a_child() -> None:
    """Which goes on to hold all that was open."""
    if os.fork() == 0:
        time.sleep(3)
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)


MISCHIEF: dict[str, Callable[[], object]] = {
    "fails": fail,
    "dies": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "dies before a child": die_before_a_child,
    "leaves": lambda: os._exit(7),
    "hangs": lambda: time.sleep(600),
}
"""While it holds the lock."""


class Count:
    class Config(BaseConfig):
        pass

    def __init__(self, config: Config, setup: Setup) -> None:
        self.scored = np.zeros(setup.batch)

    def score(self, transition: Transition) -> Arrays:
        self.scored += 1
        return {"count": np.ones_like(transition.reward)}

    def save(self) -> Snapshot:
        return Snapshot({"scored": self.scored.copy()})

    def load(self, snapshot: Snapshot) -> None:
        self.scored = snapshot.arrays["scored"].copy()


def begin_together(shared: Shared) -> Array:
    """Wait until as many processes are here as the second number says. Returns the numbers, float64."""
    numbers = np.frombuffer(shared.buffer)
    with shared.locked():
        numbers[1] -= 1
    while numbers[1] > 0:
        time.sleep(0.001)
    return numbers


def add_often(shared: Shared, times: int, locking: bool) -> None:
    """Add 1 to the first number, reading it before and writing it after."""
    numbers = begin_together(shared)
    for _ in range(times):
        with shared.locked() if locking else nullcontext():
            read = numbers[0]
            time.sleep(0)
            numbers[0] = read + 1


def hold(shared: Shared) -> None:
    """Take the lock, say so, and keep it."""
    with shared.locked():
        np.frombuffer(shared.buffer)[1] = 1
        time.sleep(600)


def learn_often(starter: Shared, shared: Shared, config: dict[str, Any], times: int, locking: bool) -> None:
    """Apply the same gradient ``times`` times, by an A3C that has joined ``shared``."""
    from gymnasium import spaces

    from agentctl.agents import a3c

    space = spaces.Dict({"place": spaces.Box(-1, 1, (3,))})
    agent = a3c.A3C(a3c.A3C.Config(**config), Setup(space, spaces.Discrete(3)))
    agent.join(shared, 0)
    if not locking:
        agent._locked = nullcontext
    a3c.differentiate = lambda *_: ([weight.new_full(weight.shape, 0.01) for weight in agent._theta], {})
    batch = Batch(*[{}] * 2, *[np.zeros((5, 4))] * 4, *[{}] * 3, np.zeros((0, 2)), {})  # type: ignore[arg-type]
    begin_together(starter)
    for _ in range(times):
        agent.learn(batch)
