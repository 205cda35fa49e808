"""Writing and reading `benchmarks/results/*.json`, one file per benchmark, in the shape that docs/DESIGN promises."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number. ``goal`` is as in the issue that asked for it: ``(">=", 475)``."""

    name: str
    value: float
    unit: str
    baseline: tuple[str, float] | None = None  # the trivial alternative, always beside a learning figure
    goal: tuple[str, float] | None = None
    seeds: tuple[int, ...] = ()
    interval: tuple[float, float] | None = None  # over the seeds: lowest and highest
    notes: str = ""

    def row(self) -> dict[str, Any]:
        data = asdict(self)
        data["baseline"] = None if self.baseline is None else dict(zip(("name", "value"), self.baseline, strict=True))
        data["goal"] = None if self.goal is None else f"{self.goal[0]} {self.goal[1]:g}"
        data["met"] = self.met
        return data

    @property
    def met(self) -> bool | None:
        if self.goal is None:
            return None
        sign, bound = self.goal
        return self.value >= bound if sign == ">=" else self.value <= bound


@dataclass(slots=True)
class Report:
    """A benchmark's figures, printed as they come and written at the end."""

    name: str
    figures: list[Figure] = field(default_factory=list)
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def add(self, figure: Figure) -> None:
        self.figures.append(figure)
        beside = f"   {figure.baseline[0]}: {figure.baseline[1]:.4g}" if figure.baseline else ""
        verdict = "" if figure.met is None else f"   goal {figure.row()['goal']}: {'met' if figure.met else 'MISSED'}"
        print(f"{figure.name:44} {figure.value:12.4g} {figure.unit}{beside}{verdict}", flush=True)

    def write(self) -> Path:
        """``results/<name>.json``; a missed goal stays in the file as missed."""
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{self.name}.json"
        data: dict[str, Any] = {
            "name": self.name,
            "command": " ".join(["agentctl bench", Path(sys.argv[0]).stem.replace("_", "-"), *sys.argv[1:]]),
            "commit": git("rev-parse", "--short", "HEAD"),
            "date": datetime.date.today().isoformat(),
            "machine": machine(),
            "figures": [figure.row() for figure in self.figures],
        }
        if self.curves:
            data["curves"] = self.curves
        path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
        print(f"written: {path.relative_to(ROOT)}")
        return path


def over_seeds(name: str, values: Sequence[float], seeds: Sequence[int], unit: str, **more: Any) -> Figure:
    """The mean over seeds, with the lowest and highest as its interval."""
    mean = sum(values) / len(values)
    return Figure(name, mean, unit, seeds=tuple(seeds), interval=(min(values), max(values)), **more)


def run_agentctl(*arguments: str, out: Path) -> dict[str, Any]:
    """`agentctl run ... --json` in a process of its own; returns its last line."""
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, "-m", "agentctl.core.cli", "run", *arguments, "--out", str(out), "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed with {done.returncode}:\n{done.stderr}")
    summary: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return summary


def machine() -> str:
    """What the figures were measured on: processor, cores, Python, torch."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].partition(":")[2].strip() if lines else model
    return f"{len(os.sched_getaffinity(0))} cores of {model}, Python {platform.python_version()}"


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
