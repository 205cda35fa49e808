"""A run from start to end: its folder, lock, observers, signals, and the summary it leaves."""

from __future__ import annotations

import datetime
import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from agentctl.core.assembly import Assembly, assemble, blame
from agentctl.core.checkpoint import latest_checkpoint, read_checkpoint, write_json
from agentctl.core.config import Composition, compose, dump
from agentctl.core.errors import AgentctlError, ConfigError, PluginError
from agentctl.core.lock import differences, make_lock
from agentctl.core.loop import Loop
from agentctl.core.plugins import Switches
from agentctl.core.run import Evaluation, Run


def train(composition: Composition, folder: Path | None, *, resume: Path | None = None, quiet: bool = False) -> Run:
    """Train to the end (or to Ctrl-C: see ``run.summary["stopped"]``) and write everything into ``folder``.

    Raises PluginError when a plugin fails and has no fallback; the checkpoint, report and summary are written before.
    """
    assembly = assemble(composition)
    if assembly.replay is None:
        raise ConfigError(
            f"{composition.document.path}: training needs a replay; add e.g. replay: {{name: rollout, steps: 128}}"
        )
    run = start_run(composition, folder, quiet=quiet)
    loop = Loop(assembly, run)
    with announced(run, composition), stopping(loop), concluded(run, loop, composition):
        loop.train(resume)
    return run


def evaluate(composition: Composition, checkpoint: Path | None, folder: Path | None, *, quiet: bool = False) -> Run:
    """Only the evaluation episodes, of a checkpoint's policy or of an untrained one."""
    assembly = assemble(composition)
    run = start_run(composition, folder, quiet=quiet)
    loop = Loop(assembly, run)
    if checkpoint is not None:
        restore(assembly, checkpoint)
        loop.step = read_checkpoint(checkpoint)["loop"].data["step"]
    with announced(run, composition), concluded(run, loop, composition):
        loop.evaluate()
    return run


def play(composition: Composition, checkpoint: Path | None, folder: Path | None, *, quiet: bool = False) -> Run:
    """Act without learning for ``run.steps`` steps or until Ctrl-C; observers see every step."""
    assembly = assemble(composition)
    assembly.replay = None
    run = start_run(composition, folder, quiet=quiet)
    loop = Loop(assembly, run)
    if checkpoint is not None:
        restore(assembly, checkpoint)
    with announced(run, composition), stopping(loop), concluded(run, loop, composition):
        loop.play()
    return run


def restore(assembly: Assembly, checkpoint: Path) -> None:
    """Put a checkpoint's policy and world model into ``assembly``."""
    found = read_checkpoint(checkpoint)
    assembly.policy.load(found["policy"])
    if assembly.pipeline.world_model is not None and "world_model" in found:
        assembly.pipeline.world_model.load(found["world_model"])


def composition_of(run: Path, switches: Switches | None = None, overrides: tuple[str, ...] = ()) -> Composition:
    """The composition that a run's folder (or one of its checkpoints) was made with."""
    folder = run.parent.parent if run.name.startswith("step-") else run
    path = folder / "config.yaml"
    if not path.is_file():
        raise AgentctlError(f"{run}: not a run's folder: it has no config.yaml")
    return compose(path, overrides, (), switches)


def resume_point(folder: Path, composition: Composition, *, force: bool) -> Path:
    """The checkpoint to go on from. Raises ConfigError naming every difference to the run's lock unless ``force``."""
    before = json.loads((folder / "run.lock.json").read_text(encoding="utf-8"))
    changed = differences(before, make_lock(composition))
    if changed and not force:
        listing = "\n".join(f"  {line}" for line in changed)
        raise ConfigError(
            f"{folder}: this is not what the run was started with:\n{listing}\nuse --force to resume all the same"
        )
    return latest_checkpoint(folder)


def new_folder(composition: Composition, out: Path | None) -> Path:
    """``out``, or ``runs/<game>-<policy>-<time>``. Raises ConfigError when it already holds a run."""
    if out is not None:
        if (out / "config.yaml").exists():
            raise ConfigError(f"{out}: already holds a run; resume it with --resume {out}, or choose another --out")
        return out
    game, policy = composition.one("game"), composition.one("policy")
    assert game is not None and policy is not None
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    base = Path("runs") / f"{game.name.replace('/', '-')}-{policy.name}-{stamp}"
    return next(p for n in range(1000) if not (p := Path(f"{base}-{n}" if n else base)).exists())


def start_run(composition: Composition, folder: Path | None, *, quiet: bool = False) -> Run:
    """The run's folder with its resolved configuration and lock."""
    run = Run(folder, composition.resolved(), make_lock(composition), quiet)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "run.lock.json").exists():
            (folder / "config.yaml").write_text(dump(run.config), encoding="utf-8")
            write_json(folder / "run.lock.json", run.lock)
    return run


@contextmanager
def announced(run: Run, composition: Composition) -> Iterator[None]:
    """Call ``agentctl_run_started`` and, whatever happens, ``agentctl_run_ended``, each plugin inside its own guard."""
    problems = _announce(composition, "agentctl_run_started", {"run": run})
    for observer in list(run.observers):
        for problem in problems:
            observer.event("plugin", problem)
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
def stopping(loop: Loop) -> Iterator[None]:
    """The first Ctrl-C (or SIGTERM) ends the cycle and saves; the second stops at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if loop.stop_asked:
            raise KeyboardInterrupt
        loop.ask_to_stop()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def concluded(run: Run, loop: Loop, composition: Composition) -> Iterator[None]:
    """Leave a summary whatever happens, and turn a component's failure into an error that names it."""
    try:
        yield
    except AgentctlError:
        raise
    except Exception as error:
        raise crashed(error, composition) from error
    finally:
        run.summary = summary(run, loop)


def crashed(error: Exception, composition: Composition) -> AgentctlError:
    """What to print when a component failed: where, and the exact switch that disables its plugin."""
    import traceback

    frame = traceback.extract_tb(error.__traceback__)[-1]
    what = f"{type(error).__name__}: {error} [{frame.filename}:{frame.lineno}]"
    culprit = blame(error, composition)
    if culprit is None:
        return AgentctlError(f"the run failed: {what}; the last checkpoint is kept")
    remedy = f"switch it off with -p no:{culprit.plugin}, or give it a fallback: in the YAML"
    where = composition.document.origin(culprit.loc)
    return PluginError(f"{where}: {culprit.kind} {culprit.name!r} (plugin {culprit.plugin}) failed: {what}; {remedy}")


def summary(run: Run, loop: Loop) -> dict[str, Any]:
    """The last line of `run --json`."""
    progress = loop.progress()
    last: Evaluation | None = run.evaluations[-1] if run.evaluations else None
    checkpoints = sorted((run.folder / "checkpoints").glob("step-*")) if run.folder else []
    return {
        "run": str(run.folder) if run.folder else None,
        "steps": loop.step,
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
