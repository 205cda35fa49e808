"""What the framework itself costs: a step of the loop with parts that do nothing, imports, and `--help`.

The loop's share is measured against a step of the default Atari run's kind (PPO, 8 rows, the published settings) on the
same machine in the same call; import times against `python -c "import numpy"`.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from _results import Figure, Report, run_agentctl
from gymnasium import spaces

from agentctl.core.assembly import assemble
from agentctl.core.config import compose_document
from agentctl.core.document import Document
from agentctl.core.hooks import Component, hookimpl
from agentctl.core.loop import Loop
from agentctl.core.plugins import Switches
from agentctl.core.protocols import BaseConfig, Clock, Setup
from agentctl.core.run import Run
from agentctl.core.types import Array, Arrays, Batch, Carry, Decision, Metrics, Snapshot, Step, Transition

BATCH, STEPS = 8, 20_000


class Nothing:
    """A game, a policy and a replay whose every method returns what it already holds."""

    class Config(BaseConfig):
        pass

    clock = Clock()
    nbytes = 0

    def __init__(self, config: Config, setup: Setup) -> None:
        self.observation_space = spaces.Dict({"pixels": spaces.Box(0, 255, (4, 84, 84), np.uint8)})
        self.action_space = spaces.Discrete(6)
        pixels = np.zeros((setup.batch, 4, 84, 84), np.uint8)
        no, self._observation = np.zeros(setup.batch, bool), {"pixels": pixels}
        self._step = Step(self._observation, np.zeros(setup.batch, np.float32), no, no)
        extras = {"log_prob": np.zeros(setup.batch, np.float32), "value": np.zeros(setup.batch, np.float32)}
        self._decision = Decision(np.zeros(setup.batch, np.int64), {}, extras)

    def reset(self, seed: int) -> Arrays:
        return self._observation

    def step(self, action: Array) -> Step:
        return self._step

    def frame(self) -> Array:
        return np.zeros((84, 84, 3), np.uint8)

    def close(self) -> None: ...

    def initial(self, batch: int) -> Carry:
        return {}

    def act(self, carry: Carry, state: Arrays, first: Array) -> Decision:
        return self._decision

    explore = act

    def learn(self, batch: Batch) -> Metrics:
        return {}

    def add(self, transition: Transition) -> None: ...

    def ready(self) -> bool:
        return False

    def sample(self) -> Batch:
        raise AssertionError("never ready")

    def save(self) -> Snapshot:
        return Snapshot()

    def load(self, snapshot: Snapshot) -> None: ...


@hookimpl
def agentctl_games() -> list[Component]:
    return [Component("nothing", f"{__name__}:Nothing", "shows black")]


@hookimpl
def agentctl_policies() -> list[Component]:
    return [Component("nothing", f"{__name__}:Nothing", "presses nothing")]


@hookimpl
def agentctl_replays() -> list[Component]:
    return [Component("nothing", f"{__name__}:Nothing", "keeps nothing")]


def main() -> None:
    report = Report("overhead")
    add_loop(report)
    add_imports(report)
    report.write()


def add_loop(report: Report) -> None:
    empty = statistics.median(loop_seconds() for _ in range(5)) / (STEPS / BATCH)
    with tempfile.TemporaryDirectory() as folder:
        settings = ("run.steps=16384", "run.cycle_steps=16384", "evaluation.episodes=1", "evaluation.max_steps=50")
        overrides = [part for setting in settings for part in ("-s", setting)]
        run = run_agentctl("configs/atari/pong.yaml", *overrides, out=Path(folder) / "run")
    whole = BATCH / run["steps_per_second"]
    report.add(Figure("a batched step of the loop, empty parts", empty * 1e6, "us"))
    report.add(Figure("a batched step of PPO on Pong", whole * 1e6, "us"))
    report.add(Figure("the framework's share of a step", 100 * empty / whole, "%", goal=("<=", 2)))


def loop_seconds() -> float:
    """Seconds for STEPS steps of the real loop with reward `clip`, perception `pixels` and the parts above."""
    data: dict[str, Any] = {
        "game": {"name": "nothing", "batch": BATCH},
        "perception": ["pixels"],
        "reward": ["clip"],
        "policy": "nothing",
        "replay": "nothing",
        "plugins": [__file__],
        "run": {"steps": STEPS, "cycle_steps": STEPS},
        "evaluation": {"episodes": 1, "max_steps": 1},
    }
    assembly = assemble(compose_document(Document(None, data), Switches()))
    loop = Loop(assembly, Run(None, {}, {}))
    began = time.perf_counter()
    loop.train()
    return time.perf_counter() - began


def add_imports(report: Report) -> None:
    numpy = seconds("-c", "import numpy")
    report.add(Figure("import numpy", numpy * 1e3, "ms"))
    for name, arguments, goal in (
        ("import agentctl.core", ("-c", "import agentctl.core"), 150),
        ("agentctl --help", ("-m", "agentctl.core.cli", "--help"), 300),
    ):
        taken = seconds(*arguments)
        report.add(Figure(name, taken * 1e3, "ms", baseline=("import numpy", numpy * 1e3), goal=("<=", goal)))
        report.add(Figure(f"{name} / import numpy", taken / numpy, "ratio"))


def seconds(*arguments: str) -> float:
    """The fastest of ten fresh interpreters: noise only ever adds."""
    times = []
    for _ in range(10):
        began = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - began)
    return min(times)


if __name__ == "__main__":
    main()
