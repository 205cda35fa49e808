"""Options that several commands share."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from agentctl.core.config import Composition
    from agentctl.core.plugins import Switches

Game = Annotated[Path, typer.Argument(metavar="GAME.yaml", help="the run's YAML, or the name of a shipped one")]
Set = Annotated[
    list[str] | None, typer.Option("-s", "--set", metavar="KEY=VALUE", help="override, e.g. policy.lr=3e-4")
]
Off = Annotated[list[str] | None, typer.Option("--off", metavar="KIND", help="switch a kind off, e.g. memory")]
Plug = Annotated[
    list[str] | None, typer.Option("-p", metavar="PATH|no:NAME", help="add a plugin file, or disable a plugin")
]
Json = Annotated[bool, typer.Option("--json", help="one JSON object instead of text")]


def composition(
    game: Path, overrides: list[str] | None, off: list[str] | None, plugins: list[str] | None
) -> Composition:
    """What the four options describe."""
    from agentctl.core.config import compose

    chosen = compose(find_config(game), overrides or (), off or (), switches(plugins))
    for warning in chosen.registry.warnings:
        sys.stderr.write(f"warning: {warning}\n")
    return chosen


def switches(plugins: list[str] | None) -> Switches:
    from agentctl.core.plugins import Switches

    return Switches.parse(plugins or ())


def find_config(game: Path) -> Path:
    """The file itself, or the shipped one of that name: ``atari/default`` or ``configs/atari/default.yaml``.

    Raises ConfigError when there is neither, with the closest of the files there and the shipped ones.
    """
    from agentctl.core.errors import ConfigError, did_you_mean

    if os.path.exists(game):  # unlike Path.exists, quiet about names that no file can have
        return game
    shipped = _shipped()
    name = game.as_posix().removeprefix("configs/")
    for ending in ("", ".yaml"):
        if name + ending in shipped:
            return shipped[name + ending]
    beside = [str(file) for file in game.parent.glob("*.y*ml")] if os.path.isdir(game.parent) else []
    known = [*beside, *(file.removesuffix(".yaml") for file in shipped)]
    raise ConfigError(f"{game}: no such file{did_you_mean(str(game), known)}")


def _shipped() -> dict[str, Path]:
    """The YAMLs that come with agentctl, by their path below ``configs/``."""
    from importlib.resources import files

    folder = Path(str(files("agentctl.configs")))
    return {file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("*.yaml"))}
