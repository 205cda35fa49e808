"""Writes what was measured from `benchmarks/results/*.json` into two pages: python benchmarks/_tables.py.

docs/measured.md has every figure, the README those that have a goal.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from _results import RESULTS, ROOT

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
README, MEASURED = ROOT / "README.md", ROOT / "docs" / "measured.md"


def main() -> None:
    for path in (README, MEASURED):
        path.write_text(refreshed(path), encoding="utf-8")


def refreshed(path: Path) -> str:
    """One of the pages, with its tables as the result files have them."""
    before, rest = path.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    results = [json.loads(found.read_text(encoding="utf-8")) for found in sorted(RESULTS.glob("*.json"))]
    tables = [goals(results)] if path == README else [table(result) for result in results]
    return "\n\n".join([before + BEGIN, *tables, END + after])


def goals(results: list[dict[str, Any]]) -> str:
    """All figures that have a goal as one Markdown table."""
    lines = ["| benchmark | figure | value | goal |", "|---|---|--:|---|"]
    for result in results:
        name = f"`{result['name']}`"
        for figure in result["figures"]:
            if figure["met"] is not None:
                lines.append(f"| {name} | {figure['name']} | {value(figure)} | {verdict(figure)} |")
                name = ""
    return "\n".join(lines)


def table(result: dict[str, Any]) -> str:
    """One benchmark as a Markdown table."""
    head = (
        f"**{result['name']}** `{result['command']}`, {result['machine']}, {result['date']}, commit {result['commit']}"
    )
    lines = [head, "", "| figure | value | beside it | goal |", "|---|--:|--:|---|"]
    for figure in result["figures"]:
        beside = figure["baseline"]
        shown = f"{beside['name']} {number(beside['value'])}" if beside else ""
        lines.append(f"| {figure['name']} | {value(figure)} | {shown} | {verdict(figure)} |")
    return "\n".join(lines)


def verdict(figure: dict[str, Any]) -> str:
    return "" if figure["met"] is None else f"{figure['goal']} {'met' if figure['met'] else '**missed**'}"


def value(figure: dict[str, Any]) -> str:
    """``23.2 points (21 to 25, 3 seeds)``."""
    text = f"{number(figure['value'])} {figure['unit']}"
    if figure["interval"] and len(figure["seeds"]) > 1:
        low, high = figure["interval"]
        text += f" ({number(low)} to {number(high)}, {len(figure['seeds'])} seeds)"
    return text


def number(value: float) -> str:
    """Three significant digits, thousands apart."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


if __name__ == "__main__":
    main()
