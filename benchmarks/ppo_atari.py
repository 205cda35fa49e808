"""How fast PPO plays and learns Pong, what that time is spent on, and how fast a peer is on this machine right now.

agentctl bench ppo-atari                      # ours, its parts, and the floor that the parts set
agentctl bench ppo-atari --peer sb3           # and Stable-Baselines3's, in turn: A B A B (needs opencv-python-headless)
agentctl bench ppo-atari --peer sb3-vector    # and that on the emulators that ours plays on
agentctl bench ppo-atari --peer sheeprl       # and sheeprl's, which SHEEPRL_PYTHON of its own environment runs
agentctl bench ppo-atari --precision          # and ours in float32

Everywhere: 8 rows x 128 steps, 4 epochs of 4 minibatches of 256, the Nature CNN on 4 gray frames of 84 x 84. A peer
plays on emulators as its users get them, and `sb3-vector` on ale-py's C++ ones, which are faster. Each window is a
process of its own with OpenMP's idle threads asleep, which suits the peers and changes nothing for ours. One step is
four emulator frames.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from _results import Report
from _turns import Rates, Times, add_floor, compare, fastest, now, parser, rates, windows_in_turn, write

BATCH, STEPS = 8, 128
CYCLE = BATCH * STEPS
WARM_UP = 2  # rollouts that are not counted
GOALS = {"sb3": 2.4, "sb3-vector": 2.4, "sheeprl": 2.0}


def main() -> None:
    made = parser(__doc__, GOALS, MEASURES, 8, "rollouts of 1024 steps", "--rollouts")
    made.add_argument("--precision", action="store_true", help="measure ours in float32 too, in turn")
    options = made.parse_args()
    if options.measure:
        print(json.dumps(MEASURES[options.measure](options.length)))
        return
    report = run(options)
    write(report, options)


def run(options: argparse.Namespace) -> Report:
    """All windows in turn, and the figures they make."""
    names = ["ours", *(["fp32"] if options.precision else []), *options.peer]
    windows = windows_in_turn(__file__, [*names, "parts"], options.rounds, options.length)
    report = Report("ppo-atari")
    compare(report, windows, {name: TITLES[name] for name in names}, GOALS)
    rate = statistics.median(found["second"] for found in windows["ours"])
    add_floor(report, windows["parts"], CYCLE, rate, TITLES["ours"])
    return report


# --- ours -------------------------------------------------------------------------------------------------------------


def ours(rollouts: int, **policy: Any) -> Rates:
    """The framework's own loop, as `agentctl run configs/atari/pong.yaml` has it, without files."""
    from agentctl.core.loop import Loop
    from agentctl.core.run import Observer, Progress, Run

    class Stopwatch(Observer):
        times: list[Times] = []

        def learned(self, progress: Progress) -> None:
            self.times.append(now())

    watch = Stopwatch()
    Loop(pong(rollouts, **policy), Run(None, {}, {}, observers=[watch])).train()
    return rate_of(watch.times)


def pong(rollouts: int, **policy: Any) -> Any:
    from agentctl.core.assembly import assemble
    from agentctl.core.config import compose_document
    from agentctl.core.document import Document
    from agentctl.core.plugins import Switches

    steps = (rollouts + WARM_UP) * CYCLE
    data = {
        "game": {"name": "atari/pong", "batch": BATCH},
        "perception": ["pixels"],
        "reward": ["clip"],
        "policy": {"name": "ppo", "clip": 0.1, "value_clip": 0.1, "anneal_steps": 10_000_000, **policy},
        "replay": {"name": "rollout", "steps": STEPS},
        "run": {"steps": steps, "cycle_steps": steps},
        "evaluation": {"episodes": 1, "max_steps": 1},
    }
    return assemble(compose_document(Document(None, data), Switches()))


def rate_of(times: list[Times]) -> Rates:
    """Of the steps between the ends of the first and the last counted rollout."""
    counted = times[WARM_UP - 1 :]
    return rates(CYCLE * (len(counted) - 1), counted[0], counted[-1])


def parts(rollouts: int) -> Rates:
    """Seconds per 1024 steps of the emulation, the policy's actions and its learning, each alone and warm."""
    from agentctl.core.types import Transition

    assembly = pong(rollouts)
    game, policy, replay = assembly.game, assembly.policy, assembly.replay
    actions = np.random.default_rng(0).integers(0, 6, (STEPS, BATCH))
    state, first = game.reset(0), np.zeros(BATCH, bool)
    for action in actions:
        decision = policy.explore({}, state, first)
        step = game.step(action)
        replay.add(
            Transition(
                state, first, {}, decision, step.reward, step.ended, step.cut, first, step.observation, step.final,
                total=np.sign(step.reward),
            )
        )  # fmt: skip
        state = step.observation
    batch = replay.sample()
    return {
        "emulation": fastest(lambda: [game.step(action) for action in actions], rollouts),
        "inference": fastest(lambda: [policy.explore({}, state, first) for _ in actions], rollouts),
        "learning": fastest(lambda: policy.learn(batch), rollouts),
    }


