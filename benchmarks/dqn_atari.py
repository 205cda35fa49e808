"""How fast DQN and Rainbow play and learn Pong, what that time is spent on, and how fast a peer is right now.

agentctl bench dqn-atari                 # ours, its parts, and the floor that the parts set
agentctl bench dqn-atari --peer sb3      # and Stable-Baselines3's DQN, in turn (needs opencv-python-headless)
agentctl bench dqn-atari --rainbow       # and ours with all six parts of Rainbow, with its own floor
agentctl bench dqn-atari --rainbow --peer cleanrl   # and CleanRL's: its checkout is CLEANRL, CLEANRL_PYTHON runs it

Everywhere: 8 rows, a batch of 32 every 4 steps, a replay of 100 000 steps, the Nature CNN on 4 gray frames of 84 x 84,
and a target that moves every 8 000 steps; CleanRL's Rainbow plays one row, all it can. Each window is a process of its
own with OpenMP's idle threads asleep, which suits the peers and changes nothing for ours. Measured once learning has
begun. One step is four emulator frames.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _pong import BATCH, assembled, loop_rates, sb3_rates
from _results import Report
from _turns import Rates, Times, add_floor, compare, fastest, parser, rates, windows_in_turn, write

EVERY, SAMPLES = 4, 32
WARM_UP = 512  # steps before learning begins, and of learning that are not counted
CYCLE = 1024  # steps that the parts are measured over
GOALS = {"sb3": 2.0, "cleanrl": 4.0}
RAINBOW = {"double": True, "dueling": True, "noisy": 0.5, "distribution": "c51"}


def main() -> None:
    made = parser(__doc__, GOALS, MEASURES, 4_096, "steps")
    made.add_argument("--rainbow", action="store_true", help="measure ours as Rainbow too, in turn")
    options = made.parse_args()
    if options.measure:
        print(json.dumps(MEASURES[options.measure](options.length)))
        return
    simple = ["ours", *(["sb3"] if "sb3" in options.peer else [])]
    rainbows = ["rainbow", *(["cleanrl"] if "cleanrl" in options.peer else [])] if options.rainbow else []
    groups = [names for names in (simple, rainbows) if names]
    measured = [name for names in groups for name in (*names, f"{names[0]}-parts")]
    windows = windows_in_turn(__file__, measured, options.rounds, options.length)
    report = Report("dqn-atari")
    for names in groups:
        compare(report, windows, {name: TITLES[name] for name in names}, GOALS)
        rate = statistics.median(found["second"] for found in windows[names[0]])
        add_floor(report, windows[f"{names[0]}-parts"], CYCLE, rate, TITLES[names[0]])
    write(report, options)


# --- ours -------------------------------------------------------------------------------------------------------------


def ours(steps: int) -> Rates:
    return loop_rates(plain(2 * WARM_UP + steps), 2 * WARM_UP, steps)


def rainbow(steps: int) -> Rates:
    return loop_rates(full(2 * WARM_UP + steps), 2 * WARM_UP, steps)


def plain(steps: int) -> Any:
    return pong(steps, "uniform", length=1)


def full(steps: int) -> Any:
    return pong(steps, "prioritized", length=3, **RAINBOW)


def pong(steps: int, replay: str, length: int, **policy: Any) -> Any:
    sampling = {"capacity": 100_000, "warmup": WARM_UP, "every": EVERY, "batch_size": SAMPLES, "length": length}
    agent = {"name": "dqn", "target_every": 8_000, "double": False, **policy}
    return assembled(agent, {"name": replay, **sampling}, steps)


def parts(assembly: Any) -> Rates:
    """Seconds per 1024 steps of the emulation, the actions, the replay and the learning, each alone and warm."""
    from agentctl.core.types import Transition

    game, policy, replay = assembly.game, assembly.policy, assembly.replay
    actions = np.random.default_rng(0).integers(0, 6, (CYCLE // BATCH, BATCH))
    state, first, seen = game.reset(0), np.zeros(BATCH, bool), []
    for action in actions:
        decision = policy.explore({}, state, first)
        step = game.step(action)
        reward = np.sign(step.reward)
        seen.append(
            Transition(
                state, first, {}, decision, reward, step.ended, step.cut, first, step.observation, step.final,
                total=reward,
            )
        )  # fmt: skip
        state = step.observation

    def keep() -> None:
        for transition in seen:
            replay.add(transition)
        while replay.ready():
            replay.sample()

    keep()
    replay.add(seen[0])
    batch = replay.sample()
    return {
        "emulation": fastest(lambda: [game.step(action) for action in actions], 4),
        "inference": fastest(lambda: [policy.explore({}, state, first) for _ in actions], 4),
        "replay": fastest(keep, 4),
        "learning": fastest(lambda: [policy.learn(batch) for _ in range(CYCLE // EVERY)], 2),
    }


# --- the peers --------------------------------------------------------------------------------------------------------


def sb3(steps: int) -> Rates:
    """With the settings of its zoo for Atari."""
    settings: dict[str, Any] = {"buffer_size": 100_000, "learning_starts": WARM_UP, "batch_size": SAMPLES}
    settings |= {"train_freq": 1, "gradient_steps": BATCH // EVERY, "target_update_interval": 8_000}
    return sb3_rates("DQN", {**settings, "optimize_memory_usage": False}, 2 * WARM_UP, steps)


def cleanrl(steps: int) -> Rates:
    """CleanRL's rainbow_atari.py, by the difference of a short and a long run: it takes no stopwatch."""
    short, long = (cleanrl_times(2 * WARM_UP + count) for count in (0, steps))
    return rates(steps, short, long)


def cleanrl_times(steps: int) -> Times:
    """What a whole run of it takes."""
    home = Path(os.environ["CLEANRL"])
    options = {"env-id": "PongNoFrameskip-v4", "buffer-size": 100_000, "learning-starts": WARM_UP}
    words = [f"--{name}={value}" for name, value in {**options, "total-timesteps": steps}.items()]
    command = [os.environ.get("CLEANRL_PYTHON", sys.executable), "cleanrl/rainbow_atari.py", *words]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(home)}
    subprocess.run(command, cwd=home, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    passed, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return passed, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


MEASURES: dict[str, Callable[[int], Rates]] = {
    "ours": ours,
    "rainbow": rainbow,
    "ours-parts": lambda _: parts(plain(CYCLE)),
    "rainbow-parts": lambda _: parts(full(CYCLE)),
    "sb3": sb3,
    "cleanrl": cleanrl,
}
TITLES = {
    "ours": "agentctl",
    "rainbow": "agentctl as Rainbow",
    "sb3": "Stable-Baselines3",
    "cleanrl": "CleanRL's Rainbow",
}

if __name__ == "__main__":
    main()
