"""`agentctl config`: check, show, explain, schema, migrate."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentctl.core.commands.options import Game, Json, Off, Plug, Set, composition, find_config, switches
from agentctl.core.commands.output import print_json, print_table, print_text, size
from agentctl.core.errors import AgentctlError

if TYPE_CHECKING:
    from agentctl.core.config import Composition

app = typer.Typer(no_args_is_help=True, help="Check, show and explain configurations.")


@app.command()
def check(game: Game, set_: Set = None, off: Off = None, plugin: Plug = None, json_: Json = False) -> None:
    """Check everything and print the chain of spaces and the memory it takes, before any game starts."""
    try:
        print_chain(composition(game, set_, off, plugin), as_json=json_)
    except AgentctlError as error:
        if json_:
            print_json({"ok": False, "error": str(error)})
        raise


@app.command()
def show(
    game: Game,
    set_: Set = None,
    off: Off = None,
    plugin: Plug = None,
    resolved: Annotated[bool, typer.Option("--resolved", help="with every default filled in")] = False,
    json_: Json = False,
) -> None:
    """Print the configuration, as written or --resolved."""
    from agentctl.core.config import dump

    chosen = composition(game, set_, off, plugin)
    data = chosen.resolved() if resolved else chosen.document.data
    print_json(data) if json_ else print_text(dump(data).rstrip())


@app.command()
def explain(
    game: Game,
    path: Annotated[str, typer.Argument(metavar="PATH", help="e.g. policy.lr")],
    set_: Set = None,
    off: Off = None,
    plugin: Plug = None,
    json_: Json = False,
) -> None:
    """Say what a value is and where it comes from: file:line:column, -s, or whose default."""
    from agentctl.core.explain import explain as explain_path

    found = explain_path(composition(game, set_, off, plugin), path)
    if json_:
        print_json(found)
        return
    print_text(f"{found['path']} = {json.dumps(found['value'], ensure_ascii=False)}")
    print_text(f"  from   {found['from']}")
    if found["about"]:
        print_text(f"  about  {found['about']}")


@app.command()
def schema(
    plugin: Plug = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="write it there")] = None,
) -> None:
    """The JSON Schema of a run's YAML, assembled from the installed plugins, for editors."""
    from agentctl.core.plugins import Registry
    from agentctl.core.schema import as_text
    from agentctl.core.schema import schema as make_schema

    text = as_text(make_schema(Registry(switches(plugin))))
    if out is None:
        print_text(text.rstrip())
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise AgentctlError(f"{out}: cannot be written: {error.strerror}") from error


@app.command()
def migrate(
    game: Game,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the new text, write nothing")] = False,
) -> None:
    """Carry an older file to this version; comments stay, the old text is kept beside it as .bak."""
    from agentctl.core.migrate import migrated, replace_file

    path = find_config(game)
    before, after = migrated(path)
    if dry_run:
        print_text(after.rstrip())
    elif after == before:
        print_text(f"{path}: already up to date")
    else:
        backup = replace_file(path, before, after)
        print_text(f"{path}: migrated; the old text is in {backup}")


def print_chain(chosen: Composition, *, as_json: bool) -> None:
    """Build every part (nothing starts) and print stage, name, spaces and memory."""
    from agentctl.core.assembly import assemble, total_bytes

    assembly = assemble(chosen)
    assembly.game.close()
    if as_json:
        print_json({"ok": True, "chain": [asdict(row) for row in assembly.rows], "bytes": total_bytes(assembly.rows)})
        return
    print_table(
        ["stage", "component", "memory", "spaces"],
        [[row.stage, row.name, size(row.nbytes), row.detail] for row in assembly.rows],
    )
    print_text(f"ok: {chosen.document.path}; its parts take {size(total_bytes(assembly.rows)) or 'nothing'}")
