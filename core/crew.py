"""The worker processes that train one policy together: started, counted, replaced when they die, ended.

They play between :meth:`Crew.collect` and its return; outside of it they rest, so that checkpoints and evaluations see
weights that nobody moves. Here nothing is learnt and no game is played. Of memories and rewards the checkpoint holds
what the first worker's know, and so does a worker that begins later.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from agentctl.core.assembly import Assembly
from agentctl.core.audience import Audience
from agentctl.core.document import Document
from agentctl.core.errors import AgentctlError
from agentctl.core.protocols import SharedPolicy
from agentctl.core.shared import Shared
from agentctl.core.standing import Standing
from agentctl.core.types import Metrics
from agentctl.core.worker import Failed, Meter, Notice, Order, Report, Resting, own_parts, work

LISTEN_INTERVAL = 0.1
"""Seconds after which a silent crew is left to see whether a stop was asked for."""

PATIENCE = 5.0
"""Seconds that workers have to end by themselves."""


@dataclass(slots=True)
class Place:
    """One place in the crew, and the worker that holds it now."""

    number: int
    process: BaseProcess
    pipe: Connection
    resting: bool = False
    learnt: bool = False  # the worker has
    failure: Failed | None = None
    deaths: int = 0  # in a row, of workers that failed or had not learnt anything


class Crew:
    """Stands in for the :class:`Collector` of a loop whose policy is trained by worker processes."""

    def __init__(
        self,
        assembly: Assembly,
        at: Standing,
        audience: Audience,
        learned: Callable[[Metrics], None],
        stopped: Callable[[], bool],
    ) -> None:
        self.assembly, self.at, self.audience = assembly, at, audience
        self._learned, self._stopped = learned, stopped
        self._settings = assembly.composition.settings.run
        self._places: list[Place] = []

    def begin(self) -> None:
        """Start the workers, and wait until each has its games."""
        policy = self.assembly.policy
        assert isinstance(policy, SharedPolicy)
        self._learnt, self._counts = Shared(policy.shared_nbytes), Shared(Meter.nbytes(policy.workers))
        policy.share(self._learnt)
        self._meter = Meter(self._counts)
        self._meter.begin_at(self.at.step)
        for number in range(policy.workers):
            self._places.append(Place(number, *self._start(number)))
        self._listen()

    def restore(self, checkpoint: Path) -> None:
        """The policy stands where ``checkpoint`` does already; the games begin anew."""
        self.begin()

    def collect(self, target: int) -> None:
        """Have the workers play up to ``target`` steps of the run, or until a stop is asked for."""
        self._meter.aim(target)
        for place in self._places:
            self._send_off(place)
        self._listen()

    def pause(self) -> None:
        """Nothing: outside of ``collect`` all workers rest."""

    def go_on(self) -> None:
        """Nothing: their games wait for them."""

    def close(self, patience: float = PATIENCE) -> None:
        """End all workers; those that do not end by themselves within ``patience`` seconds are killed."""
        places, self._places = self._places, []
        if places:
            self._meter.aim(0)
        for place in places:
            place.pipe.close()
        limit = time.monotonic() + patience
        for place in places:
            place.process.join(max(0.0, limit - time.monotonic()))
            if place.process.is_alive():
                place.process.kill()
                place.process.join()

    def _listen(self) -> None:
        """Hear the workers until all of them rest."""
        try:
            while not all(place.resting for place in self._places):
                if self._stopped():
                    self._meter.aim(0)
                talking = wait([place.pipe for place in self._places], LISTEN_INTERVAL)
                for place in self._places:
                    if place.pipe in talking:
                        self._hear(place)
                    elif not place.process.is_alive() and not place.pipe.poll():  # a child of its own holds the pipe
                        self._replace(place)
            self.at.step = self._meter.steps
        except Exception:
            self.close()
            self.at.step = self._meter.steps
            raise
        except BaseException:  # the second Ctrl-C
            self.close(patience=0.0)
            raise

    def _hear(self, place: Place) -> None:
        """One message, or the silence of the dead."""
        try:
            message = place.pipe.recv()
        except (EOFError, OSError):
            self._replace(place)
            return
        self.at.step = self._meter.steps
        if isinstance(message, Report):
            self._count(place, message)
        elif isinstance(message, Resting):
            self._rest(place, message)
        elif isinstance(message, Notice):
            self.audience.notify(message.kind, message.text)
        else:
            place.failure = message

    def _count(self, place: Place, report: Report) -> None:
        self.at.tally.merge(report.tally)
        if report.metrics:
            place.learnt = True
            self._learned(report.metrics)

    def _rest(self, place: Place, message: Resting) -> None:
        place.resting = True
        if place.number == 0:
            for name, part in own_parts(self.assembly).items():
                part.load(message.parts[name])
        if self._meter.steps < self._meter.target:  # it has only just come
            self._send_off(place)

    def _send_off(self, place: Place) -> None:
        place.resting = False
        with suppress(OSError):  # it has died: listening tells
            place.pipe.send(None)

    def _replace(self, place: Place) -> None:
        """Put another worker in a dead one's place. Raises AgentctlError when that leads nowhere."""
        place.pipe.close()
        place.process.join(PATIENCE)
        place.process.kill()  # it has closed its end of the pipe, and still lives
        place.process.join()
        how = _how_it_ended(place)
        place.deaths = 0 if place.learnt and place.failure is None else place.deaths + 1
        if place.deaths >= self._settings.max_errors:
            raise _hopeless(place, how)
        self.audience.notify("worker", f"worker {place.number} {how}; another takes its place")
        place.process, place.pipe = self._start(place.number)
        place.resting, place.learnt, place.failure = False, False, None

    def _start(self, number: int) -> tuple[BaseProcess, Connection]:
        """A new worker, which composes its own parts: spawned, since a fork would copy locks that others hold."""
        composition, context = self.assembly.composition, get_context("spawn")
        origins = composition.document.origins
        order = Order(
            number=number,
            life=self.at.restarts,
            document=Document(composition.document.path, composition.resolved(), origins),
            learnt=self._learnt,
            meter=self._counts,
            parts={name: part.save() for name, part in own_parts(self.assembly).items()},
        )
        self.at.restarts += 1
        ours, theirs = context.Pipe()
        process = context.Process(target=work, args=(order, theirs), name=f"agentctl worker {number}")
        with _signals_held():
            process.start()
        theirs.close()
        return process, ours


def _how_it_ended(place: Place) -> str:
    if place.failure is not None:
        return f"failed: {place.failure.text}"
    code = place.process.exitcode or 0
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended by itself (exit code {code})"


def _hopeless(place: Place, how: str) -> AgentctlError:
    times = f"worker {place.number} {how}; {place.deaths} in its place have failed in a row"
    if place.failure is not None:
        return place.failure.kind(f"{times}\n{place.failure.trace.rstrip()}")
    remedy = "where memory is short, fewer workers help, e.g. -s policy.workers=1, or a smaller game.batch"
    return AgentctlError(f"{times}, none had learnt anything: {remedy}")


@contextmanager
def _signals_held() -> Iterator[None]:
    """A process that starts meanwhile starts with them held, until it has said what to do about them."""
    resource_tracker.ensure_running()  # which the first process to start would start, letting the signals through
    held = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
