"""A run's folder: who may write into it, what it says about the run, and where to go on from."""

from __future__ import annotations

import datetime
import itertools
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from agentctl.core.checkpoint import latest_checkpoint, list_checkpoints, write_json
from agentctl.core.config import Composition, compose, dump
from agentctl.core.errors import AgentctlError, ConfigError
from agentctl.core.lock import differences, make_lock
from agentctl.core.plugins import Switches
from agentctl.core.run import Run

try:
    import fcntl
except ImportError:  # Windows has no lock that a kill gives back
    fcntl = None  # type: ignore[assignment]

CONFIG = "config.yaml"
LOCK = "run.lock.json"


def new_folder(composition: Composition, out: Path | None) -> Path:
    """``out``, or a new ``runs/<game>-<policy>-<time>``. Raises ConfigError when ``out`` already holds a run."""
    if out is not None:
        check_free(out)
        return out
    game, policy = composition.one("game"), composition.one("policy")
    assert game is not None and policy is not None
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    base = Path("runs") / f"{game.name.replace('/', '-')}-{policy.name}-{stamp}"
    names = (Path(f"{base}-{number}" if number else base) for number in itertools.count())
    with _writable(base.parent):
        return next(folder for folder in names if _made(folder))  # another run may start in the same second


def discard(folder: Path | None) -> None:
    """Remove a new folder in which no run began; one that holds anything stays."""
    if folder is not None:
        with suppress(OSError):
            folder.rmdir()


def check_free(folder: Path) -> None:
    """Raise ConfigError when ``folder`` already holds a run: something to go on from."""
    if (folder / CONFIG).exists() and list_checkpoints(folder / "checkpoints"):
        raise ConfigError(f"{folder}: already holds a run; resume it with --resume {folder}, or choose another --out")


@contextmanager
def claimed(folder: Path | None) -> Iterator[None]:
    """Hold ``folder`` for this process alone, creating it. Raises AgentctlError when another process trains there."""
    if folder is None or fcntl is None:
        yield
        return
    with _writable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    try:
        _lock(handle, folder)
        yield
    finally:
        os.close(handle)  # gives the lock back, as a kill does


def start_run(composition: Composition, folder: Path | None, *, quiet: bool = False) -> Run:
    """A run, and what it is made with in ``folder``, unless that says so already."""
    run = Run(folder, composition.resolved(), make_lock(composition), quiet)
    if folder is not None and not (folder / CONFIG).exists():
        describe(run)
    return run


def describe(run: Run) -> None:
    """Write the run's lock, then its configuration: a folder with a config.yaml has both."""
    if run.folder is None:
        return
    writing = run.folder / f".{CONFIG}.writing"
    with _writable(run.folder):
        run.folder.mkdir(parents=True, exist_ok=True)
        write_json(run.folder / LOCK, run.lock)
        writing.write_text(dump(run.config), encoding="utf-8")
        writing.replace(run.folder / CONFIG)


def note_changes(run: Run) -> None:
    """Bring a forcibly resumed run's folder up to date; the lock's ``changes`` keep what was different, each time."""
    if run.folder is None:
        return
    before = _read_lock(run.folder)
    changed = differences(before, run.lock)
    if changed:
        run.lock["changes"] = [*before.get("changes", []), changed]
        describe(run)


def resume_point(folder: Path, composition: Composition, *, force: bool) -> Path:
    """The checkpoint to go on from. Raises ConfigError naming every difference to the run's lock unless ``force``."""
    changed = differences(_read_lock(folder), make_lock(composition))
    if changed and not force:
        listing = "\n".join(f"  {line}" for line in changed)
        raise ConfigError(
            f"{folder}: this is not what the run was started with:\n{listing}\nuse --force to resume all the same"
        )
    return latest_checkpoint(folder)


def composition_of(run: Path, switches: Switches | None = None, overrides: tuple[str, ...] = ()) -> Composition:
    """The composition that a run's folder (or one of its checkpoints) was made with."""
    path = run_of(run) / CONFIG
    if not path.is_file():
        raise AgentctlError(f"{run}: not a run's folder: it has no {CONFIG}")
    return compose(path, overrides, (), switches)


def run_of(folder: Path) -> Path:
    """The run's folder that a run's folder or one of its checkpoints belongs to."""
    return folder.resolve().parent.parent if folder.name.startswith("step-") else folder


def _made(folder: Path) -> bool:
    """Make a folder; False when it is there already."""
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        return False
    return True


def _read_lock(folder: Path) -> dict[str, Any]:
    path = folder / LOCK
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise ConfigError(f"{folder}: not a run's folder: it has no {LOCK}") from error
    except (OSError, ValueError) as error:
        raise AgentctlError(f"{path}: cannot be read: {error}; put the run's own file back, or start anew") from error


def _lock(handle: int, folder: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ConfigError(f"{folder}: another process is training there; choose another --out") from error


@contextmanager
def _writable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise AgentctlError(f"{folder}: cannot write there: {error}; choose another --out") from error
