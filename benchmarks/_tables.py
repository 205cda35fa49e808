"""Writes the README's tables from `benchmarks/results/*.json`: python benchmarks/_tables.py."""

from __future__ import annotations

import json
from typing import Any

from _results import RESULTS, ROOT

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


def main() -> None:
    path = ROOT / "README.md"
    path.write_text(refreshed(path.read_text(encoding="utf-8")), encoding="utf-8")


def refreshed(readme: str) -> str:
    """``readme`` with its tables as the result files have them."""
    before, rest = readme.split(BEGIN)
    after = rest.split(END)[1]
    tables = [table(json.loads(path.read_text(encoding="utf-8"))) for path in sorted(RESULTS.glob("*.json"))]
    return "\n\n".join([before + BEGIN, *tables, END + after])


def table(result: dict[str, Any]) -> str:
    """One benchmark as a Markdown table."""
    head = (
        f"**{result['name']}** `{result['command']}`, {result['machine']}, {result['date']}, commit {result['commit']}"
    )
    lines = [head, "", "| figure | value | beside it | goal |", "|---|--:|--:|---|"]
    for figure in result["figures"]:
        beside = figure["baseline"]
        shown = f"{beside['name']} {number(beside['value'])}" if beside else ""
        verdict = "" if figure["met"] is None else f"{figure['goal']} {'met' if figure['met'] else '**missed**'}"
        lines.append(f"| {figure['name']} | {value(figure)} | {shown} | {verdict} |")
    return "\n".join(lines)


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
