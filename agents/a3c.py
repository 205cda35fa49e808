"""Asynchronous advantage actor-critic (Mnih et al. 2016, https://arxiv.org/abs/1602.01783), by worker processes.

Each worker copies the shared parameters theta, plays a few steps of its own games, differentiates A2C's loss of them
at its copy, and applies that gradient to theta, which others have moved meanwhile. RMSProp's mean squares g are shared
too: what the paper found best. Alone it is A2C to the bit. Deviations:

- Workers are processes, and each plays several games at once; the paper has threads with one game each.
- Copying theta waits for nobody (Hogwild, Recht et al. 2011): a copy made during another's update has some of it. But
  updates are applied one at a time, so that none is lost to another's write. Whoever is killed during one leaves the
  part that was done, uncounted, and its right to write goes to the next.
- A step that a limit cut is bootstrapped with the value of the state it stopped in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import ClassVar

import torch
from pydantic import Field

from agentctl.agents.a2c import A2C, differentiate, rmsprop
from agentctl.agents.on_policy import Actor, annealed
from agentctl.core.nn.shards import one_core
from agentctl.core.protocols import Setup
from agentctl.core.shared import Shared
from agentctl.core.types import Array, Arrays, Batch, Carry, Decision, Metrics, Snapshot

RECENT = 100
"""Updates over which staleness is averaged."""


class A3C:
    class Config(A2C.Config):
        workers: int = Field(2, gt=0, le=256, description="processes that play and learn, each with game.batch rows")
        threads: int | None = Field(1, gt=0, description="CPU cores of each worker; null: all for images, else one")

    experience: ClassVar[str] = "own"

    def __init__(self, config: Config, setup: Setup) -> None:
        self._config, self.workers = config, config.workers
        self._actor = Actor(config, setup)
        self.initial, self.explore = self._actor.initial, self._actor.explore
        self.export_onnx = self._actor.export_onnx
        self._copy = list(self._actor.net.parameters())  # the paper's theta'
        self._staleness: deque[int] = deque(maxlen=RECENT)
        numbers = sum(weight.numel() for weight in self._copy)
        self.shared_nbytes = 16 + 8 * numbers
        self.nbytes = self.shared_nbytes + 8 * numbers * (1 + config.workers)  # copies and gradients
        self._locked: Callable[[], AbstractContextManager[None]] = nullcontext
        self._lay_out(memoryview(bytearray(self.shared_nbytes)))
        self._write({})

    @one_core()
    def act(self, carry: Carry, state: Arrays, first: Array) -> Decision:
        self._catch_up()
        return self._actor.act(carry, state, first)

    @one_core()
    def learn(self, batch: Batch) -> Metrics:
        gradients, metrics = differentiate(self._actor, batch, self._config)
        gradients = [gradient.cpu() for gradient in gradients]
        with self._locked():
            updates, steps = self._counts.tolist()
            rate = annealed(self._config.lr, steps, self._config.anneal_steps)
            rmsprop(self._theta, gradients, self._g, rate, self._config)
            self._counts += torch.tensor([1, batch.reward.size])
        self._staleness.append(updates - self._read)
        self._catch_up()
        stale = sum(self._staleness) / len(self._staleness)
        return {**metrics, "learning_rate": rate, "updates": updates + 1.0, "staleness": stale}

    def share(self, shared: Shared) -> None:
        shared.buffer[:] = self._memory
        self._lay_out(shared.buffer)
        self._locked = shared.locked

    def join(self, shared: Shared, seed: int) -> None:
        self._lay_out(shared.buffer)
        self._locked = shared.locked
        self._actor.generator.manual_seed(seed)
        self._read = -1
        self._catch_up()

    def save(self) -> Snapshot:
        self._catch_up()
        updates, steps = self._counts.tolist()
        squares: dict[str, Array] = {f"rmsprop/{i}": g.numpy().copy() for i, g in enumerate(self._g)}
        return Snapshot({**self._actor.arrays(), **squares}, {"updates": updates, "steps": steps})

    def load(self, snapshot: Snapshot) -> None:
        self._actor.load(snapshot.arrays)
        self._counts.copy_(torch.tensor([snapshot.data["updates"], snapshot.data["steps"]]))
        self._write(snapshot.arrays)

    def _lay_out(self, memory: memoryview) -> None:
        """Counts of updates and of steps learnt from, int64; then theta and g, float32: all of them parts of it."""
        self._memory = memory
        self._counts = torch.frombuffer(memory, dtype=torch.int64, count=2)
        numbers = torch.frombuffer(memory, dtype=torch.float32, offset=16)
        sizes = [weight.numel() for weight in self._copy]
        parts = [
            part.view(like.shape) for part, like in zip(torch.split(numbers, sizes * 2), self._copy * 2, strict=True)
        ]
        self._theta, self._g = parts[: len(sizes)], parts[len(sizes) :]

    @torch.no_grad()
    def _write(self, squares: Arrays) -> None:
        """Theta from the copy, g from ``squares``, where they are given."""
        for shared, weight in zip(self._theta, self._copy, strict=True):
            shared.copy_(weight)
        for i, g in enumerate(self._g):
            if squares:
                g.copy_(torch.from_numpy(squares[f"rmsprop/{i}"]))
        self._read = int(self._counts[0])
        self._actor.refresh()

    @torch.no_grad()
    def _catch_up(self) -> None:
        """Copy theta, if it has moved. ``_read`` updates, or more, are in the copy."""
        updates = int(self._counts[0])
        if updates == self._read:
            return
        for weight, shared in zip(self._copy, self._theta, strict=True):
            weight.copy_(shared)
        self._read = updates
        self._actor.refresh()
