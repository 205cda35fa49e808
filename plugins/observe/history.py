"""What ``metrics.jsonl`` tells of a run, read back: curves, evaluations and events, also from before a resume."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from agentctl.core.run import Evaluation
from agentctl.core.types import Table


@dataclass(slots=True)
class Curve:
    """Values over game steps, equally long; arrays of float64, because a long run has many points."""

    steps: array[float] = field(default_factory=lambda: array("d"))
    values: array[float] = field(default_factory=lambda: array("d"))


@dataclass(slots=True)
class Event:
    step: int
    kind: str
    text: str


@dataclass(slots=True)
class History:
    """A run from its first line on."""

    step: int = 0
    seconds: float = 0.0
    curves: dict[str, Curve] = field(default_factory=dict)  # return_mean, steps_per_second, metrics.*, terms.*
    evaluations: dict[int, Evaluation] = field(default_factory=dict)  # by step
    events: list[Event] = field(default_factory=list)

    @classmethod
    def of(cls, lines: Iterable[dict[str, Any]]) -> History:
        history = cls()
        for line in lines:
            history._add(line)
        return history

    def last(self, curve: str) -> float:
        """The last value of a curve; NaN without one."""
        return self.curves[curve].values[-1] if curve in self.curves else math.nan

    def group(self, prefix: str) -> dict[str, Curve]:
        """The curves called ``prefix.*``, without the prefix."""
        start = f"{prefix}."
        return {name.removeprefix(start): curve for name, curve in self.curves.items() if name.startswith(start)}

    def _add(self, line: dict[str, Any]) -> None:
        self.step = max(self.step, line["step"])
        self.seconds = max(self.seconds, line.get("seconds") or 0.0)
        match line["event"]:
            case "learn":
                self._add_progress(line, {"metrics": line.get("metrics"), "terms": line.get("terms")})
            case "checkpoint":  # its terms are means over the few steps since the last learning step
                self._add_progress(line, {})
            case "evaluation":
                self.evaluations[line["step"]] = evaluation_of(line)
            case "event":
                self.events.append(Event(line["step"], str(line.get("kind")), str(line.get("text"))))

    def _add_progress(self, line: dict[str, Any], groups: dict[str, Any]) -> None:
        values = {name: line.get(name) for name in ("return_mean", "steps_per_second")}
        for group, members in groups.items():
            values |= {f"{group}.{name}": value for name, value in (members or {}).items()}
        for name, value in values.items():
            if value is not None:
                curve = self.curves.setdefault(name, Curve())
                curve.steps.append(line["step"])
                curve.values.append(value)


def evaluation_of(line: dict[str, Any]) -> Evaluation:
    """An evaluation from its line; null, which stands for what JSON has no number for, becomes NaN."""
    return Evaluation(
        step=line["step"],
        returns=[number_or_nan(value) for value in line["returns"]],
        lengths=line["lengths"],
        random_returns=[number_or_nan(value) for value in line["random_returns"]],
        terms={name: number_or_nan(value) for name, value in line["terms"].items()},
        tables={title: table_of(table) for title, table in line.get("tables", {}).items()},
    )


def table_of(line: dict[str, Any]) -> Table:
    rows = {name: [number_or_nan(value) for value in values] for name, values in line["rows"].items()}
    return Table(line["columns"], rows, line["shares"])


def number_or_nan(value: float | None) -> float:
    return math.nan if value is None else value
