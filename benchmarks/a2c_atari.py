"""End-to-end training speed of A2C on Pong beside Stable-Baselines3's, in turn (A B A B) on this machine.

agentctl bench a2c-atari                       # ours alone, and the floor that its parts set
agentctl bench a2c-atari --peer sb3            # and Stable-Baselines3's A2C in turn

Both: 8 rows x 5 steps, one update of 40 samples, RMSProp, the Nature CNN on 4 gray frames of 84 x 84. The peer plays on
emulators as its users get them. Each window is a process of its own. One step is four emulator frames.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
from _pong import BATCH, assembled, loop_rates, sb3_rates
from _results import Report
from _turns import Rates, add_floor, compare, fastest, parser, windows_in_turn, write

STEPS = 5
WARM_UP = 400  # steps that are not counted
CYCLE = 1000  # steps that the parts are measured over
GOALS = {"sb3": 2.0}


def main() -> None:
    options = parser(__doc__, GOALS, MEASURES, 8_000, "steps").parse_args()
    if options.measure:
        print(json.dumps(MEASURES[options.measure](options.length)))
        return
    names = ["ours", *options.peer]
    windows = windows_in_turn(__file__, [*names, "parts"], options.rounds, options.length)
    report = Report("a2c-atari")
    compare(report, windows, {name: TITLES[name] for name in names}, GOALS)
    rate = statistics.median(found["second"] for found in windows["ours"])
    add_floor(report, windows["parts"], CYCLE, rate, TITLES["ours"])
    write(report, options)


def pong(steps: int) -> Any:
    return assembled({"name": "a2c"}, {"name": "rollout", "steps": STEPS}, steps)


def ours(steps: int) -> Rates:
    return loop_rates(pong(WARM_UP + steps), WARM_UP, steps)


def sb3(steps: int) -> Rates:
    return sb3_rates("A2C", {"n_steps": STEPS, "ent_coef": 0.01, "vf_coef": 0.5}, WARM_UP, steps)


def parts(steps: int) -> Rates:
    """Seconds per 1000 steps of the emulation, the actions and the learning, each alone and warm."""
    from agentctl.testing import episode_batch

    assembly = pong(steps)
    game, policy = assembly.game, assembly.policy
    batch = episode_batch(game, policy, steps=STEPS)
    actions = np.random.default_rng(0).integers(0, 6, (CYCLE // BATCH, BATCH))
    state, first = game.reset(0), np.zeros(BATCH, bool)
    return {
        "emulation": fastest(lambda: [game.step(action) for action in actions], 4),
        "inference": fastest(lambda: [policy.explore({}, state, first) for _ in actions], 4),
        "learning": fastest(lambda: [policy.learn(batch) for _ in range(CYCLE // BATCH // STEPS)], 4),
    }


MEASURES: dict[str, Callable[[int], Rates]] = {"ours": ours, "sb3": sb3, "parts": parts}
TITLES = {"ours": "agentctl", "sb3": "Stable-Baselines3"}

if __name__ == "__main__":
    main()
