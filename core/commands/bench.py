"""`agentctl bench NAME`: run a benchmark programme of the repository and write its result."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from agentctl.core.commands.output import print_table
from agentctl.core.errors import AgentctlError, did_you_mean

SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
"""Everything after NAME, `--help` too, is the programme's."""


def bench(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="a programme of benchmarks/, e.g. ppo-atari")] = "",
) -> None:
    """Run benchmarks/NAME.py, which writes benchmarks/results/NAME.json; without a NAME, list them."""
    folder = Path(__file__).resolve().parents[2] / "benchmarks"
    programmes = {path.stem.replace("_", "-"): path for path in folder.glob("[a-z]*.py")}
    if not programmes:
        raise AgentctlError("benchmarks stand in agentctl's repository; run this from a clone (pip install -e .)")
    if not name or name.startswith("-"):
        print_table(["benchmark", "what it measures"], [[n, _summary(path)] for n, path in sorted(programmes.items())])
        return
    if name not in programmes:
        raise AgentctlError(f"no benchmark is called {name!r}{did_you_mean(name, programmes)}")
    done = subprocess.run([sys.executable, str(programmes[name]), *context.args], check=False)
    raise typer.Exit(done.returncode)


def _summary(path: Path) -> str:
    """The first line of a programme's docstring."""
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]
