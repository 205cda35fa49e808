"""A run from start to end: observers, signals, the folder's lock, and the summary it leaves."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from agentctl.core.assembly import Assembly, assemble, blamed
from agentctl.core.audience import Audience
from agentctl.core.checkpoint import list_checkpoints, read_checkpoint
from agentctl.core.config import Composition
from agentctl.core.errors import AgentctlError, ConfigError
from agentctl.core.folder import (
    check_free,
    claimed,
    composition_of,
    describe,
    discard,
    new_folder,
    note_changes,
    resume_point,
    start_run,
)
from agentctl.core.loop import Loop
from agentctl.core.run import Evaluation, Run
from agentctl.core.standing import load_part

__all__ = ["composition_of", "evaluate", "new_folder", "play", "restore", "resume_point", "train"]

STOPPING = b"stopping: this cycle ends here and is saved; once more stops at once\n"


class Stoppable(Protocol):
    """What ends by itself soon after it was asked to."""

    stop_asked: bool

    def ask_to_stop(self) -> None: ...


def train(composition: Composition, folder: Path | None, *, resume: Path | None = None, quiet: bool = False) -> Run:
    """Train to the end (or to Ctrl-C: see ``run.summary["stopped"]``) and write everything into ``folder``.

    ``resume``: a checkpoint in ``folder`` to go on from. Raises PluginError when a plugin fails and has no fallback;
    the checkpoint, report and summary are written before.
    """
    try:
        assembly = trainable(composition, folder)
    except AgentctlError:
        discard(folder)
        raise
    with claimed(folder):
        if folder is not None and resume is None:
            check_free(folder)
        run = start_run(composition, folder, quiet=quiet)
        loop = Loop(assembly, run)
        if resume is None:
            describe(run)
        else:
            loop.resume(resume)  # before the observers start, who ask where the run stands
            note_changes(run)
        with announced(run, composition), stopping(loop), concluded(run, loop, composition):
            loop.train()
    return run


def trainable(composition: Composition, folder: Path | None) -> Assembly:
    """The built parts. Raises ConfigError when nothing could be learnt from."""
    assembly = assemble(composition, folder=folder)
    if assembly.replay is None:
        raise ConfigError(
            f"{composition.document.path}: training needs a replay; add e.g. replay: {{name: rollout, steps: 128}}"
        )
    return assembly


def evaluate(composition: Composition, checkpoint: Path | None, folder: Path | None, *, quiet: bool = False) -> Run:
    """Only the evaluation episodes, of a checkpoint's policy or of an untrained one."""
    assembly = assemble(composition.without("replay"))
    step = restore(assembly, checkpoint) if checkpoint is not None else 0
    run = start_run(composition, folder, quiet=quiet)
    loop = Loop(assembly, run, step)
    with announced(run, composition), concluded(run, loop, composition):
        loop.evaluate()
    return run


def play(composition: Composition, checkpoint: Path | None, folder: Path | None, *, quiet: bool = False) -> Run:
    """Act without learning for ``run.steps`` steps or until Ctrl-C; observers see every step."""
    assembly = assemble(composition.without("replay"))
    if checkpoint is not None:
        restore(assembly, checkpoint)
    run = start_run(composition, folder, quiet=quiet)
    loop = Loop(assembly, run)
    with announced(run, composition), stopping(loop), concluded(run, loop, composition):
        loop.play()
    return run


def restore(assembly: Assembly, checkpoint: Path) -> int:
    """Put what a checkpoint's policy and world model know into ``assembly``. Returns the step it was written at."""
    parts: dict[str, Any] = {"policy": assembly.policy, "world_model": assembly.pipeline.world_model}
    found = read_checkpoint(checkpoint, only=("loop", *parts))
    for name, part in parts.items():
        if part is not None and name in found:
            load_part(part, found[name], f"{checkpoint}: {name}")
    data = found["loop"].data
    for name, guard in assembly.guards().items():
        guard.errors = data["guards"].get(name, 0)
    return int(data["step"])


@contextmanager
def announced(run: Run, composition: Composition) -> Iterator[None]:
    """Call ``agentctl_run_started`` and, whatever happens, ``agentctl_run_ended``, each plugin inside its own guard."""
    problems = _announce(composition, "agentctl_run_started", {"run": run})
    audience = Audience(run, composition.registry)
    for problem in problems:
        audience.notify("plugin", problem)
    error: BaseException | None = None
    try:
        yield
    except BaseException as raised:
        error = raised
        raise
    finally:
        for problem in _announce(composition, "agentctl_run_ended", {"run": run, "error": error}):
            run.summary.setdefault("problems", []).append(problem)


@contextmanager
def stopping(loop: Stoppable, message: bytes = STOPPING) -> Iterator[None]:
    """The first Ctrl-C (or SIGTERM) asks ``loop`` to stop; the second stops at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if loop.stop_asked:
            raise KeyboardInterrupt
        loop.ask_to_stop()
        with suppress(OSError):  # observers hear of it after this step: here one may be in the middle of a line
            os.write(2, message)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


@contextmanager
def concluded(run: Run, loop: Loop, composition: Composition) -> Iterator[None]:
    """Leave a summary whatever happens, and turn a component's failure into an error that names it."""
    try:
        with blamed(composition):
            yield
    finally:
        run.summary = summary(run, loop)


def summary(run: Run, loop: Loop) -> dict[str, Any]:
    """The last line of `run --json`."""
    progress = loop.progress()
    last: Evaluation | None = run.evaluations[-1] if run.evaluations else None
    checkpoints = list_checkpoints(run.folder / "checkpoints") if run.folder else []
    return {
        "run": str(run.folder) if run.folder else None,
        "steps": progress.step,
        "seconds": round(progress.seconds, 3),
        "steps_per_second": round(progress.steps_per_second, 1),
        "return_mean": last.return_mean if last else None,
        "return_random": last.return_random if last else None,
        "episodes": len(last.returns) if last else 0,
        "checkpoint": str(checkpoints[-1]) if checkpoints else None,
        "stopped": loop.stop_asked,
        **run.summary,
    }


def _announce(composition: Composition, hook: str, arguments: dict[str, Any]) -> list[str]:
    """Call a hook plugin by plugin, so that one that fails does not stop the rest. Returns what failed."""
    problems = []
    for implementation in reversed(getattr(composition.registry.manager.hook, hook).get_hookimpls()):
        wanted = {name: arguments[name] for name in implementation.argnames}
        try:
            implementation.function(**wanted)
        except Exception as error:
            name = implementation.plugin_name
            problems.append(
                f"plugin {name} failed in {hook}: {type(error).__name__}: {error}; disable it with -p no:{name}"
            )
    return problems
