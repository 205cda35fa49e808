"""`agentctl bench NAME`: run a benchmark programme of the repository and write its result."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from agentctl.core.errors import AgentctlError, did_you_mean


def bench(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="a programme of benchmarks/, e.g. ppo-atari")] = "",
) -> None:
    """Run benchmarks/NAME.py with the given options and write benchmarks/results/NAME.json."""
    folder = Path(__file__).resolve().parents[2] / "benchmarks"
    programmes = {path.stem.replace("_", "-"): path for path in folder.glob("*.py") if not path.stem.startswith("_")}
    if not programmes:
        raise AgentctlError("benchmarks stand in agentctl's repository; run this from a clone (pip install -e .)")
    if name not in programmes:
        raise AgentctlError(f"no benchmark is called {name!r}{did_you_mean(name, programmes)}")
    done = subprocess.run([sys.executable, str(programmes[name]), *context.args], check=False)
    raise typer.Exit(done.returncode)
