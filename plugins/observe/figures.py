"""Figures as people read them, the same on the terminal and in the report."""

from __future__ import annotations

import math

UNKNOWN = "–"


def number(value: float) -> str:
    """Three significant digits, thousands in full: ``12,345``, ``21.0``, ``-0.0123``, ``1.5e-05``; NaN is ``–``."""
    if math.isnan(value):
        return UNKNOWN
    size = abs(value)
    if size == 0 or math.isinf(value):
        return f"{value:g}"
    if size < 1e-3 or size >= 1e9:
        return f"{value:.1e}"
    decimals = max(0, 2 - math.floor(math.log10(size)))
    return f"{value:,.{decimals}f}"


def signed(value: float) -> str:
    """Like :func:`number`, with ``+`` before what is not negative."""
    return f"+{number(value)}" if value >= 0 else number(value)


def duration(seconds: float) -> str:
    """``8.2 s``, ``3 min 12 s``, ``2 h 05 min``; ``–`` for what nobody can know."""
    if not math.isfinite(seconds):
        return UNKNOWN
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def name_of(section: object) -> str:
    """The component's name in a section of the configuration: ``{"name": "ppo", ...}`` or just ``"ppo"``."""
    name = section.get("name") if isinstance(section, dict) else section
    return str(name) if name else UNKNOWN
