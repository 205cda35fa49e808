"""Measuring several programs in turn, A B A B, each window in a process of its own."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable

from _results import Figure, Report

Times = tuple[float, float]
Rates = dict[str, float]


def parser(
    description: str | None, peers: Iterable[str], measures: Iterable[str], length: int, what: str, *names: str
) -> argparse.ArgumentParser:
    """The options of what measures in turn. A window holds ``length`` of ``what``; ``names``: more of that option."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--peer", action="append", default=[], choices=sorted(peers), help="measure this too, in turn")
    made.add_argument("--rounds", type=int, default=3, help="windows of each (default 3)")
    made.add_argument("--length", *names, type=int, default=length, help=f"{what} in a window (default {length})")
    made.add_argument("--json", action="store_true", help="print the result file as the last line")
    made.add_argument("--measure", choices=sorted(measures), help=argparse.SUPPRESS)  # what a window's process does
    return made


def write(report: Report, options: argparse.Namespace) -> None:
    path = report.write()
    if options.json:
        print(json.dumps(json.loads(path.read_text(encoding="utf-8"))))


def now() -> Times:
    """Seconds that passed, and that the processor worked for this process."""
    return time.perf_counter(), time.process_time()


def rates(steps: int, first: Times, last: Times) -> Rates:
    """Steps per second of either kind."""
    passed, worked = (later - sooner for sooner, later in zip(first, last, strict=True))
    return {"second": steps / passed, "CPU-second": steps / worked}


def measured(step: Callable[[], object], times: int, steps: int = 1) -> Rates:
    """Rates of calls that make so many ``steps`` each; the first calls do not count."""
    for _ in range(2):
        step()
    began = now()
    for _ in range(times):
        step()
    return rates(times * steps, began, now())


def windows_in_turn(script: str, names: list[str], rounds: int, length: int) -> dict[str, list[Rates]]:
    """What ``python script --measure NAME --length N`` prints last, for each name, ``rounds`` times in turn."""
    found: dict[str, list[Rates]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            found[name].append(window([sys.executable, script, "--measure", name, "--length", str(length)]))
    return found


def window(command: list[str]) -> Rates:
    """Measure in a fresh process, with OpenMP's idle threads asleep."""
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed with {done.returncode}:\n{done.stderr}")
    figures: Rates = json.loads(done.stdout.splitlines()[-1])
    return figures


def compare(report: Report, windows: dict[str, list[Rates]], titles: dict[str, str], goals: dict[str, float]) -> None:
    """Every program's rates, and how much faster the first is than each other, window by window."""
    ours, *others = titles
    for per in ("second", "CPU-second"):
        by_name = {name: [rate[per] for rate in windows[name]] for name in titles}
        for name, values in by_name.items():
            report.add(spread(titles[name], values, f"steps/{per}"))
        for name in others:
            ratios = [mine / other for mine, other in zip(by_name[ours], by_name[name], strict=True)]
            goal = (">=", goals[name]) if name in goals and per == "second" else None
            report.add(spread(f"{titles[ours]} / {titles[name]}, per {per}", ratios, "ratio", goal=goal))


def add_floor(report: Report, parts: list[Rates], steps: int, rate: float, title: str) -> None:
    """What each part takes alone for so many steps, their sum, and how far the whole is from it."""
    alone = {name: statistics.median(part[name] for part in parts) for name in parts[0]}
    for name in alone:
        report.add(spread(f"{title}: {name} alone, {steps} steps", [part[name] for part in parts], "s"))
    floor = steps / sum(alone.values())
    report.add(Figure(f"{title}: floor, the parts one after the other", floor, "steps/s"))
    report.add(Figure(f"{title}: gap, time spent on anything else", 100 * (1 - rate / floor), "%"))


def spread(name: str, values: list[float], unit: str, goal: tuple[str, float] | None = None) -> Figure:
    """The median, with the lowest and highest window as its interval."""
    return Figure(name, statistics.median(values), unit, goal=goal, interval=(min(values), max(values)))


def fastest(function: Callable[[], object], times: int) -> float:
    """Seconds of the best of a few calls after one that is not counted: a floor is what can be reached."""
    taken = []
    for _ in range(1 + min(times, 4)):
        began = time.perf_counter()
        function()
        taken.append(time.perf_counter() - began)
    return min(taken[1:])
