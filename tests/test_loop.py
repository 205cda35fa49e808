"""The loop: what follows what, what a checkpoint cuts, and what a run leaves when it is stopped or fails."""

import copy
import dataclasses
import json
import signal
import statistics
import time
from pathlib import Path
from typing import Any

import clockwork
import numpy as np
import pytest
from running import call, composed, latest, loop_of, start, step_of, wait_for_checkpoint, written

from agentctl.core.loop import Loop
from agentctl.core.run import Evaluation, Observer
from agentctl.core.types import Array, Batch


def learnt_batches(loop: Loop) -> list[Batch]:
    """Let ``loop`` train; what its policy learnt from."""
    batches: list[Batch] = []
    learn = loop.assembly.policy.learn

    def spy(batch: Batch) -> dict[str, float]:
        batches.append(copy.deepcopy(batch))
        return learn(batch)

    loop.assembly.policy.learn = spy  # type: ignore[method-assign]
    loop.train()
    return batches


def joined(batches: list[Batch]) -> dict[str, Array]:
    """All steps in order, each (T, B), with what came ``after`` each."""
    names = ("first", "action", "reward", "ended", "cut")
    steps = {name: np.concatenate([getattr(batch, name) for batch in batches]) for name in names}
    steps |= {key: np.concatenate([batch.state[key] for batch in batches]) for key in batches[0].state}
    after = [batch.successors() for batch in batches]
    steps |= {f"after {key}": np.concatenate([states[key] for states in after]) for key in after[0]}
    finals = [np.zeros(batch.ended.shape, bool) for batch in batches]
    for batch, final in zip(batches, finals, strict=True):
        final[tuple(batch.final_index.T)] = True
    return steps | {"final": np.concatenate(finals)}


@pytest.mark.parametrize("saves", [True, False])
@pytest.mark.parametrize(("lives", "hazard", "limit"), [(0.0, 0.1, 6), (0.3, 0.2, 4), (0.2, 0.0, 99), (0.5, 0.5, 1)])
def test_every_step_is_followed_by_what_followed_it(saves: bool, lives: float, hazard: float, limit: int) -> None:
    run = {"steps": 784, "cycle_steps": 56}
    steps = joined(
        learnt_batches(loop_of(clockwork.yaml(saves=saves, lives=lives, hazard=hazard, limit=limit, run=run)))
    )
    for key in ("seed", "row", "episode"):
        assert (steps[f"after {key}"] == steps[key]).all(), key
    assert (steps["after time"] == steps["time"] + 1).all()
    at_checkpoints = (np.arange(len(steps["cut"])) % 14 == 13)[:, None]  # 56 steps of 4 rows
    # A lost life begins an episode for the learner, in the same game; a checkpoint's final states show it, too.
    within = ~steps["ended"] | (steps["final"] & ~at_checkpoints)
    assert (steps["after count"] == steps["count"] + 1)[within].all()
    assert (steps["after led"] == steps["action"])[within].all()
    assert (steps["after before"] == steps["time"])[within].all()
    assert (steps["after count"] == 0)[steps["ended"] & ~steps["final"]].all()


@pytest.mark.parametrize("saves", [True, False])
def test_an_episode_begins_exactly_after_one_has_stopped(saves: bool) -> None:
    steps = joined(
        learnt_batches(loop_of(clockwork.yaml(saves=saves, lives=0.2, run={"steps": 800, "cycle_steps": 56})))
    )
    assert steps["first"][0].all()
    assert (steps["first"][1:] == (steps["ended"] | steps["cut"])[:-1]).all()
    for name, at_first in (("count", 0), ("led", -1), ("before", -1)):
        assert ((steps[name] == at_first) == steps["first"]).all(), name
    assert not (steps["ended"] & steps["cut"]).any()


@pytest.mark.parametrize("saves", [True, False])
def test_a_checkpoint_cuts_all_rows_of_games_that_cannot_save_and_of_no_others(saves: bool) -> None:
    data = clockwork.yaml(saves=saves, hazard=0.0, lives=0.3, limit=1000, run={"steps": 960, "cycle_steps": 96})
    steps = joined(learnt_batches(loop_of(data)))
    at_checkpoints = np.arange(len(steps["cut"])) % 24 == 23  # 96 steps of 4 rows
    assert not steps["cut"][~at_checkpoints].any()
    assert (steps["cut"] | steps["ended"])[at_checkpoints].all() != saves
    assert steps["ended"][at_checkpoints].any() and not steps["ended"][at_checkpoints].all()
    assert len(np.unique(steps["seed"])) == (1 if saves else 10)


