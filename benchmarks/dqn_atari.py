"""How fast DQN and Rainbow play and learn Pong, what that time is spent on, and how fast a peer is right now.

agentctl bench dqn-atari                 # ours, its parts, and the floor that the parts set
agentctl bench dqn-atari --peer sb3      # and Stable-Baselines3's DQN, in turn (needs opencv-python-headless)
agentctl bench dqn-atari --rainbow       # and ours with all six parts of Rainbow

Everywhere: 8 rows, a batch of 32 every 4 steps, a replay of 100 000 steps, the Nature CNN on 4 gray frames of 84 x 84,
and a target that moves every 8 000 steps. Each window is a process of its own with OpenMP's idle threads asleep, which
suits the peer and changes nothing for ours. Measured once learning has begun. One step is four emulator frames.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
from _results import Report
from _turns import Rates, Times, add_floor, compare, fastest, now, rates, windows_in_turn

BATCH, EVERY, SAMPLES = 8, 4, 32
WARM_UP = 512  # steps before learning begins, and of learning that are not counted
CYCLE = 1024  # steps that the parts are measured over
GOALS = {"sb3": 2.0}
RAINBOW = {"dueling": True, "noisy": 0.5, "distribution": "c51"}


def main() -> None:
    options = parser().parse_args()
    if options.measure:
        print(json.dumps(MEASURES[options.measure](options.length)))
        return
    names = ["ours", *(["rainbow"] if options.rainbow else []), *options.peer]
    windows = windows_in_turn(__file__, [*names, "parts"], options.rounds, options.length)
    report = Report("dqn-atari")
    compare(report, windows, {name: TITLES[name] for name in names}, GOALS)
    add_floor(report, windows["parts"], CYCLE, statistics.median(found["second"] for found in windows["ours"]))
    path = report.write()
    if options.json:
        print(json.dumps(json.loads(path.read_text(encoding="utf-8"))))


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--peer", action="append", default=[], choices=sorted(GOALS), help="measure this too, in turn")
    made.add_argument("--rainbow", action="store_true", help="measure ours as Rainbow too, in turn")
    made.add_argument("--rounds", type=int, default=3, help="windows of each (default 3)")
    made.add_argument("--length", type=int, default=4096, help="steps in a window (default 4096)")
    made.add_argument("--json", action="store_true", help="print the result file as the last line")
    made.add_argument("--measure", choices=sorted(MEASURES), help=argparse.SUPPRESS)  # what a window's process does
    return made


# --- ours -------------------------------------------------------------------------------------------------------------


def ours(steps: int) -> Rates:
    return ours_rate(steps, "uniform")


def rainbow(steps: int) -> Rates:
    return ours_rate(steps, "prioritized", length=3, **RAINBOW)


def ours_rate(steps: int, replay: str, length: int = 1, **policy: Any) -> Rates:
    """The framework's own loop, without files."""
    from agentctl.core.loop import Loop
    from agentctl.core.run import Observer, Run
    from agentctl.core.types import Transition

    class Stopwatch(Observer):
        times: list[Times] = []

        def stepped(self, transition: Transition) -> None:
            self.times.append(now())

    watch = Stopwatch()
    Loop(pong(2 * WARM_UP + steps, replay, length, **policy), Run(None, {}, {}, observers=[watch])).train()
    return rates(steps, watch.times[2 * WARM_UP // BATCH - 1], watch.times[-1])


def pong(steps: int, replay: str = "uniform", length: int = 1, **policy: Any) -> Any:
    from agentctl.core.assembly import assemble
    from agentctl.core.config import compose_document
    from agentctl.core.document import Document
    from agentctl.core.plugins import Switches

    sampling = {"capacity": 100_000, "warmup": WARM_UP, "every": EVERY, "batch_size": SAMPLES, "length": length}
    data = {
        "game": {"name": "atari/pong", "batch": BATCH},
        "perception": ["pixels"],
        "reward": ["clip"],
        "policy": {"name": "dqn", "target_every": 8_000, "double": False, **policy},
        "replay": {"name": replay, **sampling},
        "run": {"steps": steps, "cycle_steps": steps},
        "evaluation": {"episodes": 1, "max_steps": 1},
    }
    return assemble(compose_document(Document(None, data), Switches()))


def parts(steps: int) -> Rates:
    """Seconds per 1024 steps of the emulation, the actions, the replay and the learning, each alone and warm."""
    from agentctl.core.types import Transition

    assembly = pong(CYCLE)
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


# --- the peer ---------------------------------------------------------------------------------------------------------


def sb3(steps: int) -> Rates:
    """Stable-Baselines3's DQN with the settings of its zoo for Atari, on its own emulators."""
    import ale_py  # noqa: F401  registers the games
    from stable_baselines3 import DQN
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_atari_env
    from stable_baselines3.common.vec_env import VecFrameStack

    class Stopwatch(BaseCallback):
        times: list[Times] = []

        def _on_step(self) -> bool:
            self.times.append(now())
            return True

    watch = Stopwatch()
    emulators = VecFrameStack(make_atari_env("PongNoFrameskip-v4", BATCH, seed=0), 4)
    settings: dict[str, Any] = {"buffer_size": 100_000, "learning_starts": WARM_UP, "batch_size": SAMPLES}
    settings |= {"train_freq": 1, "gradient_steps": BATCH // EVERY, "target_update_interval": 8_000}
    model = DQN("CnnPolicy", emulators, optimize_memory_usage=False, device="cpu", **settings)
    model.learn(2 * WARM_UP + steps, callback=watch)
    return rates(steps, watch.times[2 * WARM_UP // BATCH - 1], watch.times[(2 * WARM_UP + steps) // BATCH - 1])


MEASURES: dict[str, Callable[[int], Rates]] = {"ours": ours, "rainbow": rainbow, "parts": parts, "sb3": sb3}
TITLES = {"ours": "agentctl", "rainbow": "agentctl as Rainbow", "sb3": "Stable-Baselines3"}

if __name__ == "__main__":
    main()
