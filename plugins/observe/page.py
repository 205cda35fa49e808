"""The report as one HTML text. Pure functions: records in, markup out; every text that is not ours is escaped."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from statistics import pstdev
from typing import Any

import yaml

from agentctl.core.run import Evaluation
from agentctl.core.types import Table
from agentctl.plugins.observe import svg
from agentctl.plugins.observe.figures import UNKNOWN, duration, number, signed
from agentctl.plugins.observe.history import Curve, History
from agentctl.plugins.observe.stylesheet import CSS

WIDE, BESIDE_VIDEO, NARROW, SMALL = (1080, 320), (740, 380), (440, 280), (340, 170)
"""Charts' sizes in px, about those at which the page shows them, so that their text is neither tiny nor huge."""
MOST_MARKS = 60


@dataclass(frozen=True, slots=True)
class Report:
    """All that the page tells."""

    game: str
    agent: str
    run: str  # the folder's name
    written: str  # date and time
    config: Mapping[str, Any]
    lock: Mapping[str, Any]
    history: History
    failure: str = ""  # what ended the run early
    video: bytes = b""  # mp4
    video_step: int = 0

    @property
    def end(self) -> float:
        """Where every chart's x axis ends."""
        return float(max([self.history.step, *self.history.evaluations]))

    @property
    def evaluations(self) -> list[Evaluation]:
        """By step."""
        return [evaluation for _, evaluation in sorted(self.history.evaluations.items())]


def render(report: Report) -> str:
    """The whole page; it needs no other file, no network and no script."""
    sections = (heading, failure, tiles, lead, evaluation_table, policy_tables, reward_terms, learning, events, origins)
    title = f"{escape(report.game)} · {escape(report.agent)}"
    body = "\n".join(text for text in (section(report) for section in sections) if text)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{CSS}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def heading(report: Report) -> str:
    title = f"<h1>{escape(report.game)} <span>played by</span> {escape(report.agent)}</h1>"
    return f'<header>{title}<p class="soft">Run {escape(report.run)}, report of {escape(report.written)}</p></header>'


def failure(report: Report) -> str:
    if not report.failure:
        return ""
    at = f"at step {report.history.step:,}"
    return f'<div class="card warn"><strong>Ended early</strong> {at}: {escape(report.failure)}</div>'


def tiles(report: Report) -> str:
    history = report.history
    parts = [
        *return_tiles(report.evaluations),
        tile("Steps", f"{history.step:,}", "in all"),
        tile("Time", duration(history.seconds), "of training"),
        tile("Speed", number(history.last("steps_per_second")), "steps per second"),
    ]
    return f'<dl class="tiles">{"".join(parts)}</dl>'


def return_tiles(evaluations: Sequence[Evaluation]) -> list[str]:
    if not evaluations:
        return [tile("Evaluation return", UNKNOWN, "never evaluated", "first")]
    last = evaluations[-1]
    reached, chance = last.return_mean, last.return_random
    above = f"{number(reached / chance)} times random" if chance > 0 and reached > 0 else "than random"
    return [
        tile("Evaluation return", number(reached), f"over {episodes(last)}", "first"),
        tile("Random policy", number(chance), "on the same seeds"),
        tile("Better by", signed(reached - chance), above),
    ]


def tile(name: str, figure: str, note: str, style: str = "") -> str:
    value = f"<dd>{escape(figure)}</dd>"
    return f'<div class="card tile {style}"><dt>{escape(name)}</dt>{value}<p class="soft">{escape(note)}</p></div>'


def episodes(evaluation: Evaluation) -> str:
    count = len(evaluation.returns)
    return f"{count} episode{'s' if count != 1 else ''}"


def lead(report: Report) -> str:
    """The returns as a large chart and, beside it, the last evaluation as a video."""
    style, size = ("lead video", BESIDE_VIDEO) if report.video else ("lead", WIDE)
    lines = return_series(report, size[0])
    charts = [svg.chart("Return", lines, shown, report.end) for shown in (size, NARROW)] if lines else []
    nothing = '<p class="soft">No return was reported.</p>'
    drawn = "".join(
        f'<div class="{shown}">{chart}</div>' for shown, chart in zip(("wide", "narrow"), charts, strict=False)
    )
    picture = f"<figcaption>Return over game steps</figcaption>{legend(lines)}{drawn or nothing}"
    return f'<section class="{style}"><figure class="card">{picture}</figure>{video(report)}</section>'


def return_series(report: Report, width: int) -> list[svg.Series]:
    lines = []
    curve = report.history.curves.get("return_mean")
    if curve:
        lines.append(svg.series("training, mean of 100 episodes", "training", curve.steps, curve.values, width))
    done = report.evaluations
    if done:
        chance = [(float(e.step), e.return_random) for e in done]
        reached = [(float(e.step), e.return_mean) for e in done]
        lines.append(svg.Series("random policy", "random", [(0.0, chance[0][1]), *chance, (report.end, chance[-1][1])]))
        lines.append(svg.Series("evaluation", "evaluation", reached, marked=len(reached) <= MOST_MARKS))
    return lines


def legend(lines: Iterable[svg.Series]) -> str:
    stroke = '<svg width="26" height="8" aria-hidden="true"><line class="line {}" x1="1" x2="25" y1="4" y2="4"/></svg>'
    items = (f"<span>{stroke.format(line.style)}{escape(line.name)}</span>" for line in lines)
    return f'<div class="legend">{"".join(items)}</div>'


