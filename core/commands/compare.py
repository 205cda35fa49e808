"""`agentctl compare`: runs side by side, and their world models in the same games."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentctl.core.commands.dream import WATCH_TRAINING, filmed
from agentctl.core.commands.options import Json, Plug, switches
from agentctl.core.commands.output import print_json, print_table, print_text

if TYPE_CHECKING:
    from agentctl.core.foresight import Comparison, Foresight


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN...", help="two or more runs' folders")],
    seed: Annotated[int, typer.Option(min=0, help="of the games that world models are compared in")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="where the video of dreams goes (default: the first run's folder)"),
    ] = None,
    plugin: Plug = None,
    json_: Json = False,
) -> None:
    """The latest evaluations of several runs, what differs in their configurations, and what their models foresee."""
    from agentctl.core.lock import differences

    told: dict[str, Any] = {"runs": [_last_evaluation(folder) for folder in runs]}
    first, *others = (json.loads((folder / "run.lock.json").read_text(encoding="utf-8")) for folder in runs)
    told["differences"] = {str(f): differences(first, lock) for f, lock in zip(runs[1:], others, strict=True)}
    if all(_has_world_model(folder) for folder in runs):
        told |= _worlds(runs, seed, out or runs[0] / "dreams", plugin or [])
    if json_:
        print_json(told)
    else:
        _print(told)


def _worlds(runs: list[Path], seed: int, out: Path, plugins: list[str]) -> dict[str, Any]:
    """Metrics of each model on the same real games, how far its dreams drift, and a film: real | first | second ..."""
    from agentctl.core.dream import opened
    from agentctl.core.foresight import foresee

    chosen = switches([*(f"no:{name}" for name in WATCH_TRAINING), *plugins])
    found = foresee(runs, seed, chosen)
    out.mkdir(parents=True, exist_ok=True)
    name = "-".join(run.name for run in runs)
    video = (
        filmed(opened(runs[0], 1, chosen), _film(found), out / f"compared-{name}-{seed}.mp4") if found.real else None
    )
    worlds = {run: {**world.metrics, **_drift(world)} for run, world in found.worlds.items()}
    return {"worlds": worlds, "the frame at the start": _drift(found.copied), "video": str(video) if video else None}


def _drift(world: Foresight) -> dict[str, float | None]:
    from agentctl.core.foresight import HORIZONS

    return {f"psnr, {horizon} ahead": world.psnr(horizon) for horizon in HORIZONS}


def _film(found: Comparison) -> list[Any]:
    """The real game at the left, then each run's dream of it."""
    from functools import reduce

    from agentctl.core.dream import side_by_side

    films = [found.real, *(world.film for world in found.worlds.values())]
    return [reduce(side_by_side, pictures) for pictures in zip(*films, strict=True)]


def _has_world_model(folder: Path) -> bool:
    from agentctl.core.folder import composition_of

    return composition_of(folder).one("world_model") is not None


def _print(told: dict[str, Any]) -> None:
    print_table(["run", "step", "return", "random"], [[str(value) for value in row.values()] for row in told["runs"]])
    for folder, lines in told["differences"].items():
        print_text(f"{folder} differs from {told['runs'][0]['run']} in:")
        for line in lines or ["nothing"]:
            print_text(f"  {line}")
    if "worlds" in told:
        worlds = told["worlds"]
        names = list(dict.fromkeys(name for world in worlds.values() for name in world))
        start = told["the frame at the start"]
        rows = [[name, *(_number(found.get(name)) for found in (*worlds.values(), start))] for name in names]
        print_table(["world model", *worlds, "the frame at the start"], rows)
        print_text(f"real | {' | '.join(worlds)}: {told['video'] or 'no video'}")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _last_evaluation(folder: Path) -> dict[str, Any]:
    """The last evaluation line of ``metrics.jsonl``."""
    from agentctl.core.errors import AgentctlError

    path = folder / "metrics.jsonl"
    if not path.is_file():
        raise AgentctlError(f"{folder}: no metrics.jsonl there; is it a run's folder?")
    last: dict[str, Any] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(ValueError):
            found = json.loads(line)
            last = found if found.get("event") == "evaluation" else last
    return {"run": str(folder), **{key: last.get(key) for key in ("step", "return_mean", "return_random")}}