# --- the peers --------------------------------------------------------------------------------------------------------


def sb3(rollouts: int) -> Rates:
    """Stable-Baselines3's PPO as its zoo runs it."""
    import ale_py  # noqa: F401  registers the games
    from stable_baselines3.common.env_util import make_atari_env
    from stable_baselines3.common.vec_env import VecFrameStack

    return sb3_rate(rollouts, VecFrameStack(make_atari_env("PongNoFrameskip-v4", BATCH, seed=0), 4))


def sb3_vector(rollouts: int) -> Rates:
    return sb3_rate(rollouts, sb3_emulators())


def sb3_rate(rollouts: int, emulators: Any) -> Rates:
    """With the settings of its zoo for Atari."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback

    class Stopwatch(BaseCallback):
        times: list[Times] = []

        def _on_rollout_start(self) -> None:  # the first opens the first rollout, every other closes one
            self.times.append(now())

        def _on_step(self) -> bool:
            return True

    watch = Stopwatch()
    settings: dict[str, Any] = {"n_steps": STEPS, "batch_size": 256, "n_epochs": 4, "learning_rate": 2.5e-4}
    model = PPO("CnnPolicy", emulators, clip_range=0.1, ent_coef=0.01, vf_coef=0.5, device="cpu", **settings)
    model.learn((rollouts + WARM_UP + 1) * CYCLE, callback=watch)
    return rate_of(watch.times[1:])


def sb3_emulators() -> Any:
    """ale-py's vector emulators behind Stable-Baselines3's interface."""
    from ale_py.vector_env import AtariVectorEnv
    from gymnasium.vector import AutoresetMode
    from stable_baselines3.common.vec_env import VecEnv

    class Emulators(VecEnv):
        def __init__(self) -> None:
            self.game = AtariVectorEnv(
                "pong", BATCH, autoreset_mode=AutoresetMode.SAME_STEP, reward_clipping=True, use_fire_reset=True
            )
            super().__init__(BATCH, self.game.single_observation_space, self.game.single_action_space)

        def reset(self) -> Any:
            return self.game.reset(seed=0)[0]

        def step_async(self, actions: Any) -> None:
            self.actions = actions

        def step_wait(self) -> Any:
            pixels, reward, ended, cut, info = self.game.step(self.actions)
            infos: list[dict[str, Any]] = [
                {"TimeLimit.truncated": bool(c and not e)} for e, c in zip(ended, cut, strict=True)
            ]
            for row in np.flatnonzero(ended | cut):
                infos[row]["terminal_observation"] = info["final_obs"][row]
            return pixels, reward.astype(np.float32), ended | cut, infos

        close = set_attr = get_attr = env_method = env_is_wrapped = lambda self, *_, **__: [False] * BATCH

    return Emulators()


def sheeprl(rollouts: int) -> Rates:
    """sheeprl's PPO on the same network, by the difference of a short and a long run: it takes no stopwatch."""
    short, long = (sheeprl_times(count) for count in (WARM_UP, WARM_UP + rollouts))
    return rates(rollouts * CYCLE, short, long)


def sheeprl_times(rollouts: int) -> Times:
    """What a whole run of it takes, its workers included."""
    import resource

    python = os.environ.get("SHEEPRL_PYTHON", sys.executable)
    command = [python, "-m", "sheeprl", *SHEEPRL, f"algo.total_steps={rollouts * CYCLE}"]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(command, cwd=folder, stdout=sys.stderr, check=True)
    passed, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return passed, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


SHEEPRL = (
    "exp=ppo_atari", "env.id=PongNoFrameskip-v4", f"env.num_envs={BATCH}", "env.grayscale=True",
    "env.clip_rewards=True", "env.capture_video=False", f"algo.rollout_steps={STEPS}", "algo.update_epochs=4",
    "algo.run_test=False", "algo.actor.mlp_layers=0", "algo.critic.mlp_layers=0", "num_threads=2",
    "metric.log_level=0", "checkpoint.every=1000000000", "checkpoint.save_last=False",
)  # fmt: skip


MEASURES: dict[str, Callable[[int], Rates]] = {
    "ours": ours,
    "fp32": lambda rollouts: ours(rollouts, precision="fp32"),
    "parts": parts,
    "sb3": sb3,
    "sb3-vector": sb3_vector,
    "sheeprl": sheeprl,
}
TITLES = {
    "ours": "agentctl",
    "fp32": "agentctl in fp32",
    "sb3": "Stable-Baselines3",
    "sb3-vector": "Stable-Baselines3 on our emulators",
    "sheeprl": "sheeprl",
}

if __name__ == "__main__":
    main()