def test_the_time_limit_cuts_and_the_rules_end() -> None:
    steps = joined(learnt_batches(loop_of(clockwork.yaml(hazard=0.2, run={"steps": 2000, "cycle_steps": 2000}))))
    assert (steps["cut"] == (~steps["ended"] & (steps["time"] == 5))).all()
    assert 0.1 < steps["ended"].mean() < 0.3


@pytest.mark.parametrize(("steps", "cycle", "expected"), [(101, 40, [40, 80, 104]), (8, 3, [4, 8]), (10, 100, [12])])
def test_steps_that_the_batch_does_not_divide_are_rounded_up(
    steps: int, cycle: int, expected: list[int], tmp_path: Path
) -> None:
    data = clockwork.yaml(run={"steps": steps, "cycle_steps": cycle, "keep_checkpoints": 9})
    loop_of(data, tmp_path).train()
    assert [step_of(path) for path in sorted((tmp_path / "checkpoints").iterdir())] == [0, *expected]


def test_returns_are_whole_games_lost_lives_included() -> None:
    loop = loop_of(clockwork.yaml(lives=0.5, hazard=0.0, limit=6, run={"steps": 480, "cycle_steps": 480}))
    steps = joined(learnt_batches(loop))
    games = steps["reward"].reshape(-1, 6, 4).sum(axis=1)  # each lasts 6 steps
    assert loop.at.tally.episodes == games.size
    assert loop.at.tally.recent == pytest.approx(games.ravel()[-100:].tolist())


class Watcher(Observer):
    """Notes everything, in order."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Any]] = []

    def stepped(self, transition: Any) -> None:
        self.seen.append(("stepped", len(transition.reward)))

    def learned(self, progress: Any) -> None:
        self.seen.append(("learned", progress.step))

    def evaluated(self, evaluation: Evaluation) -> None:
        self.seen.append(("evaluated", evaluation.step))

    def saved(self, checkpoint: Path, progress: Any) -> None:
        self.seen.append(("saved", step_of(checkpoint)))

    def event(self, kind: str, text: str) -> None:
        self.seen.append((kind, text))


def test_a_cycle_collects_learns_evaluates_and_saves(tmp_path: Path) -> None:
    loop, watcher = loop_of(clockwork.yaml(run={"steps": 80, "cycle_steps": 40}), tmp_path), Watcher()
    loop.run.observers.append(watcher)
    loop.train()
    cycle = [("stepped", 4)] * 5 + [("learned", 20)] + [("stepped", 4)] * 5 + [("learned", 40)]
    cycle += [("evaluated", 40), ("saved", 40)]
    assert watcher.seen[: len(cycle)] == cycle
    assert [seen for seen in watcher.seen if seen[0] in ("evaluated", "saved")][2:] == [
        ("evaluated", 80),
        ("saved", 80),
    ]


def test_an_observer_that_fails_is_switched_off_and_the_run_goes_on() -> None:
    class Clumsy(Observer):
        def stepped(self, transition: Any) -> None:
            raise RuntimeError("clumsy")

    loop, watcher = loop_of(clockwork.yaml()), Watcher()
    loop.run.observers += [Clumsy(), watcher]
    loop.train()
    events = [text for kind, text in watcher.seen if kind == "observer"]
    assert events == ["Clumsy failed and is off: RuntimeError: clumsy"]
    assert loop.at.step == 96


CLUMSY = """
from agentctl.core import Observer, hookimpl

class Clumsy(Observer):
    def learned(self, progress):
        raise RuntimeError("oops")

@hookimpl
def agentctl_run_started(run):
    run.observers.append(Clumsy())

@hookimpl
def agentctl_run_ended(run, error):
    raise RuntimeError("at the end, too")
