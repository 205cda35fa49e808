"""Workers that train one policy together: nothing they learn is lost, and what happens to one is no harm to the run."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import clockwork
import hogwild
import numpy as np
import pytest
from running import agentctl, call, environment, latest, loop_of, wait_for_checkpoint, written

from agentctl.core.assembly import assemble
from agentctl.core.checkpoint import read_checkpoint
from agentctl.core.config import compose
from agentctl.core.embed import load
from agentctl.core.errors import AgentctlError, ConfigError, PluginError
from agentctl.core.loop import Loop
from agentctl.core.plugins import Switches
from agentctl.core.run import Evaluation, Observer
from agentctl.core.shared import Shared


def yaml(steps: int = 600, cycle: int = 200, slow: float = 0.0, **policy: Any) -> dict[str, Any]:
    data = clockwork.yaml(saves=False, slow=slow, run={"steps": steps, "cycle_steps": cycle, "keep_checkpoints": 99})
    data |= {"world_model": False, "policy": {"name": "hogwild/ledger", **policy}}
    return {**data, "plugins": [*data["plugins"], str(hogwild.FILE)]}


class Watcher(Observer):
    def __init__(self) -> None:
        self.events: list[str] = []
        self.learnt: list[dict[str, float]] = []

    def learned(self, progress: Any) -> None:
        self.learnt.append(progress.metrics)

    def event(self, kind: str, text: str) -> None:
        self.events.append(f"{kind}: {text}")


def watched(data: dict[str, Any], folder: Path | None = None) -> tuple[Loop, Watcher]:
    loop, watcher = loop_of(data, folder), Watcher()
    loop.run.observers.append(watcher)
    return loop, watcher


def ledger(run: Path) -> np.ndarray:
    return read_checkpoint(latest(run))["policy"].arrays["numbers"]


def kill_who_signs(sign: Path) -> threading.Thread:
    """Kill the worker that leaves its process id in ``sign``."""

    def wait_and_kill() -> None:
        while not sign.exists():
            time.sleep(0.01)
        os.kill(int(sign.read_text()), signal.SIGKILL)

    thread = threading.Thread(target=wait_and_kill, daemon=True)
    thread.start()
    return thread


def descendants(pid: int) -> set[int]:
    """The processes below ``pid``."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found, new = set(), {pid}
    while new := {child for child, parent in parents.items() if parent in new} - found:
        found |= new
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def all_gone(pids: set[int], seconds: float) -> bool:
    limit = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < limit:
        time.sleep(0.02)
    return not any(map(alive, pids))


