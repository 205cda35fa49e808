"""Pong for the speed benchmarks: our loop and Stable-Baselines3's, each on the emulators that its users get."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from _turns import Rates, Times, now, rates

BATCH = 8


def assembled(policy: Mapping[str, Any], replay: Mapping[str, Any], steps: int) -> Any:
    """A run of ``steps`` steps, BATCH rows at once, that evaluates next to nothing."""
    from agentctl.core.assembly import assemble
    from agentctl.core.config import compose_document
    from agentctl.core.document import Document
    from agentctl.core.plugins import Switches

    data = {
        "game": {"name": "atari/pong", "batch": BATCH},
        "perception": ["pixels"],
        "reward": ["clip"],
        "policy": dict(policy),
        "replay": dict(replay),
        "run": {"steps": steps, "cycle_steps": steps},
        "evaluation": {"episodes": 1, "max_steps": 1},
    }
    return assemble(compose_document(Document(None, data), Switches()))


def loop_rates(assembly: Any, warm_up: int, steps: int) -> Rates:
    """The framework's own loop, without files: the last ``steps`` steps, after ``warm_up`` that are not counted."""
    from agentctl.core.loop import Loop
    from agentctl.core.run import Observer, Run
    from agentctl.core.types import Transition

    class Stopwatch(Observer):
        times: list[Times] = []

        def stepped(self, transition: Transition) -> None:
            self.times.append(now())

    watch = Stopwatch()
    Loop(assembly, Run(None, {}, {}, observers=[watch])).train()
    return rates(steps, watch.times[warm_up // BATCH - 1], watch.times[-1])


def sb3_rates(name: str, settings: Mapping[str, Any], warm_up: int, steps: int) -> Rates:
    """The algorithm ``name`` of Stable-Baselines3 on its own emulators: ``steps`` steps after ``warm_up``."""
    import ale_py  # noqa: F401  registers the games
    import stable_baselines3
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
    model = getattr(stable_baselines3, name)("CnnPolicy", emulators, device="cpu", **settings)
    model.learn(warm_up + steps, callback=watch)
    return rates(steps, watch.times[warm_up // BATCH - 1], watch.times[(warm_up + steps) // BATCH - 1])
