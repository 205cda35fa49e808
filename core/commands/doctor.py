"""`agentctl doctor`: is this machine ready, and what would make it so."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from dataclasses import asdict, dataclass

import typer

from agentctl.core.commands.options import Json, Plug, switches
from agentctl.core.commands.output import print_json, print_table

EXTRAS = {
    "torch": "torch",
    "ale_py": "atari",
    "imageio_ffmpeg": "video",
    "tensorboardX": "tensorboard",
    "minari": "record",
    "pygame": "window",
}
"""Import names of the optional parts, and the extra that brings each."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    what: str
    state: str  # ok | missing | warning
    detail: str
    remedy: str = ""


def doctor(plugin: Plug = None, json_: Json = False) -> None:
    """Check Python, memory, disk, optional parts and plugins; print a remedy for each thing that is missing."""
    findings = [_python(), _cores(), _disk(), *_extras(), *_plugins(plugin)]
    healthy = all(finding.state != "failed" for finding in findings)
    if json_:
        print_json({"ok": healthy, "findings": [asdict(finding) for finding in findings]})
    else:
        rows = [[f.what, f.state, f"{f.detail}{'; ' + f.remedy if f.remedy else ''}"] for f in findings]
        print_table(["what", "state", "detail"], rows)
    raise typer.Exit(0 if healthy else 3)


def _python() -> Finding:
    return Finding("python", "ok", f"{platform.python_version()} at {sys.executable}")


def _cores() -> Finding:
    policy = os.environ.get("OMP_WAIT_POLICY", "unset")
    return Finding("cores", "ok", f"{os.cpu_count()}, {platform.machine()}, OMP_WAIT_POLICY {policy}")


def _disk() -> Finding:
    free = shutil.disk_usage(".").free / 2**30
    state = "ok" if free > 1 else "warning"
    return Finding("disk", state, f"{free:.1f} GiB free here", "" if free > 1 else "runs need about 1 GiB")


def _extras() -> list[Finding]:
    findings = []
    for module, extra in EXTRAS.items():
        there = importlib.util.find_spec(module) is not None
        remedy = "" if there else f"pip install 'game-agentctl[{extra}]'"
        findings.append(Finding(f"extra {extra}", "ok" if there else "missing", module, remedy))
    return findings


def _plugins(words: list[str] | None) -> list[Finding]:
    from agentctl.core.plugins import Registry

    findings = []
    for plugin in Registry(switches(words)).plugins.values():
        remedy = f"leave it out with -p no:{plugin.name}" if plugin.status in {"failed", "incompatible"} else ""
        detail = plugin.reason or f"{plugin.source}, {len(plugin.components)} components"
        findings.append(Finding(f"plugin {plugin.name}", plugin.status, detail, remedy))
    return findings
