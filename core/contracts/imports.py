"""What happens when a plugin is imported, in a process of its own: how long it takes, and what it must not do."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from agentctl.core.contracts.finding import Breach

IMPORT_BUDGET = 1.0
"""Seconds that the table module may take: it is imported whenever plugins are listed."""

TIMEOUT = 120.0

PROBE = """
import importlib, json, os, sys, time
from pathlib import Path
import agentctl.core.plugins
sys.path[:0] = [folder for folder in json.loads(sys.argv[3]) if folder not in sys.path]
module, targets = sys.argv[1], json.loads(sys.argv[2])
seen = []

def watch(event, arguments):
    if event in ("socket.connect", "socket.bind", "socket.getaddrinfo", "urllib.Request"):
        seen.append(["network", f"{event} {arguments[-1]!r}", where()])
    if event == "open" and writes(*arguments[1:3]) and isinstance(arguments[0], (str, bytes)):
        path = os.fsdecode(arguments[0])
        if "__pycache__" not in path and not path.startswith("/dev/"):
            seen.append(["write", path, where()])
    if event in ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate"):
        if "__pycache__" not in os.fsdecode(arguments[0]):
            seen.append(["write", f"{event} {arguments[0]!r}", where()])

def writes(mode, flags):
    if isinstance(mode, str):
        return bool(set(mode) & set("wax+"))
    return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))

def where():
    frame = sys._getframe(2)
    while frame is not None and ("importlib" in frame.f_code.co_filename or frame.f_code.co_filename == "<string>"):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame else ""

def load(name):
    if not name.endswith(".py"):
        return importlib.import_module(name)
    registry = agentctl.core.plugins.Registry(agentctl.core.plugins.Switches((Path(name),)), discover=False)
    plugin = next(iter(registry.plugins.values()))
    if plugin.status == "failed":
        sys.exit(plugin.reason)

sys.addaudithook(watch)
began = time.perf_counter()
load(module)
table = time.perf_counter() - began
heavy = "torch" in sys.modules
for target in targets:
    importlib.import_module(target)
whole = time.perf_counter() - began
print("\\n" + json.dumps({"table": table, "whole": whole, "torch": heavy, "seen": seen}))
"""


def importing(module: str, targets: Sequence[str]) -> str:
    """Importing the table is quick and loads no torch; importing everything opens no connection and writes no file."""
    seen = probe(module, targets)
    budget = f"budget {IMPORT_BUDGET:g} s"
    told = f"the table takes {seen['table']:.2f} s ({budget}), with its components {seen['whole']:.2f} s"
    for what, detail, where in seen["seen"]:
        doing = "opens a connection" if what == "network" else "writes a file"
        raise Breach(f"importing {doing}: {detail}", f"move it into __init__ or the first call ({where})")
    if seen["torch"]:
        raise Breach("the table module imports torch", "import it only in the modules that the targets name")
    if seen["table"] > IMPORT_BUDGET:
        raise Breach(told, "import what is heavy only in the modules that the targets name")
    return told


def probe(module: str, targets: Sequence[str]) -> dict[str, Any]:
    """Import ``module``, then each of ``targets``, under an audit hook. Raises Breach when that fails."""
    command = [sys.executable, "-P", "-c", PROBE, module, json.dumps(list(targets)), json.dumps(sys.path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except subprocess.TimeoutExpired as error:
        raise Breach(f"importing {module} takes more than {TIMEOUT:g} s", "do the work later, not at import") from error
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise Breach(f"importing {module} fails: {last[0]}", f"run: python -c 'import {module}'")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found
