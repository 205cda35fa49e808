"""The command line as a user meets it: what it prints, what it leaves, and its exit codes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TOY = str(ROOT / "configs" / "toy" / "lantern.yaml")
SHORT = ("-s", "run.steps=800", "-s", "run.cycle_steps=400", "-s", "evaluation.episodes=4")


def agentctl(*arguments: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agentctl.core.cli", *arguments],
        cwd=cwd, capture_output=True, text=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, object]]:
    """A short toy run and the last line of its ``--json``."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    done = agentctl("run", TOY, *SHORT, "--out", str(folder), "--json")
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout.splitlines()[-1])


def test_run_json_ends_with_the_promised_keys(run: tuple[Path, dict[str, object]]) -> None:
    folder, summary = run
    promised = {"run", "steps", "seconds", "steps_per_second", "return_mean", "return_random", "checkpoint"}
    assert promised <= summary.keys()
    assert summary["run"] == str(folder) and summary["steps"] == 800
    assert Path(str(summary["checkpoint"])).is_dir()


def test_a_run_leaves_the_promised_folder(run: tuple[Path, dict[str, object]]) -> None:
    there = {path.name for path in run[0].iterdir()}
    promised = {"config.yaml", "run.lock.json", "metrics.jsonl", "tensorboard", "checkpoints", "videos", "report.html"}
    assert promised <= there


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    done = agentctl("run", TOY, "--dry-run", "--json", cwd=tmp_path)
    assert done.returncode == 0 and json.loads(done.stdout)["ok"]
    assert list(tmp_path.iterdir()) == []


def test_eval_repeats_the_evaluation_of_the_last_checkpoint(run: tuple[Path, dict[str, object]]) -> None:
    folder, summary = run
    again = json.loads(agentctl("eval", str(folder), "--json").stdout)
    assert (again["return_mean"], again["return_random"]) == (summary["return_mean"], summary["return_random"])


def test_eval_writes_a_video_when_asked(run: tuple[Path, dict[str, object]]) -> None:
    before = set((run[0] / "videos").iterdir())
    for path in before:
        path.unlink()
    assert agentctl("eval", str(run[0]), "--video", "--episodes", "2").returncode == 0
    assert [path.suffix for path in (run[0] / "videos").iterdir()] == [".mp4"]


def test_compare_names_what_differs(run: tuple[Path, dict[str, object]], tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert agentctl("run", TOY, *SHORT, "-s", "policy.planning=3", "--out", str(other)).returncode == 0
    told = json.loads(agentctl("compare", str(run[0]), str(other), "--json").stdout)
    assert told["differences"] == {str(other): ["config.policy.planning: was 10, is 3"]}


@pytest.mark.parametrize("mode", ["eval", "play"])
def test_the_other_modes_do_not_learn(mode: str, run: tuple[Path, dict[str, object]], tmp_path: Path) -> None:
    out = tmp_path / mode
    done = agentctl("run", TOY, *SHORT, "--mode", mode, "--out", str(out), "--json")
    assert done.returncode == 0, done.stderr
    assert not (out / "checkpoints").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["run", "nope.yaml"], 2, "no such file"),
        (["run"], 2, "which game?"),
        (["run", TOY, "-s", "policy.lr=fast"], 2, "policy.lr"),
        (["run", TOY, "-s", "policy.name=pppo"], 3, "did you mean 'ppo'?"),
        (["run", TOY, "-p", "no:agents"], 3, "switched off"),
        (["run", TOY, "--off", "policy"], 2, "policy"),
        (["run", "--resume", "nowhere"], 2, "nowhere"),
        (["eval", "."], 1, "not a run's folder"),
        (["bench", "ppo-atary"], 1, "did you mean 'ppo-atari'?"),
        (["games", "info", "atari/pongg"], 3, "did you mean 'atari/pong'?"),
    ],
)
def test_errors_are_one_message_and_an_exit_code(arguments: list[str], code: int, told: str) -> None:
    done = agentctl(*arguments)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert told in done.stderr


def test_doctor_gives_a_remedy_for_what_is_missing() -> None:
    told = json.loads(agentctl("doctor", "--json").stdout)
    assert told["ok"]
    assert all(finding["remedy"] for finding in told["findings"] if finding["state"] == "missing")


@pytest.mark.parametrize(
    "command",
    ["run", "eval", "compare", "doctor", "config check", "config explain", "plugins new", "games info"],
)
def test_every_command_explains_itself(command: str) -> None:
    done = agentctl(*command.split(), "--help")
    assert done.returncode == 0 and "Usage" in done.stdout


def test_bench_lists_its_programmes_and_hands_their_options_on() -> None:
    assert "ppo-atari" in agentctl("bench").stdout
    assert "--peer" in agentctl("bench", "ppo-atari", "--help").stdout
