"""Exact resume: killed and resumed, a run ends as one that never stopped, to the bit; and what resume refuses."""

import json
import shutil
import subprocess
from pathlib import Path

import clockwork
import pytest
from running import (
    ROOT,
    agentctl,
    call,
    composed,
    differing,
    environment,
    kill_and_resume,
    latest,
    loop_of,
    start,
    step_of,
    wait_for_checkpoint,
    written,
)

from agentctl.core.config import compose
from agentctl.core.errors import AgentctlError, ConfigError
from agentctl.core.lock import differences, make_lock
from agentctl.core.plugins import Switches
from agentctl.core.runner import new_folder, resume_point, train

TOY = ("configs/toy/lantern.yaml", "-s", "run.steps=6000", "-s", "run.cycle_steps=600", "-s", "evaluation.episodes=4")
PONG = (
    "configs/atari/pong.yaml", "-s", "game.batch=2", "-s", "policy.width=0.1", "-s", "policy.epochs=1",
    "-s", "replay.steps=10", "-s", "run.steps=160", "-s", "run.cycle_steps=32",
    "-s", "evaluation.episodes=1", "-s", "evaluation.max_steps=10", "-s", "evaluation.every=3",
)  # fmt: skip
CARTPOLE = (
    "configs/gym/cartpole.yaml", "-s", "game.batch=4", "-s", "policy.lstm=8", "-s", "replay.steps=24", "-s",
    "policy.minibatches=2", "-s", "run.steps=2400", "-s", "run.cycle_steps=400", "-s", "evaluation.episodes=2",
)  # fmt: skip
RAINBOW = (
    "configs/gym/cartpole-rainbow.yaml", "-s", "replay.capacity=300", "-s", "replay.warmup=100", "-s",
    "replay.batch_size=8", "-s", "run.steps=2000", "-s", "run.cycle_steps=200", "-s", "evaluation.episodes=2",
)  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "kills", "within"),
    [
        pytest.param(TOY, 3, 0.3, id="toy: saves its state; world model, memory, rewards"),
        pytest.param(PONG, 1, 0.5, id="Pong: cannot save its state; PPO in torch"),
        pytest.param(RAINBOW, 3, 0.4, id="CartPole: Rainbow; a replay in files that goes round"),
        pytest.param(PONG, 4, 0.5, id="Pong, killed often", marks=pytest.mark.slow),
        pytest.param(CARTPOLE, 2, 0.5, id="CartPole: cannot save its state; recurrent PPO", marks=pytest.mark.slow),
    ],
)
def test_killed_and_resumed_equals_never_stopped_to_the_bit(
    arguments: tuple[str, ...], kills: int, within: float, tmp_path: Path
) -> None:
    whole = start("run", *arguments, "--out", tmp_path / "whole", "--json")
    killed = tmp_path / "killed"
    hits = kill_and_resume(["run", *arguments, "--out", killed, "--json"], killed, kills, within)
    _, errors = whole.communicate(timeout=120)
    assert whole.returncode == 0, errors
    assert hits > 0, "no kill came in time: the test proves nothing"
    assert latest(killed).name == latest(tmp_path / "whole").name
    assert differing(latest(killed), latest(tmp_path / "whole")) == []


@pytest.mark.parametrize("saves", [True, False])
def test_resuming_at_any_checkpoint_gives_the_same_end(saves: bool, tmp_path: Path) -> None:
    """In this process, from every checkpoint, with a world model that draws, a memory that counts, lives and limits."""
    data = clockwork.yaml(saves=saves, lives=0.2, run={"steps": 320, "cycle_steps": 36, "keep_checkpoints": 99})
    loop_of(data, tmp_path / "whole").train()
    checkpoints = sorted((tmp_path / "whole" / "checkpoints").iterdir())
    assert len(checkpoints) == 10
    for checkpoint in checkpoints[:-1]:
        again = loop_of(data, tmp_path / checkpoint.name)
        again.resume(checkpoint)
        again.train()
        assert differing(latest(tmp_path / checkpoint.name), checkpoints[-1]) == []


def test_a_stop_in_the_middle_of_a_cycle_changes_nothing_where_the_game_saves(tmp_path: Path) -> None:
    data = clockwork.yaml(run={"steps": 320, "cycle_steps": 80, "keep_checkpoints": 99})
    loop_of(data, tmp_path / "whole").train()
    stopped = loop_of(data, tmp_path / "stopped")
    explore, calls = stopped.assembly.policy.explore, []
    stopped.assembly.policy.explore = lambda *a: (
        calls.append(0),
        len(calls) == 29 and stopped.ask_to_stop(),
        explore(*a),
    )[2]
    stopped.train()
    assert step_of(latest(tmp_path / "stopped")) == 30 * 4
    again = loop_of(data, tmp_path / "stopped")
    again.resume(latest(tmp_path / "stopped"))
    again.train()
    assert differing(latest(tmp_path / "stopped"), latest(tmp_path / "whole")) == []


