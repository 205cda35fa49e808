"""``report.html``: a run on one page that opens anywhere, without a network and without scripts."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

from agentctl.core.hooks import hookimpl
from agentctl.core.run import Run
from agentctl.plugins.observe.figures import name_of
from agentctl.plugins.observe.history import History
from agentctl.plugins.observe.metrics import FILE as METRICS
from agentctl.plugins.observe.metrics import read_lines
from agentctl.plugins.observe.recorder import video_path

FILE = "report.html"


@hookimpl
def agentctl_run_ended(run: Run, error: BaseException | None) -> None:
    if run.folder is not None:
        write_report(run, run.folder, error)


def write_report(run: Run, folder: Path, error: BaseException | None) -> Path:
    """Tell what ``folder`` and ``run`` know of it; the file appears only when it is complete. Returns its path."""
    from agentctl.plugins.observe import page

    metrics = folder / METRICS
    history = History.of(read_lines(metrics) if metrics.exists() else ())
    history.evaluations = {evaluation.step: evaluation for evaluation in run.evaluations} | history.evaluations
    if run.progress:
        history.step = max(history.step, run.progress.step)
        history.seconds = max(history.seconds, run.progress.seconds)
    video_step, video = last_video(folder, history)
    text = page.render(
        page.Report(
            game=name_of(run.config.get("game")),
            agent=name_of(run.config.get("policy")),
            run=folder.name,
            written=datetime.now().astimezone().strftime("%d %B %Y, %H:%M"),
            config=run.config,
            lock={name: value for name, value in run.lock.items() if name != "config"},
            history=history,
            failure=explain(run, error),
            video=video,
            video_step=video_step,
        )
    )
    partial = folder / f".{FILE}.partial"
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, folder / FILE)
    return folder / FILE


def last_video(folder: Path, history: History) -> tuple[int, bytes]:
    """The newest evaluation that has a video: its step and the file's content, or nothing."""
    for step, evaluation in sorted(history.evaluations.items(), reverse=True):
        path = evaluation.video or video_path(folder, step)
        if path.exists():
            return step, path.read_bytes()
    return 0, b""


def explain(run: Run, error: BaseException | None) -> str:
    """What ended the run early, ``ValueError: what it says``; empty when it came to its end."""
    if isinstance(error, KeyboardInterrupt) or run.summary.get("stopped"):
        return "stopped by the user"
    return f"{type(error).__name__}: {error}" if error else ""
