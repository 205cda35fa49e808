"""``metrics.jsonl``: what happened in a run, one JSON object per line, in the order in which it happened.

Each line has ``event``, ``step`` (game steps over all rows) and ``seconds`` (over all sessions of a resumed run), and

- ``learn``, ``checkpoint``: ``return_mean``, ``steps_per_second``, ``metrics``, ``terms`` as in :class:`Progress`,
- ``evaluation``: the fields of :class:`Evaluation`, with ``return_mean`` and ``return_random``,
- ``event``: ``kind`` and ``text``.

Learning steps are thinned to four lines a second; the last one of a cycle always stays. NaN and infinity are null.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from agentctl.core.hooks import hookimpl
from agentctl.core.run import Evaluation, Observer, Progress, Run
from agentctl.plugins.observe import Pace, resume_step

FILE = "metrics.jsonl"
LINE_INTERVAL = 0.25
"""Seconds between two lines of learning steps."""


@hookimpl(tryfirst=True)  # so that it also sees what other plugins announce while they start
def agentctl_run_started(run: Run) -> None:
    if run.folder is not None:
        run.observers.append(MetricsFile(run.folder / FILE, resume_step(run), run.progress))


@hookimpl(tryfirst=True)  # so that the report finds the last line
def agentctl_run_ended(run: Run) -> None:
    for observer in run.observers:
        if isinstance(observer, MetricsFile):
            observer.close()


class MetricsFile(Observer):
    """Appends to ``path``. Once it is trained on, lines beyond the step ``resume`` go: they are lived again.

    ``resumed`` is where the run then stands: a kill may have come between a checkpoint and its line.
    """

    def __init__(self, path: Path, resume: int, resumed: Progress | None = None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._step = self._resume = resume
        self._resumed = resumed
        self._training = False
        self._seconds = self._seconds_before = 0.0
        self._held: Progress | None = None  # reported, not yet written
        self._cycle = 0
        self._pace = Pace(LINE_INTERVAL)
        self._file = open_at_line_start(self._path)

    def learned(self, progress: Progress) -> None:
        if progress.cycle != self._cycle:
            self._release()
        self._reach(progress)
        self._held = progress
        if self._pace.due():
            self._release()

    def evaluated(self, evaluation: Evaluation) -> None:
        self._release()
        self._step = evaluation.step
        self._write("evaluation", evaluation_fields(evaluation))

    def saved(self, checkpoint: Path, progress: Progress) -> None:
        self._release()
        self._reach(progress)
        self._write("checkpoint", progress_fields(progress))

    def event(self, kind: str, text: str) -> None:
        self._release()
        self._write("event", {"kind": kind, "text": text})

    def close(self) -> None:
        self._release()
        self._file.close()

    def _reach(self, progress: Progress) -> None:
        if not self._training:  # not before: another process may only evaluate what this folder's run still writes
            self._training = True
            self._file.close()
            self._seconds_before = drop_after(self._path, self._resume)
            self._file = open_at_line_start(self._path)
            if self._resumed and self._resume and not has_checkpoint(self._path, self._resume):
                self._step, self._seconds = self._resume, self._seconds_before
                self._write("checkpoint", progress_fields(self._resumed))
        self._step, self._cycle = progress.step, progress.cycle
        self._seconds = self._seconds_before + progress.seconds

    def _release(self) -> None:
        if self._held is not None:
            self._write("learn", progress_fields(self._held))
            self._held = None

    def _write(self, event: str, fields: dict[str, Any]) -> None:
        line = {"event": event, "step": self._step, "seconds": round(self._seconds, 3), **fields}
        self._file.write(json.dumps(finite(line), allow_nan=False) + "\n")


def open_at_line_start(path: Path) -> TextIO:
    """Open to append lines, after whatever part of one a crash left behind."""
    with path.open("ab+") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        if file.read(1) not in (b"\n", b""):
            file.write(b"\n")
    return path.open("a", buffering=1, encoding="utf-8")


def progress_fields(progress: Progress) -> dict[str, Any]:
    return {
        "cycle": progress.cycle,
        "episodes": progress.episodes,
        "return_mean": progress.return_mean,
        "steps_per_second": progress.steps_per_second,
        "metrics": progress.metrics,
        "terms": progress.terms,
    }


def evaluation_fields(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "return_mean": evaluation.return_mean,
        "return_random": evaluation.return_random,
        "returns": evaluation.returns,
        "lengths": evaluation.lengths,
        "random_returns": evaluation.random_returns,
        "terms": evaluation.terms,
        "tables": {title: asdict(table) for title, table in evaluation.tables.items()},
    }


def finite(value: Any) -> Any:
    """The same value as JSON knows it: numpy numbers become Python's, NaN and infinity None."""
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if value is None or isinstance(value, str | bool | int):
        return value
    number = float(value)
    return number if math.isfinite(number) else None


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a run, oldest first; a line that a crash cut short is left out."""
    with path.open(encoding="utf-8") as file:
        for text in file:
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict) and "event" in line and "step" in line:
                yield line


def has_checkpoint(path: Path, step: int) -> bool:
    """Whether there is a line of the checkpoint of this step."""
    return any((line["event"], line["step"]) == ("checkpoint", step) for line in read_lines(path))


def drop_after(path: Path, step: int) -> float:
    """Drop the lines beyond ``step``, which a resumed run lives again. Returns the seconds that had passed by then."""
    seconds = 0.0
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as file:
        for line in read_lines(path):
            if line["step"] <= step:
                file.write(json.dumps(line) + "\n")
                seconds = max(seconds, line.get("seconds") or 0.0)
    os.replace(partial, path)
    return seconds
