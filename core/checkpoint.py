"""Checkpoints on disk: safetensors for arrays, JSON for the rest, no pickle, atomic.

A checkpoint is a folder that appears by one rename, so a kill at any instant leaves the last good one. Half-written
folders (``.writing-*``) are removed by the next save.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from agentctl.core.errors import AgentctlError
from agentctl.core.types import Snapshot


def write_checkpoint(folder: Path, step: int, parts: Mapping[str, Snapshot], keep: int) -> Path:
    """Write ``folder/step-<step>`` atomically and remove all but the ``keep`` latest."""
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob(".writing-*"):
        shutil.rmtree(stale)
    writing = folder / f".writing-{step}"
    writing.mkdir()
    for name, snapshot in parts.items():
        _write_part(writing, name, snapshot)
    _sync(writing)
    target = folder / f"step-{step:012d}"
    if target.exists():
        target.rename(folder / f".writing-{step}-replaced")
    writing.rename(target)
    _sync(folder)
    for old in [*list_checkpoints(folder)[:-keep], *folder.glob(".writing-*")]:
        shutil.rmtree(old)
    return target


def list_checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints, oldest first."""
    return sorted(folder.glob("step-*"))


def latest_checkpoint(run: Path) -> Path:
    """The newest checkpoint of a run's folder (or the folder itself when it is one). Raises AgentctlError."""
    if run.name.startswith("step-") and run.is_dir():
        return run
    found = list_checkpoints(run / "checkpoints")
    if not found:
        raise AgentctlError(f"{run}: no checkpoint there; a run's folder holds checkpoints/step-...")
    return found[-1]


def read_checkpoint(path: Path) -> dict[str, Snapshot]:
    """Every part's snapshot by name. Raises AgentctlError naming the damaged file."""
    return {file.stem: _read_part(file) for file in sorted(path.glob("*.json"))}


def write_json(path: Path, data: Any) -> None:
    """Write JSON atomically."""
    writing = path.with_name(f".{path.name}.writing")
    writing.write_text(json.dumps(data, indent=1, default=str) + "\n", encoding="utf-8")
    writing.replace(path)


def _write_part(folder: Path, name: str, snapshot: Snapshot) -> None:
    arrays = {key: np.ascontiguousarray(value).reshape(np.shape(value)) for key, value in snapshot.arrays.items()}
    save_file(arrays, folder / f"{name}.safetensors")
    text = json.dumps(snapshot.data, allow_nan=True)
    (folder / f"{name}.json").write_text(text, encoding="utf-8")
    for suffix in (".safetensors", ".json"):
        _sync(folder / f"{name}{suffix}")


def _read_part(file: Path) -> Snapshot:
    arrays = file.with_suffix(".safetensors")
    try:
        return Snapshot(load_file(arrays), json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, SafetensorError) as error:
        remedy = "remove that checkpoint folder to resume from the one before it"
        raise AgentctlError(f"{file.with_suffix('')}: damaged checkpoint: {error}; {remedy}") from error


def _sync(path: Path) -> None:
    """Flush a file, or a folder's entries where the system allows it, to the disk."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
