"""With every noun on, the toy is learnt to its optimum within its budget; without any one of them it is not.

`python tests/test_toy_learning.py 5` prints the table of docs/toy.md, measured over 5 seeds.
"""

import statistics
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from agentctl.core.assembly import assemble
from agentctl.core.config import compose
from agentctl.core.errors import ConfigError
from agentctl.core.loop import Loop
from agentctl.core.run import Run

CONFIG = Path(__file__).resolve().parent.parent / "configs" / "toy" / "lantern.yaml"
OPTIMAL_LENGTH = 15  # tests/test_toy.py finds it by search
SEEDS = 3
T_95 = {3: 4.303, 5: 2.776}  # Student's t for a 95 % interval of the mean, by number of seeds


@dataclass(frozen=True)
class Outcome:
    """The last evaluation of one run."""

    mean: float
    length: float
    random: float


@cache
def trained(off: str, seed: int, budget: int = 1) -> Outcome:
    """Train as the YAML says, or ``budget`` times as long, one kind (or none) switched off; evaluate at the end."""
    steps = budget * compose(CONFIG).settings.run.steps
    overrides = [f"run.seed={seed}", f"run.steps={steps}", f"run.cycle_steps={steps}"]
    composition = compose(CONFIG, overrides, [off] if off else [])
    run = Run(None, {}, {}, quiet=True)
    Loop(assemble(composition), run).train()
    last = run.evaluations[-1]
    return Outcome(last.return_mean, float(np.mean(last.lengths)), last.return_random)


def test_with_every_noun_on_it_reaches_the_optimum() -> None:
    for outcome in (trained("", seed) for seed in range(SEEDS)):
        assert outcome.mean > 0.95 and outcome.length < OPTIMAL_LENGTH + 3
        assert outcome.random < 0.2


@pytest.mark.parametrize("off", ["memory", "world_model", "reward"])
def test_without_any_one_noun_it_does_not(off: str) -> None:
    returns = [trained(off, seed).mean for seed in range(SEEDS)]
    assert statistics.fmean(returns) < 0.6, returns


def test_without_a_world_model_it_only_takes_longer() -> None:
    assert trained("world_model", seed=0, budget=3).mean > 0.95


def test_without_perception_the_run_is_refused_before_it_starts() -> None:
    with pytest.raises(ConfigError, match=r"tabular.*Discrete.*picture"):
        assemble(compose(CONFIG, [], ["perception"]))
    with pytest.raises(ConfigError, match=r"dyna_q.*Discrete.*picture"):
        assemble(compose(CONFIG, [], ["perception", "world_model", "memory"]))


def interval(values: list[float]) -> str:
    """The mean and its 95 % interval."""
    half = T_95[len(values)] * statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.fmean(values):.2f} ± {half:.2f}"


def print_table(seeds: int) -> None:
    print(f"| switched off | trained for | return, {seeds} seeds | steps per episode |\n|---|--:|--:|--:|")
    for off, budget in (("", 1), ("memory", 1), ("memory", 3), ("world_model", 1), ("world_model", 3), ("reward", 1)):
        outcomes = [trained(off, seed, budget) for seed in range(seeds)]
        returns, lengths = [o.mean for o in outcomes], [o.length for o in outcomes]
        print(f"| {off or 'nothing'} | {budget} x | {interval(returns)} | {interval(lengths)} |", flush=True)
    print(f"| random policy | | {trained('', 0).random:.2f} | |")


if __name__ == "__main__":
    print_table(int(sys.argv[1]))