"""


def test_a_plugin_that_fails_beside_a_run_is_named_with_its_switch(tmp_path: Path) -> None:
    (tmp_path / "clumsy.py").write_text(CLUMSY)
    yaml = written(clockwork.yaml(), tmp_path)
    done = call("run", yaml, "-p", tmp_path / "clumsy.py", "--out", tmp_path / "run", "--json")
    assert done.returncode == 0, done.stderr
    (problem,) = json.loads(done.stdout.splitlines()[-1])["problems"]
    assert problem.endswith("RuntimeError: at the end, too; disable it with -p no:clumsy")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    (event,) = [line["text"] for line in lines if line.get("kind") == "observer"]
    assert event == "Clumsy failed and is off: RuntimeError: oops; leave it out with -p no:clumsy"


@pytest.mark.parametrize("watched", [True, False])
def test_frames_are_drawn_only_when_somebody_watches(watched: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class Viewer(Observer):
        def frames(self, frames: list[Any], evaluation: Evaluation) -> None:
            shown.extend(frames)

    loop, shown, games = loop_of(clockwork.yaml()), [], []
    another_game = loop.assembly.another_game
    monkeypatch.setattr(type(loop.assembly), "another_game", lambda self, b: games.append(another_game(b)) or games[-1])
    loop.run.observers += [Viewer()] if watched else [Watcher()]
    loop.train()
    assert (sum(game.drawn for game in games) > 0) is watched is bool(shown)
    assert all(game.closed for game in games)


def test_without_a_folder_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    loop_of(clockwork.yaml(saves=False)).train()
    assert list(tmp_path.iterdir()) == []


def test_a_stop_ends_the_cycle_saves_and_leaves_the_evaluation_out(tmp_path: Path) -> None:
    loop, watcher = loop_of(clockwork.yaml(), tmp_path), Watcher()
    loop.run.observers.append(watcher)
    play = loop.evaluator._play

    def stop_meanwhile(*args: Any, **kwargs: Any) -> Any:
        loop.ask_to_stop()
        return play(*args, **kwargs)

    loop.evaluator._play = stop_meanwhile  # type: ignore[method-assign]
    loop.train()
    assert [seen for seen in watcher.seen if seen[0] in ("evaluated", "saved")] == [("saved", 32)]
    assert loop.assembly.game.closed


SLOW = clockwork.yaml(slow=0.005, run={"steps": 4000, "cycle_steps": 200})


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_saves_and_reports_and_the_run_can_go_on(number: signal.Signals, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start("run", written(SLOW, tmp_path), "--out", run, "--json")
    wait_for_checkpoint(process, run)
    process.send_signal(number)
    out, errors = process.communicate(timeout=20)
    assert process.returncode == 130, errors
    summary = json.loads(out.splitlines()[-1])
    assert summary["stopped"] and summary["checkpoint"] == str(latest(run)) and "once more" in errors
    assert 200 <= step_of(latest(run)) == summary["steps"] < 4000
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["text"] for line in lines if line["event"] == "event"][-1].startswith("stopped by the user")
    more = call("run", "--resume", run, "-s", f"run.steps={summary['steps'] + 40}", "--force", "--json")
    assert more.returncode == 0, more.stderr
    assert json.loads(more.stdout.splitlines()[-1])["steps"] == summary["steps"] + 40


def test_a_second_signal_stops_at_once_and_the_last_checkpoint_stays(tmp_path: Path) -> None:
    run = tmp_path / "run"
    data = clockwork.yaml(slow=1.0, run={"steps": 4000, "cycle_steps": 200})  # a step takes longer than we wait
    process = start("run", written(data, tmp_path), "--out", run, "--json")
    wait_for_checkpoint(process, run, after=-1)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130 and time.monotonic() - began < 0.9
    assert step_of(latest(run)) == 0


class Failing:
    """Makes a part's method raise from its n-th call on."""

    def __init__(self, part: Any, verb: str, after: int) -> None:
        self.real, self.left = getattr(part, verb), after
        setattr(part, verb, self)

    def __call__(self, *args: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("broken")
        return self.real(*args)


PARTS = {
    "policy": ("policy", "explore"),
    "game": ("game", "step"),
    "memory": ("pipeline.memory", "write"),
    "learning": ("pipeline.world_model", "learn"),
}


@pytest.mark.parametrize("saves", [True, False])
@pytest.mark.parametrize("what", PARTS)
def test_a_failure_keeps_what_was_learnt_and_mixes_no_episodes(what: str, saves: bool, tmp_path: Path) -> None:
    data = clockwork.yaml(saves=saves, run={"steps": 960, "cycle_steps": 96})
    broken, watcher = loop_of(data, tmp_path), Watcher()
    broken.run.observers.append(watcher)
    path, verb = PARTS[what]
    part = broken.assembly
    for name in path.split("."):
        part = getattr(part, name)
    Failing(part, verb, after=9 if what == "learning" else 47)
    with pytest.raises(RuntimeError, match="broken"):
        broken.train()
    assert [text for kind, text in watcher.seen if kind == "checkpoint"][0].startswith("what was learnt is saved")
    assert broken.assembly.game.closed
    again = loop_of(data, tmp_path)
    again.resume(latest(tmp_path))
    assert again.at.step == broken.at.step > 96
    assert (again.at.restarts == broken.at.restarts) is saves  # else the same games would begin once more
    assert again.assembly.policy.weight == broken.assembly.policy.weight
    steps = joined(learnt_batches(again))
    assert (steps["after time"] == steps["time"] + 1).all()
    assert (steps["after seed"] == steps["seed"]).all() and (steps["after episode"] == steps["episode"]).all()
    assert again.at.step >= 960


@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_failure_with_spoilt_weights_leaves_the_last_good_checkpoint(tmp_path: Path) -> None:
    loop, watcher = loop_of(clockwork.yaml(run={"steps": 960, "cycle_steps": 96}), tmp_path), Watcher()
    loop.run.observers.append(watcher)

    def spoil(batch: Batch) -> dict[str, float]:
        if loop.at.step > 150:
            loop.assembly.policy.weight = float("nan")
        return {}

    loop.assembly.policy.learn = spoil
    Failing(loop.assembly.policy, "explore", after=47)
    with pytest.raises(RuntimeError, match="broken"):
        loop.train()
    assert step_of(latest(tmp_path)) == 96
    assert any("policy: weight holds NaN" in str(text) for _, text in watcher.seen)


def test_a_failing_evaluation_loses_no_training(tmp_path: Path) -> None:
    loop = loop_of(clockwork.yaml(), tmp_path)
    Failing(loop.evaluator, "policy_episodes", after=1)
    loop.evaluator.policy_episodes = lambda *, frames: (_ for _ in ()).throw(RuntimeError("broken"))  # type: ignore
    with pytest.raises(RuntimeError, match="broken"):
        loop.train()
    assert step_of(latest(tmp_path)) == 32


def test_playing_acts_without_learning() -> None:
    loop = loop_of(clockwork.yaml(run={"steps": 40}))
    weight = loop.assembly.policy.weight
    loop.play()
    assert loop.at.step == 40 and loop.assembly.policy.weight == weight and loop.assembly.game.closed


def test_the_framework_costs_less_than_two_percent_of_an_atari_step() -> None:
    """A batched step of PPO on Pong takes some 1.2 ms; here game and policy do next to nothing."""
    data = clockwork.yaml(run={"steps": 16_000, "cycle_steps": 16_000}, evaluation={"episodes": 1, "max_steps": 1})
    data |= {"world_model": False, "memory": False, "replay": {"name": "rollout", "steps": 100_000}}
    loop = loop_of(data)
    game, policy, replay = loop.assembly.game, loop.assembly.policy, loop.assembly.replay
    observation = game.reset(0)
    step = dataclasses.replace(game.step(np.zeros(4, np.int64)), final=None)
    step.ended[:] = step.cut[:] = step.over[:] = False
    decision = policy.act(policy.initial(4), observation, np.zeros(4, bool))
    game.step, policy.explore = lambda action: step, lambda *args: decision
    replay.add, replay.ready = lambda seen: None, lambda: False
    loop._start()
    seconds = []
    for target in range(2000, 16_001, 2000):
        began = time.perf_counter()
        loop._games.collect(target)
        seconds.append((time.perf_counter() - began) / 500)
    assert min(seconds) < 0.02 * 1.2e-3, f"{statistics.median(seconds) * 1e6:.1f} us"


def test_a_loop_needs_nothing_but_its_composition() -> None:
    """Two loops of one composition in one process give the same numbers: nothing is global."""
    one, other = loop_of(clockwork.yaml()), loop_of(clockwork.yaml())
    other.train()
    one.train()
    assert one.assembly.policy.weight == other.assembly.policy.weight
    assert composed(clockwork.yaml()).digest == one.assembly.composition.digest
