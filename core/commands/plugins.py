"""`agentctl plugins`: what is installed and why something is not, what it offers, and how to write one."""

from __future__ import annotations

from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentctl.core.commands.options import Json, Plug, switches
from agentctl.core.commands.output import print_json, print_table, print_text

if TYPE_CHECKING:
    from agentctl.core.contracts import Finding
    from agentctl.core.hooks import Component
    from agentctl.core.plugins import Plugin, Registry

app = typer.Typer(no_args_is_help=True, help="List, describe, write and check plugins.")

PLUGIN_FAILURE = 3  # exit code
MANY = 8  # components of a kind are counted, not named, from here on
Name = Annotated[str, typer.Argument(metavar="NAME", help="a plugin's or a component's name")]


@app.command("list")
def list_plugins(
    plugin: Plug = None,
    all_: Annotated[bool, typer.Option("--all", help="one line per component")] = False,
    json_: Json = False,
) -> None:
    """Every plugin that was found, and what became of it. Imports no implementation."""
    registry = _registry(plugin)
    found = list(registry.plugins.values())
    if json_:
        print_json({"plugins": [plugin_facts(registry, each) for each in found]})
    elif all_:
        rows = [
            (owner.name, kind, component.name, *component_status(registry, kind, component), component.summary)
            for owner in found
            for kind, component in owner.components
        ]
        print_table(["plugin", "kind", "component", "status", "reason", "summary"], rows)
    else:
        print_table(
            ["plugin", "version", "status", "gives", "reason"],
            [(each.name, each.version, each.status, gives(each), each.reason) for each in found],
        )


@app.command()
def info(name: Name, plugin: Plug = None, json_: Json = False) -> None:
    """A plugin or a component: source, status, hooks, and every option with its default. Loads its classes."""
    registry = _registry(plugin)
    owner, components = select(registry, name)
    facts = plugin_facts(registry, owner)
    facts["components"] = [component_facts(registry, kind, component) for kind, component in components]
    if json_:
        print_json(facts)
        return
    for key in ("name", "source", "status", "reason"):
        if facts[key]:
            print_text(f"{key:12} {facts[key]}")
    print_text(f"{'hooks':12} {', '.join(owner.hooks) or 'none'}")
    described: set[str] = set()
    for (_, component), told in zip(components, facts["components"], strict=True):
        print_text(f"\n{told['kind']} {told['name']}: {told['summary']}")
        if told["status"] != "ok":
            print_text(f"  {told['status']}: {told['reason']}")
        elif component.target not in described:
            described.add(component.target)
            print_text(f"  {component.target}")
            options = [(key, option["default"], option["description"]) for key, option in told["options"].items()]
            print_table(["option", "default", "what"], options or [("none", "", "nothing to choose")])


@app.command()
def new(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="what it adds: game, perception, reward ... or observer")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="its name, e.g. survival")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="where the folder agentctl-NAME is made")] = Path(),
) -> None:
    """Write a complete, installable plugin package that already works."""
    from agentctl.core.plugins import Registry
    from agentctl.core.scaffold import check_free, create

    check_free(Registry(), kind, name)
    folder = create(kind, name, out)
    print_text(f"{folder} is written. Now:\n\n  pip install -e {folder}\n  agentctl plugins check {name}")
    print_text(f"  agentctl run {folder / 'example.yaml'}\n  pytest {folder}")


@app.command()
def check(name: Name, plugin: Plug = None, json_: Json = False) -> None:
    """Run the contract of every component of a plugin, or of one component. Exit code 3 when a check fails."""
    from dataclasses import asdict

    from agentctl.core.contracts import examine_component, examine_plugin

    registry = _registry(plugin)
    if name in registry.plugins:
        found = examine_plugin(registry, name)
    else:
        rows = select(registry, name)[1]
        found = {f"{kind} {row.name}": examine_component(registry, kind, row.name) for kind, row in rows}
    failed = any(finding.status == "failed" for findings in found.values() for finding in findings)
    if json_:
        told = {key: [asdict(finding) for finding in findings] for key, findings in found.items()}
        print_json({"name": name, "ok": not failed, "components": told})
    else:
        print_findings(found)
    if failed:
        raise typer.Exit(PLUGIN_FAILURE)


