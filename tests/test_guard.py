"""The run-time guard: a declared fallback answers, then takes over for good; without one the run stops and says how."""

import copy
import json
import logging
from pathlib import Path
from typing import Any

import clockwork
import numpy as np
import pytest
from running import call, composed, differing, latest, loop_of, step_of, written
from test_loop import Watcher, joined, learnt_batches

from agentctl.core.assembly import assemble, blame, way_out
from agentctl.core.errors import ConfigError
from agentctl.core.guard import CarryGuard, Guard
from agentctl.core.loop import Loop

STAND_INS = {
    "perception": ("flaky/eye", "clockwork/eye"),
    "world_model": ("flaky/model", "clockwork/model"),
    "memory": ("flaky/memory", "clockwork/memory"),
    "reward": ("flaky/reward", "clockwork/reward"),
    "policy": ("flaky/policy", "random"),
}


def flaky(kind: str, fallback: bool | str = True, **options: Any) -> dict[str, Any]:
    """A run whose component of ``kind`` fails as ``options`` say; ``run`` settings go to the run."""
    run = {"steps": 320, "cycle_steps": 80, "max_errors": 3, **options.pop("run", {})}
    data = clockwork.yaml(run=run, evaluation=options.pop("evaluation", {}))
    name, stand_in = STAND_INS[kind]
    stand_in = stand_in if fallback is True else fallback or ""
    block = {"name": name, "fallback": stand_in, **options}
    return data | {kind: [block] if kind in ("perception", "reward") else block}


def guard_of(loop: Loop) -> Guard:
    (guard,) = loop.assembly.guards().values()
    return guard


@pytest.mark.parametrize("kind", STAND_INS)
def test_after_n_errors_the_fallback_takes_over_and_everyone_is_told(kind: str) -> None:
    loop, watcher = loop_of(flaky(kind, fails=(2, 5), fails_from=9)), Watcher()
    loop.run.observers.append(watcher)
    loop.train()
    events = [text for told, text in watcher.seen if told == "fallback"]
    assert [text.split("; ")[1].split(" (")[1] for text in events] == [f"error {n} of 3)" for n in (1, 2, 3)]
    name, stand_in = STAND_INS[kind]
    assert f"{kind} {name!r} failed: RuntimeError: flaky at call 2 [{clockwork.FILE}:" in events[0]
    assert f"{stand_in!r} answered this call" in events[1]
    assert f"{stand_in!r} takes over for the rest of the run" in events[2]
    assert loop.at.step == 320 and guard_of(loop).tripped


@pytest.mark.parametrize("kind", STAND_INS)
def test_what_works_is_never_replaced(kind: str) -> None:
    data = flaky(kind)
    loop, plain = loop_of(data), loop_of({**data, kind: {**copy.deepcopy(np.ravel(data[kind])[0]), "fallback": ""}})
    loop.train()
    plain.train()
    assert guard_of(loop).errors == 0
    assert loop.assembly.policy.weight == plain.assembly.policy.weight


@pytest.mark.parametrize("kind", ["memory", "world_model", "perception"])
def test_a_step_that_the_fallback_answered_is_as_true_as_any(kind: str) -> None:
    """Both parts do the same, so the fallback's answers must fit in seamlessly, however often they alternate."""
    steps = joined(learnt_batches(loop_of(flaky(kind, fails=tuple(range(4, 200, 7)), run={"max_errors": 99}))))
    assert (steps["after time"] == steps["time"] + 1).all()
    if kind != "world_model":
        assert (steps["after count"] == steps["count"] + 1).all()
    if kind == "perception":
        assert (steps["after before"] == steps["time"]).all()


@pytest.mark.parametrize("stand_in", ["random", "clockwork/policy"])
def test_a_policys_learning_is_never_mixed_with_its_fallbacks(stand_in: str) -> None:
    loop, learnt = loop_of(flaky("policy", fails=(7, 31), fails_from=60, fallback=stand_in)), []
    guard = guard_of(loop)
    for who, part in (("part", guard.part), ("fallback", guard.fallback)):
        learn = part.learn
        part.learn = lambda batch, who=who, learn=learn: learnt.append((who, copy.deepcopy(batch))) or learn(batch)
    loop.train()
    for who, batch in learnt:
        plain = who == "fallback" and stand_in == "random"
        assert set(batch.extras) == (set() if plain else {"chance"}), who
        assert set(batch.carry) == (set() if plain else {"age"}), who
    assert [who for who, _ in learnt] == sorted([who for who, _ in learnt], reverse=True)
    assert {who for who, _ in learnt} == {"part", "fallback"}
    for _, batch in learnt:
        assert (np.diff(batch.state["time"], axis=0) == 1)[~batch.first[1:]].all()


def test_carries_stay_apart_and_a_new_episode_forgets_the_old_one() -> None:
    guard = guard_of(loop_of(flaky("policy", fails=(1,), fallback=True)))
    assert isinstance(guard, CarryGuard)
    no, state = np.zeros(3, bool), {"noise": np.zeros(3)}
    carry = guard.explore(guard.initial(3), state, ~no).carry
    assert carry["age"].tolist() == [1, 1, 1]
    carry = guard.explore(carry, state, np.array([False, True, False])).carry  # the fallback answers
    assert carry["age"].tolist() == [1, 0, 1]
    assert guard.explore(carry, state, no).carry["age"].tolist() == [2, 1, 2]


