"""How much a replay holds in how much memory, and how fast priorities are drawn by and changed, beside peers.

agentctl bench replay                                   # ours
agentctl bench replay --peer tianshou --peer cpprb      # and theirs, by PEER_PYTHON of an environment that has them

Memory: the growth of the process while 100 000 steps of Breakout, random actions, go in. Priorities: one batch of 32 or
256 of 2^20 entries is drawn in proportion to them, gets its weights, and gets new priorities; each in its own process.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _results import Report
from _turns import Rates, spread, window

STEPS = 100_000
ENTRIES = 2**20
SIZES = (32, 256)
BETA = 0.4
PEERS = ("tianshou", "cpprb")


def main() -> None:
    options = parser().parse_args()
    if options.measure:
        print(json.dumps(MEASURES[options.measure]()))
        return
    report = Report("replay")
    add_memory(report)
    found: dict[str, list[Rates]] = {name: [] for name in ("ours", *options.peer)}
    for _ in range(options.rounds):
        for name, turns in found.items():
            turns.append(in_process(name))
    for size in SIZES:
        ours = [turn[str(size)] for turn in found["ours"]]
        report.add(spread(f"agentctl: a batch of {size} by priority", ours, "us"))
        for peer in options.peer:
            theirs = [turn[str(size)] for turn in found[peer]]
            report.add(spread(f"{peer}: a batch of {size} by priority", theirs, "us"))
            ratios = [their / our for their, our in zip(theirs, ours, strict=True)]
            report.add(spread(f"{peer} / agentctl, a batch of {size}", ratios, "ratio", goal=(">=", 1.0)))
    path = report.write()
    if options.json:
        print(json.dumps(json.loads(path.read_text(encoding="utf-8"))))


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--peer", action="append", default=[], choices=PEERS, help="measure this too")
    made.add_argument("--rounds", type=int, default=3, help="measurements of each (default 3)")
    made.add_argument("--json", action="store_true", help="print the result file as the last line")
    made.add_argument("--measure", choices=sorted(MEASURES), help=argparse.SUPPRESS)  # what a process does
    return made


def in_process(name: str) -> Rates:
    python = os.environ.get("PEER_PYTHON", sys.executable) if name in PEERS else sys.executable
    return window([python, __file__, "--measure", name])


# --- memory -----------------------------------------------------------------------------------------------------------


def add_memory(report: Report) -> None:
    raw, packed = in_process("raw"), in_process("compressed")
    report.add(spread("100 000 steps of Breakout", [raw["GB"]], "GB", goal=("<=", 0.75)))
    report.add(spread("100 000 steps of Breakout, compressed", [packed["GB"]], "GB", goal=("<=", 0.375)))
    for name, figures in (("raw", raw), ("compressed", packed)):
        report.add(spread(f"a batch of 32, {name}", [figures["sample"]], "us"))
        report.add(spread(f"8 steps in, {name}", [figures["add"]], "us"))


def memory(*, compress: bool) -> Rates:
    """GB that the process grew by, us per sampled batch, us per added step of 8 rows."""
    from agentctl.core.protocols import Setup
    from agentctl.core.types import Decision, Transition
    from agentctl.games.atari.game import AtariGame
    from agentctl.plugins.replay.uniform import Uniform

    game = AtariGame(AtariGame.Config(rom="breakout"), Setup(batch=8))
    setup = Setup(game.observation_space, game.action_space, batch=8)
    replay = Uniform(Uniform.Config(capacity=STEPS, warmup=0, every=1, compress=compress), setup)
    rng, state, first, adding = np.random.default_rng(0), game.reset(0), np.ones(8, bool), 0.0
    before = resident()
    for _ in range(STEPS // 8):
        action = rng.integers(0, 4, 8)
        step = game.step(action)
        seen = Transition(
            state, first, {}, Decision(action), step.reward, step.ended, step.cut, step.finished, step.observation,
            step.final, total=step.reward,
        )  # fmt: skip
        began = time.perf_counter()
        replay.add(seen)
        adding += time.perf_counter() - began
        state, first = step.observation, step.finished
    grown = (resident() - before) / 1e9
    began = time.perf_counter()
    for _ in range(300):
        replay.sample()
    return {"GB": grown, "sample": (time.perf_counter() - began) / 300e-6, "add": adding / (STEPS / 8) * 1e6}


def resident() -> int:
    """Bytes of memory that the process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# --- priorities -------------------------------------------------------------------------------------------------------


def ours() -> Rates:
    from agentctl.plugins.replay.sum_tree import SumTree

    tree = SumTree(ENTRIES)
    tree.set(np.arange(ENTRIES), first_priorities())

    def turn(rng: np.random.Generator, size: int) -> None:
        chosen = tree.draw(rng.random(size))
        weights(tree.values[chosen] / tree.total)
        tree.set(chosen, new_priorities(rng, size))

    return microseconds(turn)


def tianshou() -> Rates:
    from tianshou.data import SegmentTree

    tree = SegmentTree(ENTRIES)
    tree[np.arange(ENTRIES)] = first_priorities()

    def turn(rng: np.random.Generator, size: int) -> None:
        total = tree.reduce()
        chosen = tree.get_prefix_sum_idx(rng.random(size) * total)
        weights(tree[chosen] / total)
        tree[chosen] = new_priorities(rng, size)

    return microseconds(turn)


def cpprb() -> Rates:
    from cpprb import PrioritizedReplayBuffer

    buffer = PrioritizedReplayBuffer(ENTRIES, {"step": {"dtype": np.int32}}, alpha=1.0)
    buffer.add(step=np.arange(ENTRIES), priorities=first_priorities())

    def turn(rng: np.random.Generator, size: int) -> None:
        chosen = buffer.sample(size, BETA)["indexes"]
        buffer.update_priorities(chosen, new_priorities(rng, size))

    return microseconds(turn)


def first_priorities() -> Any:
    return np.random.default_rng(0).gamma(1.0, size=ENTRIES) + 1e-6


def new_priorities(rng: np.random.Generator, size: int) -> Any:
    return rng.random(size) + 1e-6


def weights(chance: Any) -> Any:
    weight = (ENTRIES * chance) ** -BETA
    return weight / weight.max()


def microseconds(turn: Callable[[np.random.Generator, int], None]) -> Rates:
    """Of one turn, by batch size: the median of blocks of a hundred."""
    rng, found = np.random.default_rng(1), {}
    for size in SIZES:
        blocks = []
        for _ in range(30):
            began = time.perf_counter()
            for _ in range(100):
                turn(rng, size)
            blocks.append((time.perf_counter() - began) / 100e-6)
        found[str(size)] = float(np.median(blocks[5:]))
    return found


MEASURES: dict[str, Callable[[], Rates]] = {
    "raw": lambda: memory(compress=False),
    "compressed": lambda: memory(compress=True),
    "ours": ours,
    "tianshou": tianshou,
    "cpprb": cpprb,
}

if __name__ == "__main__":
    main()
