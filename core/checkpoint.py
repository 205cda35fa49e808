"""Checkpoints on disk: safetensors for arrays, JSON for the rest, no pickle, atomic.

A checkpoint is a folder that appears by one rename, so a kill at any instant leaves the last good one. What a kill
leaves half-written or half-removed is called ``.writing-*`` or ``.removing-*``; the next save takes it away. Checksums
in ``checkpoint.json`` tell a damaged file from a whole one.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from agentctl.core.errors import AgentctlError
from agentctl.core.types import Array, Arrays, Snapshot

CONTENTS = "checkpoint.json"
NAME = re.compile(r"step-(\d+)(?:\.(\d+))?")


def write_checkpoint(folder: Path, step: int, parts: Mapping[str, Snapshot], keep: int) -> Path:
    """Write ``folder/step-<step>`` atomically and remove all but the ``keep`` latest. Returns its path.

    Raises AgentctlError when the disk is full or not writable, and TypeError naming what cannot be written.
    """
    writing = folder / f".writing-{step}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        return _appear(writing, _free_name(folder, step), parts, keep)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(writing, ignore_errors=True)
        raise AgentctlError(
            f"{folder}: cannot write the checkpoint of step {step}: {error}; make room there, then resume: "
            "what was saved before is untouched"
        ) from error


def list_checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints, oldest first."""
    return sorted((path for path in folder.glob("step-*") if NAME.fullmatch(path.name)), key=_age)


def latest_checkpoint(run: Path) -> Path:
    """The newest checkpoint of a run's folder (or the folder itself when it is one). Raises AgentctlError."""
    if run.name.startswith("step-") and run.is_dir():
        return run
    found = list_checkpoints(run / "checkpoints")
    if not found:
        raise AgentctlError(
            f"{run}: no checkpoint there; a run's folder holds checkpoints/step-... (one that was stopped even before "
            "its first can be started again with --out)"
        )
    return found[-1]


def read_checkpoint(path: Path, only: Collection[str] | None = None) -> dict[str, Snapshot]:
    """The snapshots by part, all or ``only`` these. Raises AgentctlError naming the file that is damaged or missing."""
    contents = _read_json(path / CONTENTS)
    names = [name for name in contents["parts"] if only is None or name in only]
    return {name: _read_part(path, name, contents["parts"][name]) for name in names}


def write_json(path: Path, data: Any) -> None:
    """Write JSON atomically."""
    writing = path.with_name(f".{path.name}.writing")
    writing.write_text(json.dumps(data, indent=1, default=str) + "\n", encoding="utf-8")
    writing.replace(path)


def _appear(writing: Path, target: Path, parts: Mapping[str, Snapshot], keep: int) -> Path:
    """Write everything aside, flush it to the disk, and only then give it its name."""
    writing.mkdir()
    contents = {"step": _age(target)[0], "parts": {name: _write_part(writing, name, s) for name, s in parts.items()}}
    (writing / CONTENTS).write_text(json.dumps(contents, indent=1), encoding="utf-8")
    for file in [*writing.iterdir(), writing]:
        _sync(file)
    writing.rename(target)
    _sync(target.parent)
    for old in list_checkpoints(target.parent)[:-keep]:
        old.rename(old.with_name(f".removing-{old.name}"))
    _sweep(target.parent)
    return target


def _write_part(folder: Path, name: str, snapshot: Snapshot) -> dict[str, int]:
    """Write one part's two files. Returns their checksums."""
    arrays = {key: np.ascontiguousarray(value).reshape(np.shape(value)) for key, value in snapshot.arrays.items()}
    for key, array in arrays.items():
        if array.dtype.kind not in "biuf":
            raise TypeError(f"{name}: the array {key!r} is of {array.dtype}; a checkpoint holds numbers and booleans")
    try:
        text = json.dumps(snapshot.data)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: its data is not plain JSON: {error}") from error
    save_file(arrays, folder / f"{name}.safetensors")
    (folder / f"{name}.json").write_text(text, encoding="utf-8")
    return {"arrays": _checksum(arrays), "data": zlib.crc32(text.encode())}


def _read_part(folder: Path, name: str, checksums: Mapping[str, int]) -> Snapshot:
    file = folder / f"{name}.safetensors"
    try:
        arrays = load_file(file)
    except (OSError, SafetensorError) as error:
        raise _damaged(file, error) from error
    if _checksum(arrays) != checksums["arrays"]:
        raise _damaged(file, "its checksum is wrong")
    return Snapshot(arrays, _read_json(folder / f"{name}.json", checksums["data"]))


def _read_json(file: Path, checksum: int | None = None) -> Any:
    try:
        content = file.read_bytes()
        if checksum is not None and zlib.crc32(content) != checksum:
            raise ValueError("its checksum is wrong")
        return json.loads(content)
    except (OSError, ValueError) as error:
        raise _damaged(file, error) from error


def _damaged(file: Path, what: object) -> AgentctlError:
    return AgentctlError(
        f"{file}: damaged checkpoint: {what}; remove the folder {file.parent} to go on from the checkpoint before it"
    )


def _checksum(arrays: Arrays) -> int:
    """CRC-32 over names, shapes, dtypes and content."""
    crc = 0
    for key in sorted(arrays):
        array: Array = np.ascontiguousarray(arrays[key])
        crc = zlib.crc32(f"{key} {arrays[key].shape} {array.dtype.name}".encode(), crc)
        crc = zlib.crc32(array.reshape(-1).view(np.uint8).data, crc)
    return crc


def _age(checkpoint: Path) -> tuple[int, int]:
    """``step-000000001000.2``, the third of that step, is (1000, 2): what sorts checkpoints."""
    found = NAME.fullmatch(checkpoint.name)
    assert found is not None, checkpoint
    return int(found[1]), int(found[2] or 0)


def _free_name(folder: Path, step: int) -> Path:
    """``step-<step>``, or ``step-<step>.1`` where that stands already: none goes before its successor is there."""
    same = [again for at, again in map(_age, list_checkpoints(folder)) if at == step]
    return folder / (f"step-{step:012d}.{same[-1] + 1}" if same else f"step-{step:012d}")


def _sweep(folder: Path) -> None:
    """Take away what a kill left behind, and what is to be removed."""
    for pattern in (".writing-*", ".removing-*"):
        for stale in folder.glob(pattern):
            shutil.rmtree(stale)


def _sync(path: Path) -> None:
    """Flush a file, or a folder's entries where the system allows it, to the disk."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
