"""Runs for tests: in this process and in others, and how to compare what they leave."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import yaml as pyyaml
from safetensors.numpy import load_file

from agentctl.core.assembly import assemble
from agentctl.core.checkpoint import list_checkpoints
from agentctl.core.config import Composition, compose_document
from agentctl.core.document import Document
from agentctl.core.loop import Loop
from agentctl.core.plugins import Switches
from agentctl.core.run import Run

ROOT = Path(__file__).resolve().parent.parent
QUIET = ("metrics", "progress", "tensorboard", "recorder", "report")


def composed(data: dict[str, Any]) -> Composition:
    return compose_document(Document(None, data), Switches(disable=frozenset(QUIET)))


def loop_of(data: dict[str, Any], folder: Path | None = None) -> Loop:
    """The loop of a run that nobody watches."""
    return Loop(assemble(composed(data)), Run(folder, {}, {}, quiet=True))


def written(data: dict[str, Any], folder: Path) -> Path:
    """``data`` as a YAML file."""
    path = folder / "run.yaml"
    path.write_text(pyyaml.safe_dump(data))
    return path


def agentctl(*arguments: str | Path) -> list[str]:
    """The command line of a run that writes nothing but its checkpoints and metrics."""
    observers = [word for name in QUIET if name != "metrics" for word in ("-p", f"no:{name}")]
    words = [str(word) for word in arguments]
    return [sys.executable, "-m", "agentctl.core.cli", *words, *(observers if words[0] == "run" else [])]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def call(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        agentctl(*arguments), capture_output=True, text=True, timeout=120, env=environment(), cwd=ROOT
    )


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(agentctl(*arguments), stdout=pipe, stderr=pipe, text=True, env=environment(), cwd=ROOT)


def wait_for_checkpoint(process: subprocess.Popen[str], run: Path, after: int = 0, seconds: float = 60) -> None:
    """Until ``run`` has a checkpoint beyond step ``after``, or the process has ended."""
    limit = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < limit:
        if any(step_of(path) > after for path in list_checkpoints(run / "checkpoints")):
            return
        time.sleep(0.002)
    assert process.poll() is not None, f"no checkpoint after {seconds} s"


def step_of(checkpoint: Path) -> int:
    """From its name: a running game may remove an old checkpoint between its listing and its reading."""
    return int(checkpoint.name.removeprefix("step-").partition(".")[0])


def latest(run: Path) -> Path:
    return list_checkpoints(run / "checkpoints")[-1]


def kill_and_resume(first: Iterable[str | Path], run: Path, kills: int, within: float, seed: int = 0) -> int:
    """Start a run, kill it (SIGKILL) ``kills`` times up to ``within`` s after a new checkpoint, and let it finish.

    Returns how many of the kills hit it alive.
    """
    chance, arguments, hits = random.Random(seed), list(first), 0
    for _ in range(kills):
        done = step_of(latest(run)) if (run / "checkpoints").exists() else 0
        process = start(*arguments)
        wait_for_checkpoint(process, run, after=done)
        time.sleep(chance.uniform(0, within))
        process.send_signal(signal.SIGKILL)
        _, errors = process.communicate(timeout=30)
        assert process.returncode in (-signal.SIGKILL, 0), errors
        hits += process.returncode != 0
        arguments = ["run", "--resume", run, "--json"]
    finished = call(*arguments)
    assert finished.returncode == 0, finished.stderr
    return hits


def contents(checkpoint: Path) -> dict[str, Any]:
    """Everything in a checkpoint: arrays as (dtype, shape, bytes), JSON as it is."""
    found: dict[str, Any] = {}
    for file in sorted(checkpoint.iterdir()):
        if file.suffix == ".json":
            found[file.name] = json.loads(file.read_text())
        else:
            for name, array in load_file(file).items():
                found[f"{file.name}:{name}"] = (array.dtype, array.shape, np.ascontiguousarray(array).tobytes())
    return found


def differing(one: Path, other: Path) -> list[str]:
    """The names of what differs between two checkpoints."""
    left, right = contents(one), contents(other)
    return [name for name in sorted(left.keys() | right.keys()) if left.get(name) != right.get(name)]
