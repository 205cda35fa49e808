"""TensorBoard event files in the run's folder: ``tensorboard --logdir runs``.

Tags: ``return/{training,evaluation,random}``, ``learn/<metric>``, ``terms/<reward term>`` (mean per step),
``evaluation_terms/<reward term>`` (sum over an episode), ``speed/steps_per_second``; the x axis is the game step.
"""

from __future__ import annotations

import importlib.util
import math
import time
from pathlib import Path
from typing import Any

from agentctl.core.hooks import hookimpl
from agentctl.core.run import Evaluation, Observer, Progress, Run
from agentctl.plugins.observe import Pace, announce, resume_step

FOLDER = "tensorboard"
POINT_INTERVAL = 0.25
"""Seconds between two points of a curve."""


@hookimpl
def agentctl_run_started(run: Run) -> None:
    if run.folder is None:
        return
    if importlib.util.find_spec("tensorboardX") is None:
        announce(run, "tensorboard", "tensorboard is off: pip install 'game-agentctl[tensorboard]'")
        return
    run.observers.append(TensorBoard(run.folder / FOLDER, resume_step(run)))


@hookimpl
def agentctl_run_ended(run: Run) -> None:
    for observer in run.observers:
        if isinstance(observer, TensorBoard):
            observer.close()


class TensorBoard(Observer):
    """Writes curves to ``folder``. Once it is trained on, what lies beyond the step ``resume`` is hidden."""

    def __init__(self, folder: Path, resume: int) -> None:
        from tensorboardX import SummaryWriter

        self._folder = str(folder)
        self._resume = resume
        self._writer_class = SummaryWriter
        self._writer: Any = None
        self._pace = Pace(POINT_INTERVAL)

    def learned(self, progress: Progress) -> None:
        if not self._pace.due():
            return
        self._open(self._resume + 1 if self._resume else None)
        self._curves("learn", progress.metrics, progress.step)
        self._curves("terms", progress.terms, progress.step)
        self._curves("return", {"training": progress.return_mean}, progress.step)
        self._curves("speed", {"steps_per_second": progress.steps_per_second}, progress.step)

    def evaluated(self, evaluation: Evaluation) -> None:
        self._open(None)
        returns = {"evaluation": evaluation.return_mean, "random": evaluation.return_random}
        self._curves("return", returns, evaluation.step)
        self._curves("evaluation_terms", evaluation.terms, evaluation.step)
        self._writer.flush()

    def _open(self, purge_step: int | None) -> None:
        if self._writer is None:
            session = f".{time.time_ns()}"  # the file's own name counts in seconds, and two of one name are one
            self._writer = self._writer_class(
                self._folder, purge_step=purge_step, flush_secs=10, filename_suffix=session
            )

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _curves(self, group: str, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            if not math.isnan(value):
                self._writer.add_scalar(f"{group}/{name}", float(value), step)