def test_the_comparison_itself_sees_a_difference(tmp_path: Path) -> None:
    for seed in (1, 2):
        loop_of(clockwork.yaml(run={"seed": seed}), tmp_path / str(seed)).train()
    found = differing(latest(tmp_path / "1"), latest(tmp_path / "2"))
    assert {"policy.safetensors:weight", "memory.safetensors:held", "loop.json", "game.json"} <= set(found)


def lines_of(run: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_metrics_are_written_once_however_often_a_run_was_killed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    data = clockwork.yaml(slow=0.001, run={"steps": 4000, "cycle_steps": 400})
    kill_and_resume(["run", written(data, tmp_path), "--out", run, "--json"], run, kills=3, within=0.2)
    for event in ("evaluation", "checkpoint"):
        steps = [line["step"] for line in lines_of(run) if line["event"] == event]
        assert steps == list(range(400, 4001, 400)), event
    steps = [int(str(line["step"])) for line in lines_of(run)]
    assert steps == sorted(steps)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that has ended."""
    folder = tmp_path_factory.mktemp("ended")
    disable = Switches(disable=frozenset(["tensorboard", "recorder", "report"]))
    train(compose(written(clockwork.yaml(), folder), switches=disable), folder / "run", quiet=True)
    return folder / "run"


@pytest.fixture
def ended(template: Path, tmp_path: Path) -> Path:
    """A copy of it, to do with as one likes."""
    return Path(shutil.copytree(template, tmp_path / "run"))


def test_a_finished_run_resumes_to_the_same_summary(ended: Path) -> None:
    before = lines_of(ended)
    again = call("run", "--resume", ended, "--json")
    assert again.returncode == 0, again.stderr
    summary = json.loads(again.stdout.splitlines()[-1])
    evaluation = [line for line in before if line["event"] == "evaluation"][-1]
    assert (summary["steps"], summary["return_mean"]) == (96, evaluation["return_mean"])
    assert lines_of(ended) == before


def test_another_configuration_is_refused_and_the_difference_named(ended: Path) -> None:
    refused = call("run", "--resume", ended, "-s", "replay.steps=7", "--json")
    assert refused.returncode == 2
    assert "config.replay.steps: was 5, is 7" in refused.stderr and "--force" in refused.stderr


def test_force_overrides_and_the_folder_then_tells_the_truth(ended: Path) -> None:
    more = ("-s", "run.steps=160", "--json")
    assert call("run", "--resume", ended, *more).returncode == 2
    forced = call("run", "--resume", ended, *more, "--force")
    assert forced.returncode == 0, forced.stderr
    assert json.loads(forced.stdout.splitlines()[-1])["steps"] == 160
    lock = json.loads((ended / "run.lock.json").read_text())
    assert lock["config"]["run"]["steps"] == 160 and lock["changes"] == [["config.run.steps: was 96, is 160"]]
    assert call("run", "--resume", ended, "--json").returncode == 0


def test_longer_by_force_is_what_long_from_the_start_is(ended: Path, tmp_path: Path) -> None:
    assert call("run", "--resume", ended, "-s", "run.steps=160", "--json", "--force").returncode == 0
    loop_of(clockwork.yaml(run={"steps": 160}), tmp_path / "long").train()
    assert differing(latest(ended), latest(tmp_path / "long")) == []


def test_an_edited_plugin_is_refused_and_named(tmp_path: Path) -> None:
    plugin = tmp_path / "clockwork.py"
    plugin.write_text(clockwork.FILE.read_text())
    path = written({**clockwork.yaml(), "plugins": ["clockwork.py"]}, tmp_path)
    train(compose(path), tmp_path / "run", quiet=True)
    plugin.write_text(clockwork.FILE.read_text() + "\n# changed\n")
    changed = compose(tmp_path / "run" / "config.yaml")
    with pytest.raises(ConfigError, match=r"plugins\.clockwork: was '[0-9a-f]{12}', is '[0-9a-f]{12}'"):
        resume_point(tmp_path / "run", changed, force=False)
    assert resume_point(tmp_path / "run", changed, force=True) == latest(tmp_path / "run")


def test_another_version_of_a_package_or_plugin_is_a_difference_and_another_command_is_not() -> None:
    lock = make_lock(composed(clockwork.yaml()))
    assert lock["packages"]["numpy"] and lock["plugins"].keys() == {"clockwork", "replay"}
    other = json.loads(json.dumps(lock))
    other["command"], other["platform"], other["installed"]["ruff"] = ["agentctl"], "elsewhere", "0"
    assert differences(lock, other) == []
    other["packages"]["numpy"], other["plugins"]["replay"], other["python"] = "9.9", "7", "4.0"
    assert [line.split(":")[0] for line in differences(lock, other)] == ["python", "packages.numpy", "plugins.replay"]


def test_another_batch_is_refused_even_by_force(ended: Path) -> None:
    refused = call("run", "--resume", ended, "-s", "game.batch=2", "-s", "run.steps=160", "--force", "--json")
    assert refused.returncode == 2 and "the checkpoint is of 4 rows, game.batch is 2" in refused.stderr


def test_a_stage_switched_off_is_refused_even_by_force(ended: Path) -> None:
    refused = call("run", "--resume", ended, "--off", "memory", "-s", "run.steps=160", "--force", "--json")
    assert refused.returncode == 2 and "before" in refused.stderr and "switch on and off" in refused.stderr


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a run's folder: it has no run.lock.json"):
        resume_point(tmp_path, composed(clockwork.yaml()), force=False)
    (tmp_path / "run.lock.json").write_text("{")
    with pytest.raises(AgentctlError, match=r"run\.lock\.json: cannot be read"):
        resume_point(tmp_path, composed(clockwork.yaml()), force=False)


def test_a_damaged_checkpoint_stops_the_resume_and_removing_it_helps(ended: Path) -> None:
    damaged = latest(ended)
    (damaged / "policy.safetensors").write_bytes(b"nonsense")
    refused = call("run", "--resume", ended, "--json")
    assert refused.returncode == 1 and f"{damaged / 'policy.safetensors'}: damaged checkpoint" in refused.stderr
    for file in damaged.iterdir():
        file.unlink()
    damaged.rmdir()
    assert call("run", "--resume", ended, "--json").returncode == 0
    assert step_of(latest(ended)) == 96


def test_a_folder_holds_one_run(ended: Path) -> None:
    path = written(clockwork.yaml(), ended.parent)
    refused = call("run", path, "--out", ended, "--json")
    assert refused.returncode == 2 and f"already holds a run; resume it with --resume {ended}" in refused.stderr
    with pytest.raises(ConfigError, match="already holds a run"):
        train(compose(path), ended)
    with pytest.raises(ConfigError, match="already holds a run"):
        new_folder(compose(path), ended)


def test_a_run_killed_before_its_first_checkpoint_can_be_started_again(ended: Path) -> None:
    shutil.rmtree(ended / "checkpoints")
    (ended / "config.yaml").write_text("of another run")
    with pytest.raises(AgentctlError, match="can be started again with --out"):
        resume_point(ended, composed(clockwork.yaml()), force=True)
    train(composed(clockwork.yaml()), ended, quiet=True)
    assert step_of(latest(ended)) == 96 and "clockwork" in (ended / "config.yaml").read_text()


def test_two_processes_never_train_in_one_folder(tmp_path: Path) -> None:
    run = tmp_path / "run"
    path = written(clockwork.yaml(slow=0.01, run={"steps": 100_000, "cycle_steps": 400}), tmp_path)
    first = start("run", path, "--out", run, "--json")
    try:
        wait_for_checkpoint(first, run, after=-1)
        refused = call("run", "--resume", run, "--json")
        assert refused.returncode == 2 and "another process is training there" in refused.stderr
    finally:
        first.kill()
        first.communicate()
    assert (
        call("run", "--resume", run, "-s", "run.steps=8", "--force", "--json").returncode == 0
    )  # a kill gives it back


def test_runs_started_in_the_same_second_get_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    chosen = composed(clockwork.yaml())
    folders = [new_folder(chosen, None) for _ in range(5)]
    assert len(set(folders)) == 5 and all(folder.is_dir() for folder in folders)
    with pytest.raises(ConfigError, match="training needs a replay"):
        train(composed(clockwork.yaml() | {"replay": False}), folders[0])
    assert not folders[0].exists()


def test_runs_side_by_side_do_not_meet(tmp_path: Path) -> None:
    path = written(clockwork.yaml(), tmp_path)
    both = [
        subprocess.Popen(
            agentctl("run", path, "--out", tmp_path / str(n), "--json"), env=environment(), cwd=ROOT,
            stdout=subprocess.DEVNULL,
        )
        for n in range(2)
    ]  # fmt: skip
    assert [process.wait(timeout=60) for process in both] == [0, 0]
    assert differing(latest(tmp_path / "0"), latest(tmp_path / "1")) == []


def test_a_place_that_cannot_be_written_is_named_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused = call("run", written(clockwork.yaml(), tmp_path), "--out", tmp_path / "file" / "run", "--json")
    assert refused.returncode == 1 and "cannot write there" in refused.stderr and "Traceback" not in refused.stderr
