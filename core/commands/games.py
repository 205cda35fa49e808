"""`agentctl games`: what there is to play."""

from __future__ import annotations

from typing import Annotated

import typer

from agentctl.core.commands.options import Json, Plug, switches
from agentctl.core.commands.output import print_json, print_table, print_text

app = typer.Typer(no_args_is_help=True, help="List and describe games.")


@app.command("list")
def list_games(plugin: Plug = None, json_: Json = False) -> None:
    """Every game of every installed pack."""
    from agentctl.core.plugins import Registry

    found = Registry(switches(plugin)).components("game")
    rows = [(name, owner.name, owner.status, component.summary) for name, (owner, component) in sorted(found.items())]
    if json_:
        print_json([dict(zip(("name", "pack", "status", "summary"), row, strict=True)) for row in rows])
    else:
        print_table(["game", "pack", "status", "summary"], rows)


@app.command()
def info(
    name: Annotated[str, typer.Argument(metavar="GAME", help="e.g. atari/pong")],
    plugin: Plug = None,
    json_: Json = False,
) -> None:
    """A game's spaces, clock and options with their defaults."""
    from agentctl.core.pipeline import describe
    from agentctl.core.plugins import Registry
    from agentctl.core.protocols import Setup

    registry = Registry(switches(plugin))
    owner, component = registry.find("game", name)
    game = registry.build("game", {"name": name}, Setup())
    options = registry.load("game", name).Config.model_json_schema()["properties"]
    facts = {
        "name": name,
        "pack": f"{owner.name} ({owner.source})",
        "summary": component.summary,
        "observation": describe(game.observation_space),
        "action": describe(game.action_space),
        "clock": game.clock.kind,
    }
    game.close()
    if json_:
        print_json({**facts, "options": options})
        return
    for key, value in facts.items():
        print_text(f"{key:12} {value}")
    rows = [
        [key, str(component.defaults.get(key, o.get("default", ""))), o.get("description", "")]
        for key, o in options.items()
    ]
    print_table(["option", "default", "what"], rows)
