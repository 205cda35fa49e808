"""`agentctl run` and `eval`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentctl.core.commands.config import print_chain
from agentctl.core.commands.options import Json, Off, Plug, Set, composition, switches
from agentctl.core.commands.output import print_json, print_text

if TYPE_CHECKING:
    from agentctl.core.config import Composition
    from agentctl.core.run import Run


class Mode(StrEnum):
    """What `agentctl run` does."""

    train = "train"
    eval = "eval"
    play = "play"


def run(
    game: Annotated[
        Path | None, typer.Argument(metavar="GAME.yaml", help="the run's YAML, or a shipped one's name")
    ] = None,
    set_: Set = None,
    off: Off = None,
    plugin: Plug = None,
    mode: Annotated[
        Mode, typer.Option(help="train; eval: only evaluate; play: act without learning until stopped")
    ] = Mode.train,
    resume: Annotated[
        Path | None, typer.Option(metavar="RUN", help="go on with a run's folder from its last checkpoint")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="the run's folder (default: runs/<game>-<policy>-<time>)")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="resume although plugins or configuration changed")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="check everything, print the chain, start nothing")
    ] = False,
    json_: Json = False,
) -> None:
    """Run GAME.yaml: train, evaluate beside a random policy, save, report."""
    from agentctl.core.runner import new_folder, resume_point

    chosen = _compose(game, resume, set_, off, plugin)
    if dry_run:
        print_chain(chosen, as_json=json_)
        return
    if resume is not None and mode is Mode.train:
        _train(chosen, resume, resume_point(resume, chosen, force=force), json_)
    elif mode is Mode.train:
        _train(chosen, new_folder(chosen, out), None, json_)
    else:
        _watch(mode, chosen, resume, out, json_)


def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="a run's folder, or one of its checkpoints")],
    episodes: Annotated[int | None, typer.Option(help="how many (default: the run's own setting)")] = None,
    video: Annotated[bool, typer.Option("--video", help="write the first episode into RUN/videos")] = False,
    plugin: Plug = None,
    json_: Json = False,
) -> None:
    """Evaluate a run's latest checkpoint on its fixed seeds, beside the random policy."""
    from agentctl.core.checkpoint import latest_checkpoint
    from agentctl.core.runner import composition_of
    from agentctl.core.runner import evaluate as evaluate_run

    overrides = (f"evaluation.episodes={episodes}",) if episodes else ()
    off = [] if video else ["no:recorder"]
    quiet_plugins = ["no:metrics", "no:tensorboard", "no:report", "no:progress", *off, *(plugin or [])]
    chosen = composition_of(run, switches(quiet_plugins), overrides)
    done = evaluate_run(chosen, latest_checkpoint(run), run if video else None, quiet=json_)
    _print_summary(done, json_)


def _compose(
    game: Path | None, resume: Path | None, set_: list[str] | None, off: list[str] | None, plugin: list[str] | None
) -> Composition:
    from agentctl.core.errors import ConfigError

    source = game or (resume / "config.yaml" if resume else None)
    if source is None:
        raise ConfigError(
            "which game? agentctl run GAME.yaml (or --resume RUN); `agentctl games list` names what there is"
        )
    return composition(source, set_, off, plugin)


def _train(chosen: Composition, folder: Path, resume: Path | None, json_: bool) -> None:
    from agentctl.core.runner import train

    done = train(chosen, folder, resume=resume, quiet=json_)
    _print_summary(done, json_)
    if done.summary["stopped"]:
        raise typer.Exit(130)


def _watch(mode: Mode, chosen: Composition, run: Path | None, out: Path | None, json_: bool) -> None:
    from agentctl.core.checkpoint import latest_checkpoint
    from agentctl.core.runner import evaluate as evaluate_run
    from agentctl.core.runner import new_folder, play

    checkpoint = latest_checkpoint(run) if run else None
    folder = run or new_folder(chosen, out)
    done = (
        evaluate_run(chosen, checkpoint, folder, quiet=json_)
        if mode is Mode.eval
        else play(chosen, checkpoint, folder, quiet=json_)
    )
    _print_summary(done, json_)
    if done.summary["stopped"]:
        raise typer.Exit(130)


def _print_summary(done: Run, json_: bool) -> None:
    if json_:
        print_json(done.summary)
        return
    summary: dict[str, Any] = done.summary
    if summary["return_mean"] is not None and not done.observers:  # else they have said it
        beside = f"random {summary['return_random']:.2f}"
        print_text(f"return {summary['return_mean']:.2f} over {summary['episodes']} episodes; {beside}")
    for problem in summary.get("problems", []):
        print_text(f"note: {problem}")
    if summary["stopped"]:
        print_text(f"stopped; go on with: agentctl run --resume {summary['run']}")
