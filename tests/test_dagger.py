"""DAgger asks its expert about the states it comes to itself; an expert is any policy, or that of an earlier run."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from running import call, composed, differing, kill_and_resume, latest, loop_of, start, written

from agentctl.agents.dagger import DAgger
from agentctl.agents.random import RandomPolicy
from agentctl.core.assembly import assemble
from agentctl.core.embed import load
from agentctl.core.errors import AgentctlError, ConfigError
from agentctl.core.protocols import Setup
from agentctl.core.types import Decision
from agentctl.testing import assert_contract

LANTERN: dict[str, Any] = {
    "game": {"name": "toy/lantern", "batch": 4},
    "perception": ["toy_cells"],
    "memory": {"name": "last_seen", "fields": ["lantern"]},
    "policy": {"name": "dagger", "expert": "toy_expert", "beta_steps": 500},
    "replay": {"name": "uniform", "capacity": 10_000, "warmup": 64, "every": 16, "batch_size": 64},
    "run": {"steps": 8_000, "cycle_steps": 4_000},
    "evaluation": {"episodes": 20},
}


def test_it_learns_what_its_expert_knows() -> None:
    """A random policy finds a door once in a hundred episodes."""
    loop = loop_of(LANTERN)
    loop.train()
    evaluation = loop.run.evaluations[-1]
    assert evaluation.return_mean == 1.0
    assert abs(evaluation.return_random) < 0.3
    assert loop.at.metrics["agreement"] > 0.9


def test_what_it_learns_is_what_the_expert_says_and_not_what_was_done() -> None:
    loop = loop_of({**LANTERN, "run": {"steps": 400, "cycle_steps": 400}})
    expert = loop.assembly.policy._expert
    told, learnt = [], []
    act, learn = expert.act, loop.assembly.policy._cloner.learn

    def asked(carry: Any, state: Any, first: Any) -> Any:
        decision = act(carry, state, first)
        told.append(dict(zip(map(int, state["cell"]), decision.action, strict=True)))
        return decision

    expert.act = asked
    loop.assembly.policy._cloner.learn = lambda batch: learnt.append(batch) or learn(batch)
    loop.train()
    assert any((batch.extras["label"] != batch.action).any() for batch in learnt)
    said = {(cell, move) for answers in told for cell, move in answers.items()}
    for batch in learnt:
        pairs = zip(batch.state["cell"].ravel().tolist(), batch.extras["label"].ravel().tolist(), strict=True)
        assert set(pairs) <= said


def test_the_experts_share_of_acting_falls_to_none() -> None:
    loop = loop_of({**LANTERN, "run": {"steps": 1_000, "cycle_steps": 1_000}})
    shares = []
    explore = loop.assembly.policy.explore

    def watched(carry: Any, state: Any, first: Any) -> Any:
        decision = explore(carry, state, first)
        shares.append((decision.action == decision.extras["label"]).mean())
        return decision

    loop.assembly.policy.explore = watched
    loop.train()
    assert shares[0] == 1.0
    assert loop.assembly.policy._beta() == 0.0
    assert np.mean(shares[:10]) > 0.9


def test_few_demonstrations_mislead_a_clone_and_not_dagger(tmp_path: Path) -> None:
    """From one door's way alone a clone knows half the game; DAgger, with the same expert, comes to see all of it."""
    call("record", "toy/lantern", "--agent", "expert", "--games", "1", "--out", tmp_path / "rec")
    cloning = {
        **LANTERN,
        "policy": {"name": "bc", "patience": None},
        "replay": {"name": "demonstrations", "recordings": [str(tmp_path / "rec")], "validation": 0},
    }
    clone, student = loop_of(cloning), loop_of(LANTERN)
    clone.train()
    student.train()
    assert clone.run.evaluations[-1].return_mean < 0.7
    assert student.run.evaluations[-1].return_mean == 1.0


def test_killed_and_resumed_equals_never_stopped_to_the_bit(tmp_path: Path) -> None:
    file = written({**LANTERN, "run": {"steps": 8_000, "cycle_steps": 800}}, tmp_path)
    whole = start("run", file, "--out", tmp_path / "whole", "--json")
    killed = tmp_path / "killed"
    hits = kill_and_resume(["run", file, "--out", killed, "--json"], killed, kills=2, within=0.3)
    _, errors = whole.communicate(timeout=120)
    assert whole.returncode == 0, errors
    assert hits > 0, "no kill came in time: the test proves nothing"
    assert differing(latest(killed), latest(tmp_path / "whole")) == []


class Leftward(RandomPolicy):
    """An expert without chance or state."""

    def act(self, carry: Any, state: Any, first: Any) -> Decision:
        legal = state.get("action_mask", np.ones((len(first), self._space.n)))
        return Decision((legal != 0).argmax(axis=1))


def test_it_keeps_the_contract_of_a_policy() -> None:
    class Taught(DAgger):
        @classmethod
        def example_setup(cls) -> Setup:
            setup = Setup(spaces.Dict({"place": spaces.Box(-1, 1, (3,))}), spaces.Discrete(4), batch=8)
            return replace(setup, expert=Leftward(Leftward.Config(), setup))

    assert_contract("policy", Taught)


# --- experts ----------------------------------------------------------------------------------------------------------


def test_a_policy_that_needs_an_expert_says_so() -> None:
    with pytest.raises(ConfigError, match="add expert: NAME"):
        composed({**LANTERN, "policy": "dagger"})


def test_an_unknown_expert_is_named() -> None:
    with pytest.raises(AgentctlError, match="did you mean 'toy_expert'"):
        composed({**LANTERN, "policy": {"name": "dagger", "expert": "toy_exprt"}})


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    """A run of the toy's learner, its return 1."""
    done = call("run", "toy/lantern", "--out", tmp_path / "teacher", "--json")
    assert done.returncode == 0, done.stderr
    return tmp_path / "teacher"


def test_the_policy_of_a_run_plays_as_it_did(teacher: Path) -> None:
    saved = ("-s", f"policy={{name: saved, run: {teacher}}}", "--off", "replay")
    done = call("run", "toy/lantern", "--mode", "eval", *saved, "--out", teacher.parent / "saved", "--json")
    assert done.returncode == 0, done.stderr
    assert '"return_mean": 1.0' in done.stdout


def test_a_run_is_an_expert_and_a_student_needs_it_only_to_learn(teacher: Path, tmp_path: Path) -> None:
    stages = {"world_model": "tabular", "perception": ["toy_cells"], "memory": LANTERN["memory"]}
    data = {**LANTERN, **stages, "policy": {"name": "dagger", "expert": str(teacher), "beta_steps": 500}}
    done = call("run", written(data, tmp_path), "--out", tmp_path / "student", "--json")
    assert done.returncode == 0, done.stderr
    assert '"return_mean": 1.0' in done.stdout
    shutil.rmtree(teacher)
    load(tmp_path / "student")
    assert call("eval", tmp_path / "student").returncode == 0


def test_an_expert_that_sees_something_else_is_refused(teacher: Path) -> None:
    with pytest.raises(ConfigError, match="use the same stages"):
        assemble(composed({**LANTERN, "memory": False, "policy": {"name": "dagger", "expert": str(teacher)}}))