@pytest.mark.parametrize("locking", [True, False], ids=["with the lock", "sabotage: without"])
def test_what_processes_add_under_the_lock_is_the_sum_and_without_it_is_not(locking: bool) -> None:
    shared, times = Shared(16), 2000
    numbers = np.frombuffer(shared.buffer)
    numbers[1] = 3
    arguments = (shared, times, locking)
    processes = [get_context("spawn").Process(target=hogwild.add_often, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert bool(numbers[0] == 3 * times) is locking, numbers[0]


def test_a_kill_gives_the_lock_back() -> None:
    shared = Shared(16)
    numbers = np.frombuffer(shared.buffer)
    holder = get_context("spawn").Process(target=hogwild.hold, args=(shared,))
    holder.start()
    while not numbers[1]:
        time.sleep(0.01)
    holder.kill()
    began = time.monotonic()
    with shared.locked():
        assert time.monotonic() - began < 5
    holder.join()


def test_every_update_of_every_worker_is_counted_and_in_the_sum(tmp_path: Path) -> None:
    loop, watcher = watched(yaml(steps=2000, cycle=700, slow=0.002, workers=3), tmp_path)
    loop.train()
    updates, steps, reward, *each = ledger(tmp_path)
    each = np.round([own for own in each if own])
    assert len(each) == 3 and min(each) > 0
    assert updates == sum(each) and steps == 20 * updates
    assert 2000 <= loop.at.step < 2000 + 3 * 4
    assert 0 <= loop.at.step - steps < 3 * 20  # not learnt from yet: less than a rollout of each
    assert 0 < reward <= 2 * steps
    assert len({metrics["seed"] for metrics in watcher.learnt}) == 3  # each plays games of its own
    tally = loop.at.tally
    assert tally.episodes > 100 and len(tally.recent) == 100 and 0 < tally.return_mean < 12


def test_checkpoints_and_evaluations_see_weights_that_nobody_moves(tmp_path: Path) -> None:
    loop, seen = loop_of(yaml(workers=2), tmp_path), []
    evaluate = loop.evaluator.policy_episodes

    def slowly(*, frames: bool) -> Any:
        seen.append(loop.assembly.policy.numbers.copy())
        time.sleep(0.2)
        seen.append(loop.assembly.policy.numbers.copy())
        return evaluate(frames=frames)

    loop.evaluator.policy_episodes = slowly  # type: ignore[method-assign]
    loop.train()
    assert len(seen) == 6
    for before, after in zip(seen[::2], seen[1::2], strict=True):
        np.testing.assert_array_equal(before, after)
    updates = [
        read_checkpoint(path)["policy"].arrays["numbers"][0] for path in sorted((tmp_path / "checkpoints").iterdir())
    ]
    assert updates[1:] == [before[0] for before in seen[::2]]


@pytest.mark.parametrize(
    ("misbehaves", "told"),
    [
        ("hangs", "was killed by SIGKILL"),
        ("dies before a child", "was killed by SIGKILL"),
        ("leaves", "ended by itself (exit code 7)"),
        ("fails", "failed: "),
    ],
)
def test_a_worker_that_dies_with_the_lock_in_its_hands_is_replaced(misbehaves: str, told: str, tmp_path: Path) -> None:
    sign = tmp_path / "sign"
    loop, watcher = watched(yaml(misbehaves=misbehaves, sign=str(sign)), tmp_path / "run")
    killer = kill_who_signs(sign) if misbehaves == "hangs" else None
    loop.train()
    if killer:
        killer.join()
    (event,) = watcher.events
    assert event.startswith("worker: worker ") and told in event and "another takes its place" in event
    assert (
        misbehaves != "fails"
        or "policy 'hogwild/ledger' (plugin hogwild) failed: RuntimeError: the ledger is full" in event
    )
    updates, steps, _, *each = ledger(tmp_path / "run")
    assert loop.at.step >= 600 and steps == 20 * updates
    assert np.count_nonzero(each) == 3 and updates == np.round(each).sum()


def test_a_component_that_always_fails_stops_the_run_with_its_name_and_its_traceback(tmp_path: Path) -> None:
    loop, watcher = watched(yaml(misbehaves="fails", every_time=True, sign=str(tmp_path / "sign")), tmp_path / "run")
    with pytest.raises(PluginError) as failure:
        loop.train()
    text = str(failure.value)
    assert "3 in its place have failed in a row" in text and "the ledger is full" in text
    assert "in misbehave" in text and "choose another one" in text
    assert watcher.events[-1].startswith("checkpoint: what was learnt is saved")
    assert loop._games._places == []


def test_workers_that_are_always_killed_before_they_learn_stop_the_run(tmp_path: Path) -> None:
    loop, _ = watched(
        yaml(misbehaves="dies", every_time=True, workers=1, sign=str(tmp_path / "sign")), tmp_path / "run"
    )
    with pytest.raises(
        AgentctlError, match="was killed by SIGKILL; 3 in its place have failed in a row, none had learnt"
    ):
        loop.train()


def test_a_worker_killed_while_it_rests_is_replaced(tmp_path: Path) -> None:
    loop, watcher = watched(yaml(), tmp_path)

    class Killer(Observer):
        def evaluated(self, evaluation: Evaluation) -> None:
            if evaluation.step < 400:
                os.kill(loop._games._places[0].process.pid, signal.SIGKILL)

    loop.run.observers.append(Killer())
    loop.train()
    assert loop.at.step >= 600
    assert [event for event in watcher.events if "worker 0 was killed by SIGKILL" in event]


def test_what_rewards_and_memory_know_is_in_the_checkpoint_and_given_to_new_workers(tmp_path: Path) -> None:
    data = yaml() | {"reward": ["game", "hogwild/count"]}
    loop_of(data, tmp_path).train()
    parts = read_checkpoint(latest(tmp_path))
    scored = parts["reward-1"].arrays["scored"][0]
    assert 10 < scored <= parts["loop"].data["step"] / 4
    assert parts["memory"].arrays["held"].any()
    data["run"]["steps"] = 800
    again = loop_of(data, tmp_path)
    again.resume(latest(tmp_path))
    again.train()
    assert read_checkpoint(latest(tmp_path))["reward-1"].arrays["scored"][0] > scored
    assert ledger(tmp_path)[0] >= 800 / 20 - 5


SLOW = {"steps": 100_000, "cycle": 400, "slow": 0.002}


def started(run: Path, data: dict[str, Any]) -> "subprocess.Popen[str]":
    """In a process group of its own, as from a terminal."""
    return subprocess.Popen(
        agentctl("run", written(data, run.parent), "--out", run, "--json"), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, env=environment(), start_new_session=True,
    )  # fmt: skip


def test_killed_itself_the_run_leaves_no_process_behind_and_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = started(run, yaml(**SLOW))
    wait_for_checkpoint(process, run)
    below = descendants(process.pid)
    assert len(below) >= 2
    process.kill()
    process.communicate(timeout=20)
    assert all_gone(below, 10)
    before = read_checkpoint(latest(run))
    step = before["loop"].data["step"]
    again = call("run", "--resume", run, "-s", f"run.steps={step + 400}", "--force", "--json")
    assert again.returncode == 0, again.stderr
    assert step + 400 <= json.loads(again.stdout.splitlines()[-1])["steps"] < step + 410
    new = ledger(run)[0] - before["policy"].arrays["numbers"][0]
    assert 400 / 20 - 2 <= new <= 400 / 20


def test_ctrl_c_at_the_terminal_saves_and_ends_all(tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = started(run, yaml(**SLOW))
    wait_for_checkpoint(process, run)
    below = descendants(process.pid)
    os.killpg(process.pid, signal.SIGINT)
    out, errors = process.communicate(timeout=20)
    assert process.returncode == 130 and "Traceback" not in errors, errors
    summary = json.loads(out.splitlines()[-1])
    assert summary["stopped"] and summary["checkpoint"] == str(latest(run))
    assert ledger(run)[1] <= summary["steps"]
    assert all_gone(below, 5)


def test_a_second_ctrl_c_stops_at_once(tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = started(run, yaml(**{**SLOW, "slow": 2.0}))
    wait_for_checkpoint(process, run, after=-1)
    below = descendants(process.pid)
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(0.3)
    began = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130 and time.monotonic() - began < 1.5
    assert all_gone(below, 5)


def test_acting_starts_no_process(tmp_path: Path) -> None:
    path = written(yaml(), tmp_path)
    before = descendants(os.getpid())
    bot = load(path)
    assert bot.act({name: 0 for name in ("seed", "row", "episode", "time")}) == 0
    loop = loop_of(yaml(steps=40))
    loop.play()
    loop.evaluate()
    assert descendants(os.getpid()) == before


REFUSED = {
    "world_model: clockwork/model\npolicy: hogwild/ledger": (
        r"run\.yaml:2:1: world_model 'clockwork/model' cannot stand before policy 'hogwild/ledger', "
        r"which 2 worker processes train, .* --off world_model"
    ),
    "policy: {name: hogwild/ledger, fallback: random}": (
        r"run\.yaml:2:\d+: 'random' cannot be the fallback of policy 'hogwild/ledger', .*remove `fallback`"
    ),
}


@pytest.mark.parametrize("lines", REFUSED)
def test_what_workers_cannot_share_is_refused(lines: str, tmp_path: Path) -> None:
    plugins = f"plugins: [{clockwork.FILE}, {hogwild.FILE}]"
    (tmp_path / "run.yaml").write_text(f"game: clockwork/game\n{lines}\nreplay: rollout\n{plugins}\n")
    with pytest.raises(ConfigError, match=REFUSED[lines]):
        assemble(compose(tmp_path / "run.yaml", (), (), Switches()))


def test_what_starts_while_signals_are_held_lets_none_through() -> None:
    """Also the first process of all, with which Python starts another one that would let them through."""
    seen = subprocess.run([sys.executable, "-c", HELD], capture_output=True, text=True, check=True, timeout=60)
    assert seen.stdout.split() == ["True", "True"]


HELD = """
import signal
from multiprocessing import get_context
from agentctl.core.crew import _signals_held

if __name__ == "__main__":
    for _ in range(2):
        with _signals_held():
            process = get_context("spawn").Process(target=print)
            process.start()
            held = signal.pthread_sigmask(signal.SIG_BLOCK, ())
            process.kill()
            print({signal.SIGINT, signal.SIGTERM} <= held)
"""
