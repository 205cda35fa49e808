"""What a run shows in the terminal: a live view, or a plain line every few seconds where there is no terminal."""

from __future__ import annotations

import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from agentctl.core.hooks import hookimpl
from agentctl.core.run import Evaluation, Observer, Progress, Run
from agentctl.core.types import Metrics, Transition
from agentctl.plugins.observe import Pace
from agentctl.plugins.observe.figures import UNKNOWN, duration, name_of, number

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

REFRESH_INTERVAL = 0.25  # s, in a terminal
LINE_INTERVAL = 5.0  # s, elsewhere
MAIN_METRICS = 3


@hookimpl(tryfirst=True)  # so that it also shows what other plugins announce while they start
def agentctl_run_started(run: Run) -> None:
    if run.quiet or run.folder is None:
        return
    run.observers.append(ProgressView(run, open_screen()))


@hookimpl(trylast=True)  # so that the report it names is written
def agentctl_run_ended(run: Run) -> None:
    for observer in run.observers:
        if isinstance(observer, ProgressView):
            observer.close()


@dataclass(slots=True)
class Status:
    """What there is to show."""

    title: str
    step: int
    steps: int  # 0: unknown
    progress: Progress | None = None
    evaluation: Evaluation | None = None


class Screen(Protocol):
    """Where a status is shown, at its own pace."""

    pace: Pace

    def show(self, status: Status) -> None: ...

    def say(self, text: str) -> None:
        """Leave a line that stays."""

    def close(self, summary: dict[str, str]) -> None:
        """Leave what the run came to, and give the screen back."""


class ProgressView(Observer):
    """Keeps the status of a run and passes it to the screen when its time has come."""

    def __init__(self, run: Run, screen: Screen) -> None:
        self._run = run
        self._screen = screen
        title = f"{name_of(run.config.get('game'))} · {name_of(run.config.get('policy'))}"
        steps = (run.config.get("run") or {}).get("steps") or 0
        self._status = Status(title, 0, steps)

    def stepped(self, transition: Transition) -> None:
        """Counts on between two reports, so that a run that gathers experience before it learns shows life."""
        self._status.step += len(transition.reward)
        self._draw()

    def learned(self, progress: Progress) -> None:
        self._status.progress = progress
        self._status.step, self._status.steps = progress.step, progress.steps
        self._draw()

    def evaluated(self, evaluation: Evaluation) -> None:
        self._status.evaluation = evaluation
        self._screen.say(f"evaluation at step {evaluation.step:,}: {evaluation_text(evaluation)}")

    def event(self, kind: str, text: str) -> None:
        self._screen.say(f"{kind}: {text}")

    def close(self) -> None:
        self._screen.close(summary_texts(self._run))

    def _draw(self) -> None:
        if self._screen.pace.due():
            self._screen.show(self._status)


class LiveScreen:
    """Redraws a few lines at the bottom of the terminal; no thread, so it only costs time when something is drawn."""

    def __init__(self, console: Console) -> None:
        from rich.live import Live

        self.pace = Pace(REFRESH_INTERVAL)
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._live.start()

    def show(self, status: Status) -> None:
        self._live.update(live_view(status), refresh=True)

    def say(self, text: str) -> None:
        self._console.print(text, markup=False)

    def close(self, summary: dict[str, str]) -> None:
        self._live.stop()
        self._console.print(two_columns(summary))


class PlainScreen:
    """Prints a line now and then: for log files, pipes and continuous integration."""

    def __init__(self, console: Console) -> None:
        self.pace = Pace(LINE_INTERVAL)
        self.pace.due()  # the first line after one interval
        self._console = console

    def show(self, status: Status) -> None:
        self.say(" | ".join(f"{name} {text}" for name, text in figure_texts(status).items()))

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self, summary: dict[str, str]) -> None:
        for name, text in summary.items():
            self.say(f"{name:<18}{text}")


def open_screen() -> Screen:
    """A live view when standard output and standard error are both a terminal, plain lines otherwise."""
    from rich.console import Console

    console = Console(file=sys.stdout)
    if console.is_terminal and not console.is_dumb_terminal and sys.stderr.isatty():
        return LiveScreen(console)
    return PlainScreen(console)


def live_view(status: Status) -> Table:
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    view = Table.grid(expand=True)
    view.add_row(Text(status.title, style="bold"))
    view.add_row(ProgressBar(total=status.steps or None, completed=status.step))
    view.add_row(two_columns(figure_texts(status)))
    return view


def two_columns(texts: dict[str, str]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for name, text in texts.items():
        table.add_row(Text(name, style="dim"), Text(text, overflow="fold"))
    return table


def figure_texts(status: Status) -> dict[str, str]:
    """The rows of the view by name; those of which nothing is known yet are absent."""
    texts = {"step": position_text(status)}
    progress = status.progress
    if progress is not None:
        left = duration(seconds_left(status, progress))
        texts["speed"] = f"{number(progress.steps_per_second)} steps/s, cycle {progress.cycle}, {left} left"
        texts["return"] = f"{number(progress.return_mean)} in training"
    if status.evaluation is not None:
        texts["evaluation"] = evaluation_text(status.evaluation)
    if progress is not None and progress.metrics:
        main = main_metrics(progress.metrics)
        texts["learning"] = ", ".join(f"{name} {number(value)}" for name, value in main.items())
    texts["memory"] = f"{number(resident_gib())} GiB"
    return texts


def position_text(status: Status) -> str:
    """``12,000 of 100,000 (12%)``."""
    if not status.steps:
        return f"{status.step:,}"
    return f"{status.step:,} of {status.steps:,} ({100 * status.step // status.steps}%)"


def seconds_left(status: Status, progress: Progress) -> float:
    return (status.steps - status.step) / progress.steps_per_second if progress.steps_per_second > 0 else math.nan


def evaluation_text(evaluation: Evaluation) -> str:
    return f"{number(evaluation.return_mean)} (random policy {number(evaluation.return_random)})"


def main_metrics(metrics: Metrics) -> Metrics:
    """The first few, losses before anything else."""
    names = sorted(metrics, key=lambda name: "loss" not in name)[:MAIN_METRICS]
    return {name: metrics[name] for name in names}


def resident_gib() -> float:
    """Memory that this process holds, in GiB; NaN where the system does not say (only Linux does, in /proc)."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return math.nan
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**30


def summary_texts(run: Run) -> dict[str, str]:
    """What the run came to, how fast, and where it lies."""
    progress = run.progress
    last = run.evaluations[-1] if run.evaluations else None
    texts = {
        "return": number(last.return_mean) if last else UNKNOWN,
        "random policy": number(last.return_random) if last else UNKNOWN,
        "steps": f"{progress.step:,}" if progress else UNKNOWN,
        "seconds": number(progress.seconds) if progress else UNKNOWN,
        "steps per second": number(progress.steps_per_second) if progress else UNKNOWN,
        "run": str(run.folder),
    }
    report = run.folder / "report.html" if run.folder else None
    return {**texts, "report": str(report)} if report and report.exists() else texts
