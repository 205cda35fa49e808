"""Line charts as SVG text. Pure functions: numbers in, markup out; colours are CSS classes of the page around it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

Points = Sequence[tuple[float, float]]
PIXELS_PER_POINT = 3
"""A curve with more points than this allows is drawn as means, before a band of where the values lie."""


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a chart, drawn in the page's CSS class ``style``."""

    name: str
    style: str  # training | evaluation | random | measure
    points: Points
    low: Points = ()  # the edges of a band around the points, at the same x; empty: no band
    high: Points = ()
    marked: bool = False  # a dot with its value at each point


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps the data interval ``low`` .. ``high`` onto the pixels ``start`` .. ``end``, linearly."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


@dataclass(frozen=True, slots=True)
class Plot:
    """Where a chart's plot area lies: the scale of each axis, and the values that get a tick."""

    x: Scale
    y: Scale
    x_ticks: Sequence[float]
    y_ticks: Sequence[float]


def series(name: str, style: str, steps: Sequence[float], values: Sequence[float], width: int) -> Series:
    """A curve for a chart of ``width`` pixels; a long one as means between their 10th and 90th percentile."""
    x, y = np.asarray(steps, np.float64), np.asarray(values, np.float64)
    shown = width // PIXELS_PER_POINT
    if len(x) <= shown:
        return Series(name, style, list(zip(x.tolist(), y.tolist(), strict=True)))
    at = [float(part.mean()) for part in np.array_split(x, shown)]
    parts = np.array_split(y, shown)
    low, middle, high = (
        list(zip(at, map(float, edge), strict=True))
        for edge in (
            [np.percentile(part, 10) for part in parts],
            [part.mean() for part in parts],
            [np.percentile(part, 90) for part in parts],
        )
    )
    return Series(name, style, middle, low=low, high=high)


def chart(label: str, lines: Sequence[Series], size: tuple[int, int], end: float) -> str:
    """An ``<svg>`` of the lines over the game steps 0 .. ``end``; ``label`` is what a screen reader says."""
    width, height = size
    plot = plot_area(lines, size, end)
    parts = [grid(plot), *(drawn(line, plot) for line in lines if line.points)]
    head = f'<svg class="chart" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img"'
    return f'{head} aria-label="{escape(label)}">{"".join(parts)}</svg>'


def plot_area(lines: Sequence[Series], size: tuple[int, int], end: float) -> Plot:
    """Scales that hold every value, with room for the labels of the ticks."""
    width, height = size
    values = [y for line in lines for part in (line.points, line.low, line.high) for _, y in part] or [0.0]
    y_low, y_high = widened(min(values), max(values))
    margin = (y_high - y_low) * 0.05
    y_ticks = ticks(y_low - margin, y_high + margin, max(2, height // 70))
    left = 14 + 7 * max(len(text) for text in tick_labels(y_ticks))
    return Plot(
        x=Scale(0.0, end or 1.0, left, width - 16),
        y=Scale(y_low - margin, y_high + margin, height - 24, 8),
        x_ticks=ticks(0.0, end or 1.0, max(2, (width - left) // 140)),
        y_ticks=y_ticks,
    )


def widened(low: float, high: float) -> tuple[float, float]:
    """The interval itself, or one around it where it is a single value."""
    if high > low:
        return low, high
    room = abs(low) * 0.1 or 1.0
    return low - room, high + room


def ticks(low: float, high: float, count: int) -> list[float]:
    """The multiples of 1, 2 or 5 times a power of ten between the two: ``count`` of them, up to 2.5 times as many."""
    most = (high - low) / count
    power = 10.0 ** math.floor(math.log10(most))
    step = max(factor * power for factor in (1, 2, 5) if factor * power <= most * (1 + 1e-9))
    return [index * step for index in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def tick_labels(values: Sequence[float]) -> list[str]:
    """Labels in one unit and with equally many decimals: ``0 0.5M 1.0M 1.5M``."""
    size = max(abs(value) for value in values)
    unit, letter = next((pair for pair in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if size >= pair[0]), (1.0, ""))
    if 0 < size < 1e-3:
        return [f"{value:.2g}" for value in values]
    step = min((b - a for a, b in zip(values, values[1:], strict=False)), default=size) or 1.0
    decimals = max(0, -math.floor(math.log10(step / unit) + 1e-9))
    return [f"{value / unit:.{decimals}f}{letter}" if value else "0" for value in values]


def grid(plot: Plot) -> str:
    """Horizontal lines, the labels of both axes, and what the x axis counts."""
    x, y = plot.x, plot.y
    parts = []
    for value, text in zip(plot.y_ticks, tick_labels(plot.y_ticks), strict=True):
        at = f"{y(value):.1f}"
        parts.append(f'<line class="grid" x1="{x.start}" x2="{x.end}" y1="{at}" y2="{at}"/>')
        parts.append(f'<text class="tick" x="{x.start - 6}" y="{at}" dy="0.35em" text-anchor="end">{text}</text>')
    parts.append(f'<line class="axis" x1="{x.start}" x2="{x.end}" y1="{y.start}" y2="{y.start}"/>')
    for value, text in zip(plot.x_ticks, tick_labels(plot.x_ticks), strict=True):
        parts.append(f'<text class="tick" x="{x(value):.1f}" y="{y.start + 16}" text-anchor="middle">{text}</text>')
    return "".join(parts)


def drawn(line: Series, plot: Plot) -> str:
    """The band, the line, and a dot with a tooltip for each marked point (or for a line that is a single point)."""
    style = escape(line.style)
    parts = []
    if line.low:
        parts.append(f'<polygon class="band {style}" points="{coordinates([*line.low, *reversed(line.high)], plot)}"/>')
    parts.append(f'<polyline class="line {style}" points="{coordinates(line.points, plot)}"/>')
    for x, y in line.points if line.marked or len(line.points) == 1 else ():
        tip = f"<title>{escape(line.name)} at step {x:,.0f}: {y:.4g}</title>"
        parts.append(f'<circle class="dot {style}" cx="{plot.x(x):.1f}" cy="{plot.y(y):.1f}" r="3.5">{tip}</circle>')
    return "".join(parts)


def coordinates(points: Points, plot: Plot) -> str:
    return " ".join(f"{plot.x(x):.1f},{plot.y(y):.1f}" for x, y in points)
