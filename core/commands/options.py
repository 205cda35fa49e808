"""Options that several commands share."""

from __future__ import annotations

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

    return compose(find_config(game), overrides or (), off or (), switches(plugins))


def switches(plugins: list[str] | None) -> Switches:
    from agentctl.core.plugins import Switches

    return Switches.parse(plugins or ())


def find_config(game: Path) -> Path:
    """The file itself, or the shipped one of that name: ``atari/default`` or ``configs/atari/default.yaml``."""
    from importlib.resources import files

    if game.exists():
        return game
    parts = game.with_suffix(".yaml").parts
    parts = parts[1:] if parts and parts[0] == "configs" else parts
    shipped = Path(str(files("agentctl.configs"))).joinpath(*parts)
    return shipped if shipped.is_file() else game