def video(report: Report) -> str:
    if not report.video:
        return ""
    data = base64.b64encode(report.video).decode("ascii")
    player = f'<video controls loop muted playsinline preload="auto" src="data:video/mp4;base64,{data}"></video>'
    caption = f"<figcaption>An evaluation episode <small>step {report.video_step:,}</small></figcaption>"
    return f'<figure class="card">{caption}{player}</figure>'


def evaluation_table(report: Report) -> str:
    if not report.evaluations:
        return ""
    head = ("Step", "Return", "± std", "Lowest", "Highest", "Random", "Difference", "Length", "Episodes")
    rows = [evaluation_row(evaluation) for evaluation in reversed(report.evaluations)]
    return section("Evaluations", table(head, rows))


def evaluation_row(evaluation: Evaluation) -> list[str]:
    returns = evaluation.returns
    figures = [
        evaluation.return_mean,
        pstdev(returns),
        min(returns),
        max(returns),
        evaluation.return_random,
    ]
    length = sum(evaluation.lengths) / max(1, len(evaluation.lengths))
    difference = signed(evaluation.return_mean - evaluation.return_random)
    return [f"{evaluation.step:,}", *map(number, figures), difference, number(length), str(len(returns))]


def policy_tables(report: Report) -> str:
    """What the policy told about itself at the last evaluation."""
    last = report.evaluations[-1:]
    return "".join(section(title, policy_table(found)) for e in last for title, found in e.tables.items())


def policy_table(found: Table) -> str:
    head = cells("th", ["", *found.columns], 10**6)
    lines = "".join(f"<tr>{policy_row(name, values, found)}</tr>" for name, values in found.rows.items())
    return f'<div class="card scroll"><table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>'


def policy_row(name: str, values: Sequence[float], found: Table) -> str:
    """Shares are also shaded, so that a diagonal is seen at a glance."""
    first = f'<td class="text">{escape(name)}</td>'
    if not found.shares:
        return first + cells("td", [number(value) for value in values], 10**6)
    shaded = '<td class="figure share" style="--share:{:.2f}">{}</td>'
    return first + "".join(shaded.format(0 if math.isnan(value) else value, number(value)) for value in values)


def reward_terms(report: Report) -> str:
    curves = report.history.group("terms")
    episode_sums = report.evaluations[-1].terms if report.evaluations else {}
    names = list(dict.fromkeys([*curves, *episode_sums]))
    if not names:
        return ""
    rows = [
        [name, number(report.history.last(f"terms.{name}")), number(episode_sums.get(name, float("nan")))]
        for name in names
    ]
    head = ("Term, before its weight", "Per step, training", "Per episode, evaluation")
    return section("Reward terms", f'<div class="stack">{table(head, rows)}{small_charts(curves, report.end)}</div>')


def learning(report: Report) -> str:
    curves = dict(report.history.group("metrics"))
    speed = report.history.curves.get("steps_per_second")
    if speed:
        curves["steps per second"] = speed
    note = '<p class="soft">Over game steps. A band holds the middle 80% of the values that a point stands for.</p>'
    return section("Learning", f'<div class="stack">{note}{small_charts(curves, report.end)}</div>') if curves else ""


def small_charts(curves: Mapping[str, Curve], end: float) -> str:
    if not curves:
        return ""
    return f'<div class="many">{"".join(small_chart(name, curve, end) for name, curve in curves.items())}</div>'


def small_chart(name: str, curve: Curve, end: float) -> str:
    line = svg.series(name, "measure", curve.steps, curve.values, SMALL[0])
    caption = f"<figcaption>{escape(name)} <small>last {number(curve.values[-1])}</small></figcaption>"
    return f'<figure class="card">{caption}{svg.chart(name, [line], SMALL, end)}</figure>'


def events(report: Report) -> str:
    rows = [[f"{event.step:,}", event.kind, event.text] for event in report.history.events]
    return section("Events", table(("Step", "What", "Text"), rows, text_from=1)) if rows else ""


def origins(report: Report) -> str:
    """The configuration, and beside it the lock: a table of its single values and one for each of its mappings."""
    text = yaml.safe_dump(dict(report.config), sort_keys=False, allow_unicode=True)
    plain = {name: value for name, value in report.lock.items() if not isinstance(value, Mapping)}
    groups = {"run": plain, **{name: value for name, value in report.lock.items() if isinstance(value, Mapping)}}
    tables = "".join(lock_table(str(name), values) for name, values in groups.items() if values)
    config = section("Configuration", f'<div class="card"><pre>{escape(text)}</pre></div>')
    return (
        f'<div class="pair">{config}{section("Versions and machine", f"""<div class="stack">{tables}</div>""")}</div>'
    )


def lock_table(name: str, values: Mapping[str, Any]) -> str:
    rows = [[str(key), value if isinstance(value, str) else yaml_text(value)] for key, value in values.items()]
    return table((name, ""), rows, text_from=1)


def yaml_text(value: object) -> str:
    """``[1, 2]``, ``{a: 1}``, ``true``: a value on one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("...\n").strip()


def section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], text_from: int = 10**6) -> str:
    """A table that scrolls inside its card; columns from ``text_from`` on hold text, those before it figures."""
    top = cells("th", head, text_from)
    lines = "".join(f"<tr>{cells('td', row, text_from)}</tr>" for row in rows)
    return f'<div class="card scroll"><table><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table></div>'


def cells(tag: str, texts: Sequence[str], text_from: int) -> str:
    styles = ('class="text"' if index >= text_from else 'class="figure"' for index in range(len(texts)))
    return "".join(f"<{tag} {style}>{escape(text)}</{tag}>" for style, text in zip(styles, texts, strict=True))