def test_a_fallback_with_a_carry_of_its_own_keeps_it_once_it_is_in_charge() -> None:
    data = flaky("policy", fails=(1,), fails_from=3, run={"max_errors": 2}) | {
        "policy": {"name": "flaky/policy", "fallback": "clockwork/policy", "fails": [1], "fails_from": 3}
    }
    guard = guard_of(loop_of(data))
    no, state, ages = np.zeros(2, bool), {"noise": np.zeros(2)}, []
    carry = guard.initial(2)
    for _ in range(7):
        carry = guard.explore(carry, state, no).carry
        ages.append({name: int(age[0]) for name, age in carry.items()})
    own = [{"age": 1}, {"age": 1}, {"age": 2}]
    assert ages == own + [{"fallback.age": n} for n in (1, 2, 3, 4)]
    assert guard.initial(2).keys() == {"fallback.age"}


@pytest.mark.parametrize("kind", STAND_INS)
def test_resuming_a_guarded_run_is_exact_too(kind: str, tmp_path: Path) -> None:
    """Only the policy counts its calls in its state, so the others fail from the start on; call 21 ends a cycle."""
    fails = {"fails": (21, 31), "fails_from": 60} if kind == "policy" else {"fails_from": 0}
    data = flaky(kind, **fails, run={"keep_checkpoints": 9, "cycle_steps": 88}, evaluation={"every": 9})
    loop_of(data, tmp_path / "whole").train()
    checkpoints = sorted((tmp_path / "whole" / "checkpoints").iterdir())
    for checkpoint in checkpoints[1:-1]:
        again = loop_of(data, tmp_path / checkpoint.name)
        again.resume(checkpoint)
        assert guard_of(again).tripped == (kind != "policy" or step_of(checkpoint) > 240)
        again.train()
        assert differing(latest(tmp_path / checkpoint.name), checkpoints[-1]) == []


def test_evaluation_goes_on_with_the_fallback_that_took_over(caplog: pytest.LogCaptureFixture) -> None:
    loop, watcher = loop_of(flaky("memory", fails_from=0)), Watcher()
    loop.run.observers.append(watcher)
    loop.train()
    assert len([text for told, text in watcher.seen if told == "fallback"]) == 3
    assert len(loop.run.evaluations) == 4 and caplog.records == []


@pytest.mark.parametrize("kind", STAND_INS)
def test_without_a_fallback_the_run_stops_with_a_checkpoint_and_prints_the_switch(kind: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    yaml = written(flaky(kind, fallback=False, fails_from=55), tmp_path)
    stopped = call("run", yaml, "--out", run, "--json")
    switch = f"-s {kind}.0.enabled=false" if kind in ("reward", "perception") else f"--off {kind}"
    switch = "give it a fallback" if kind == "policy" else switch
    assert stopped.returncode == 3, stopped.stderr
    assert f"{kind} {STAND_INS[kind][0]!r} (plugin clockwork) failed: RuntimeError" in stopped.stderr
    assert switch in stopped.stderr and "-p no:clockwork" in stopped.stderr and "Traceback" not in stopped.stderr
    assert step_of(latest(run)) > 80
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert any(line.get("kind") == "checkpoint" for line in lines)


def test_the_switch_that_is_printed_works(tmp_path: Path) -> None:
    yaml = written(flaky("reward", fallback=False, fails_from=0), tmp_path)
    assert call("run", yaml, "--out", tmp_path / "a", "--json").returncode == 3
    assert call("run", yaml, "-s", "reward.0.enabled=false", "--out", tmp_path / "b", "--json").returncode == 0


def test_a_fallback_that_shows_something_else_is_refused() -> None:
    data = flaky("perception") | {"perception": [{"name": "flaky/eye", "fallback": "pixels"}]}
    with pytest.raises(ConfigError, match="pixels"):
        assemble(composed(data))


def raised(loop: Loop) -> Exception:
    with pytest.raises(RuntimeError) as caught:
        loop.train()
    return caught.value


@pytest.mark.parametrize("kind", STAND_INS)
def test_the_blame_finds_the_component_among_others_in_one_file(kind: str) -> None:
    loop = loop_of(flaky(kind, fallback=False, fails_from=3))
    culprit = blame(raised(loop), loop.assembly.composition)
    assert culprit is not None and (culprit.kind, culprit.name) == (kind, STAND_INS[kind][0])


def test_a_fallback_that_fails_is_the_one_to_blame() -> None:
    data = flaky("memory", fails_from=0)
    loop = loop_of(data)
    guard_of(loop).fallback.recall = lambda state, time: state["no such thing"]
    guard_of(loop).fallback.write = clockwork.fail_when_due  # takes other arguments: a TypeError
    with pytest.raises(KeyError):
        loop.train()
    loop = loop_of(
        flaky("policy", fails_from=0) | {"policy": {"name": "flaky/policy", "fails_from": 0, "fallback": "random"}}
    )
    guard_of(loop).fallback._space = None
    with pytest.raises(AttributeError) as caught:
        loop.train()
    culprit = blame(caught.value, loop.assembly.composition)
    assert culprit is not None and culprit.name == "random"
    assert "name another one" in way_out(culprit)


def test_outside_a_run_the_event_goes_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    assembly = assemble(composed(flaky("perception", fails=(0,))), batch=2)
    with caplog.at_level(logging.WARNING, "agentctl"):
        assembly.pipeline.begin(assembly.game.reset(0), 2, {})
    assert "flaky/eye" in caplog.text and "error 1 of 3" in caplog.text
