"""A process of the crew: it plays games of its own and learns into the policy that all of them share.

It is built from plain data: the run's resolved configuration, from which it composes what the main process composed. It
plays up to the crew's target, then rests until it is told to go on; when the main process is gone, it ends.
"""

from __future__ import annotations

import signal
import time
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from agentctl.core import errors
from agentctl.core.assembly import Assembly, assemble, blamed
from agentctl.core.audience import Audience
from agentctl.core.collector import Collector
from agentctl.core.config import compose_document
from agentctl.core.document import Document
from agentctl.core.errors import AgentctlError
from agentctl.core.plugins import Switches
from agentctl.core.protocols import SharedPolicy
from agentctl.core.run import Observer, Run
from agentctl.core.shared import Shared
from agentctl.core.standing import Standing
from agentctl.core.tally import Tally
from agentctl.core.types import Array, Metrics, Snapshot

REPORT_INTERVAL = 0.1
"""Seconds between two reports: each wakes the main process, which the workers' cores have to make room for."""


@dataclass(frozen=True, slots=True)
class Order:
    """All that a worker is made from."""

    number: int  # its place in the crew
    life: int  # how many workers began before it, in its place and in others
    document: Document  # the run's, resolved
    learnt: Shared  # what the policy learns
    meter: Shared  # see Meter
    parts: dict[str, Snapshot]  # of memory and rewards


@dataclass(frozen=True, slots=True)
class Report:
    """What happened since the last one."""

    tally: Tally
    metrics: Metrics  # of the last learning step, if there was one


@dataclass(frozen=True, slots=True)
class Notice:
    """Something a user should know, as observers are told."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Resting:
    """Played up to the target, or has just begun. What memory and rewards know, if it speaks for all workers."""

    parts: dict[str, Snapshot]


@dataclass(frozen=True, slots=True)
class Failed:
    """The worker ends by an error of its own."""

    kind: type[AgentctlError]
    text: str
    trace: str


class Gone(BaseException):
    """The main process is; no failure of a component, so nothing that is caught as one."""


class Meter:
    """What the crew counts together: steps, each worker in a number of its own so that none is lost, and the target."""

    def __init__(self, shared: Shared) -> None:
        numbers = np.frombuffer(shared.buffer, np.int64)
        self._target, self._steps = numbers[:1], numbers[1:]

    @staticmethod
    def nbytes(workers: int) -> int:
        return 8 * (2 + workers)

    @property
    def target(self) -> int:
        return int(self._target[0])

    def aim(self, target: int) -> None:
        self._target[0] = target

    @property
    def steps(self) -> int:
        """Taken in the whole run, by all workers."""
        return int(self._steps.sum())

    def begin_at(self, step: int) -> None:
        self._steps[:] = 0
        self._steps[0] = step

    def of(self, worker: int) -> Array:
        """The number that one worker counts in, int64 (1,)."""
        return self._steps[1 + worker : 2 + worker]


def work(order: Order, pipe: Connection) -> None:
    """The life of a worker."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the terminal sends them to all; the main process decides
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        Worker(order, pipe).work()
    except Gone:
        return


class Worker:
    """Plays, learns, reports and rests."""

    def __init__(self, order: Order, pipe: Connection) -> None:
        self._order, self._pipe, self._meter = order, pipe, Meter(order.meter)
        self._metrics: Metrics = {}
        self._report_at = 0.0

    def work(self) -> None:
        """Until the main process is gone. What goes wrong before is reported to it."""
        try:
            self._live()
        except AgentctlError as error:
            kind = next(kind for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
            self._send(Failed(kind, str(error), traceback.format_exc()))

    def _live(self) -> None:
        composition = compose_document(self._order.document, Switches())
        with blamed(composition):
            assembly = assemble(composition)
            try:
                self._take_turns(assembly)
            finally:
                assembly.game.close()

    def _take_turns(self, assembly: Assembly) -> None:
        games = self._collector(assembly)
        games.begin()
        while True:
            self._send(Resting({name: part.save() for name, part in own_parts(assembly).items()}))
            self._wait()
            self._play(games)

    def _play(self, games: Collector) -> None:
        taken = self._meter.of(self._order.number)
        while self._meter.steps < self._meter.target:
            before = games.at.step
            games.take_in(games.explore())
            taken += games.at.step - before
            if time.monotonic() >= self._report_at:
                self._report(games.at)
        self._report(games.at)

    def _collector(self, assembly: Assembly) -> Collector:
        order, policy = self._order, assembly.policy
        assert isinstance(policy, SharedPolicy)
        seed = np.random.SeedSequence((assembly.composition.settings.run.seed, order.life)).generate_state(2)[1]
        policy.join(order.learnt, int(seed % 2**31))
        for name, part in own_parts(assembly).items():
            part.load(order.parts[name])
        at = Standing.before_the_first_step(assembly.batch)
        at.restarts = order.life  # from which the games' seed is drawn
        run = Run(None, {}, {}, quiet=True, observers=[Messenger(self)])
        audience = Audience(run, assembly.composition.registry)
        for guard in assembly.guards().values():
            guard.notify = audience.notify
        return Collector(assembly, at, audience, self._learned)

    def _learned(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def _report(self, at: Standing) -> None:
        counted, at.tally = at.tally, Tally(at.tally.running)
        self._send(Report(counted, self._metrics))
        self._metrics, self._report_at = {}, time.monotonic() + REPORT_INTERVAL

    def notify(self, kind: str, text: str) -> None:
        self._send(Notice(kind, f"worker {self._order.number}: {text}"))

    def _send(self, message: Report | Notice | Resting | Failed) -> None:
        try:
            self._pipe.send(message)
        except OSError as error:
            raise Gone from error

    def _wait(self) -> None:
        """Until the main process says go on."""
        try:
            self._pipe.recv()
        except (EOFError, OSError) as error:
            raise Gone from error


class Messenger(Observer):
    """Passes on what a worker's user should know."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def event(self, kind: str, text: str) -> None:
        self._worker.notify(kind, text)


def own_parts(assembly: Assembly) -> dict[str, Any]:
    """What a worker keeps beside the policy and its replay: memory and rewards."""
    return {name: part for name, part in assembly.stateful().items() if name not in ("policy", "replay")}
