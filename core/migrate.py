"""Carry an older YAML to this version; its comments, order and line endings stay."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from agentctl.core.document import Document, parse_document, read_document
from agentctl.core.errors import AgentctlError, ConfigError
from agentctl.core.frame import VERSION, check_version


def migrated(path: Path) -> tuple[str, str]:
    """The file's text before and after; the same when there is nothing to do. Raises ConfigError for a newer file."""
    document = read_document(path)
    text = path.read_bytes().decode("utf-8-sig")
    check_version(document)
    if "version" in document.data:
        return text, text
    after = _with_version(text)
    if not _says(after, {"version": VERSION, **document.data}, path):
        raise ConfigError(f"{path}: cannot be migrated as it is written; add 'version: {VERSION}' to it yourself")
    return text, after


def replace_file(path: Path, before: str, after: str) -> Path:
    """Write ``after`` in one step, ``before`` beside it as ``.bak``. Returns its path; raises AgentctlError."""
    path = path.resolve()  # a link stays a link
    backup = path.with_name(f"{path.name}.bak")
    try:
        _write(backup, before, path)
        _write(path, after, path)
    except OSError as error:
        raise AgentctlError(f"{path}: cannot be written: {error.strerror}") from error
    return backup


def _write(target: Path, text: str, like: Path) -> None:
    """Write the whole of ``text`` or nothing, readable by whom ``like`` is."""
    writing = target.with_name(f".{target.name}.writing")
    try:
        writing.write_bytes(text.encode("utf-8"))
        shutil.copymode(like, writing)
        os.replace(writing, target)
    finally:
        writing.unlink(missing_ok=True)


def _with_version(text: str) -> str:
    """Version 1 was the first to be written down: files from before lack only the key."""
    lines = text.splitlines(keepends=True)
    skipped = ("#", "---", "%")
    start = next((i for i, line in enumerate(lines) if line.strip() and not line.lstrip().startswith(skipped)), 0)
    ending = "\r\n" if lines[start].endswith("\r\n") else "\n"
    return "".join([*lines[:start], f"version: {VERSION}{ending}", *lines[start:]])


def _says(text: str, data: dict[str, object], path: Path) -> bool:
    try:
        found: Document = parse_document(text, path)
    except ConfigError:
        return False
    return found.data == data