@app.command()
def docs(json_: Json = False) -> None:
    """The hooks, what a component of each kind must have, and what `agentctl plugins check` looks at."""
    from agentctl.core.contracts.reference import hooks_reference, kinds_reference

    hooks, kinds = hooks_reference(), kinds_reference()
    if json_:
        print_json({"hooks": hooks, "kinds": kinds})
        return
    print_text("Hooks: functions of a plugin module, marked @hookimpl\n")
    for hook in hooks:
        print_text(f"{hook['signature']}\n    {hook['doc']}\n")
    for kind, told in kinds.items():
        print_text(f"{kind}: {told['doc']}")
        for member in told["members"]:
            print_text(f"    {member['signature']}" + (f"\n        {member['doc']}" if member["doc"] else ""))
        print_text("")
    promises: dict[tuple[str, str], list[str]] = {}
    for kind, told in kinds.items():
        for each in told["checks"]:
            promises.setdefault((each["name"], each["doc"]), []).append(kind)
    rows = [("all" if len(of) == len(kinds) else ", ".join(of), *promise) for promise, of in promises.items()]
    print_table(["kind", "check", "promise"], rows)


def print_findings(found: dict[str, list[Finding]]) -> None:
    """One table per component, then what to do about what failed."""
    for title, findings in found.items():
        print_table(["check", "status", "detail"], [(f.check, f.status, f.detail) for f in findings], title)
    for title, findings in found.items():
        for finding in findings:
            if finding.status == "failed":
                print_text(f"{title}, {finding.check}: {finding.detail}\n  -> {finding.remedy}")
    count = Counter(finding.status for findings in found.values() for finding in findings)
    print_text(f"{count['ok']} ok, {count['failed']} failed, {count['skipped']} skipped")


def select(registry: Registry, name: str) -> tuple[Plugin, list[tuple[str, Component]]]:
    """The plugin called ``name`` with all its components, or the owner of the components called so."""
    from agentctl.core.errors import PluginError, did_you_mean
    from agentctl.core.plugins import KINDS

    if name in registry.plugins:
        return registry.plugins[name], registry.plugins[name].components
    known = {kind: registry.components(kind) for kind in KINDS}
    matches = [(kind, found[name]) for kind, found in known.items() if name in found]
    if not matches:
        words = {*registry.plugins, *(word for found in known.values() for word in found)}
        raise PluginError(f"no plugin or component is called {name!r}{did_you_mean(name, words)}")
    return matches[0][1][0], [(kind, component) for kind, (_, component) in matches]


def gives(plugin: Plugin) -> str:
    """What a plugin registers, in a few words: ``policy ppo, random``; many of a kind are counted."""
    kinds: dict[str, list[str]] = {}
    for kind, component in plugin.components:
        kinds.setdefault(kind, []).append(component.name)
    few = {kind: f"{kind} {', '.join(names)}" for kind, names in kinds.items() if len(names) < MANY}
    told = [few.get(kind, f"{len(names)} {kind}s") for kind, names in kinds.items()]
    return "; ".join(told) or ("observers" if plugin.hooks else "")


def plugin_facts(registry: Registry, plugin: Plugin) -> dict[str, Any]:
    """A plugin as plain data."""
    names = ("name", "version", "source", "status", "reason", "module", "hooks")
    components = []
    for kind, component in plugin.components:
        status, reason = component_status(registry, kind, component)
        facts = {"kind": kind, "name": component.name, "status": status, "reason": reason, "summary": component.summary}
        components.append(facts)
    return {**{name: getattr(plugin, name) for name in names}, "components": components}


def component_facts(registry: Registry, kind: str, component: Component) -> dict[str, Any]:
    """A component as plain data, with its options when its class loads."""
    from agentctl.core.errors import PluginError

    status, reason = component_status(registry, kind, component)
    facts: dict[str, Any] = {"kind": kind, "name": component.name, "summary": component.summary}
    facts |= {"target": component.target, "fallback": component.fallback}
    options: dict[str, Any] = {}
    if status == "ok":
        try:
            options = registry.load(kind, component.name).Config.model_json_schema().get("properties", {})
        except PluginError as error:
            status, reason = "failed", str(error)
    facts["options"] = {
        key: {"default": shown(component.defaults.get(key, option.get("default", ...))), **described(option)}
        for key, option in options.items()
    }
    return {**facts, "status": status, "reason": reason}


def component_status(registry: Registry, kind: str, component: Component) -> tuple[str, str]:
    """Whether a run could use the component, and why not."""
    from agentctl.core.errors import PluginError

    try:
        registry.find(kind, component.name)
    except PluginError as error:
        lacking = any(find_spec(library) is None for library in component.requires)
        return "missing extra" if lacking else "failed", str(error)
    return "ok", ""


def described(option: dict[str, Any]) -> dict[str, str]:
    return {"description": option.get("description", "")}


def shown(default: Any) -> str:
    """A default as one would write it in YAML; an option without one is needed."""
    import json

    return "(needed)" if default is ... else json.dumps(default)


def _registry(plugin: list[str] | None) -> Registry:
    from agentctl.core.plugins import Registry

    return Registry(switches(plugin))
