"""The set-up: what it would install and say; and once, slowly, the real thing in a fresh copy."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


def load_bootstrap() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bootstrap", REPOSITORY / "bootstrap.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


bootstrap = load_bootstrap()


def having(*programs: str) -> Callable[[str], str | None]:
    """Return a `shutil.which` for a machine with only these programs."""
    return lambda name: f"/bin/{name}" if name in programs else None


@pytest.mark.parametrize(
    ("config", "extras"),
    [
        ("# needs: atari torch\nversion: 1\n", ["atari", "torch"]),
        ("# A maze.\n# needs:\nversion: 1\n", []),
        ("version: 1\n", [*bootstrap.ALL_EXTRAS]),
        ("version: 1\n# needs: torch\n", [*bootstrap.ALL_EXTRAS]),
        ("", [*bootstrap.ALL_EXTRAS]),
    ],
)
def test_a_config_names_its_extras_in_its_opening_comment(config: str, extras: list[str]) -> None:
    assert bootstrap.needs(config) == extras


EXTRAS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def test_all_extras_are_those_of_the_distribution_but_what_brings_torchvision() -> None:
    assert set(bootstrap.ALL_EXTRAS) == set(EXTRAS) - {"all", "dev", "timm"}
    (everything,) = EXTRAS["all"]
    assert set(everything.removeprefix("game-agentctl[").removesuffix("]").split(",")) == set(bootstrap.ALL_EXTRAS)


def test_torchvision_comes_with_no_extra_but_its_own() -> None:
    bringing = {name for name, wanted in EXTRAS.items() if any(re.match("timm|torchvision", each) for each in wanted)}
    assert bringing == {"timm"}


def test_shipped_configs_ask_for_extras_that_exist() -> None:
    asked = {extra for path in REPOSITORY.glob("configs/**/*.yaml") for extra in bootstrap.needs(path.read_text())}
    assert asked <= set(EXTRAS)


def test_no_game_means_the_default_one() -> None:
    assert bootstrap.split_game([]) == (bootstrap.DEFAULT_GAME, [])
    assert bootstrap.split_game(["--off", "memory"]) == (bootstrap.DEFAULT_GAME, ["--off", "memory"])


def test_a_game_is_looked_up_here_then_beside_bootstrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert bootstrap.split_game(["pyproject.toml", "--json"]) == (REPOSITORY / "pyproject.toml", ["--json"])
    (tmp_path / "mine.yaml").touch()
    assert bootstrap.split_game(["mine.yaml"]) == (tmp_path / "mine.yaml", [])


@pytest.mark.parametrize("changed", ["pyproject.toml", "setup.py", "constraints.txt"])
def test_the_fingerprint_follows_what_an_install_depends_on(tmp_path: Path, changed: str) -> None:
    for name in ("pyproject.toml", "setup.py", "constraints.txt"):
        (tmp_path / name).touch()
    before = bootstrap.fingerprint(tmp_path)
    assert bootstrap.fingerprint(tmp_path) == before
    (tmp_path / changed).write_text("# other")
    assert bootstrap.fingerprint(tmp_path) != before


@pytest.fixture
def installs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Turn installing into a list of the extras asked for, with an empty `.venv`."""
    asked: list[list[str]] = []
    monkeypatch.setattr(bootstrap, "STAMP", tmp_path / "stamp")
    monkeypatch.setattr(bootstrap, "make_venv", lambda: None)
    monkeypatch.setattr(bootstrap, "must", lambda: None)
    monkeypatch.setattr(bootstrap, "install_commands", lambda extras: asked.append(extras) or [])
    return asked


def test_installing_happens_once_and_extras_add_up(installs: list[list[str]]) -> None:
    assert [bootstrap.ensure_installed(extras) for extras in (["torch"], ["torch"], [], ["atari"])] == [
        True,
        False,
        False,
        True,
    ]
    assert installs == [["torch"], ["atari", "torch"]]


def test_an_interrupted_install_is_done_again(installs: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        context.setattr(bootstrap, "must", interrupted)
        bootstrap.ensure_installed(["torch"])
    assert bootstrap.ensure_installed(["torch"])


def test_without_uv_pip_installs() -> None:
    (command,) = bootstrap.install_commands(["torch", "video"], having())
    assert command[1:] == ["-m", "pip", "install", "-e", ".[torch,video]", "-c", "constraints.txt"]
    assert bootstrap.install_commands([], having())[0][4:6] == ["-e", "."]


def test_with_uv_and_no_gpu_a_cpu_torch_is_tried_first() -> None:
    first, second = bootstrap.install_commands(["torch"], having("uv"))
    assert first == [*second, "--torch-backend", "cpu"]
    assert bootstrap.install_commands(["torch"], having("uv", "nvidia-smi")) == [second]


def test_missing_system_packages_are_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert bootstrap.missing_system_packages(having()) == ["chromium", "xdotool", "xvfb"]
    assert bootstrap.missing_system_packages(having("google-chrome", "xdotool", "Xvfb")) == []
    monkeypatch.setattr(bootstrap, "ensure_installed", lambda extras: False)
    monkeypatch.setattr(bootstrap, "missing_system_packages", lambda: ["chromium"])
    monkeypatch.setattr(bootstrap, "call", lambda command: 0)
    monkeypatch.setattr(bootstrap, "link_for_type_checkers", lambda: None)
    assert bootstrap.main(["test"]) == 0
    assert "chromium is missing" in capsys.readouterr().err


def test_every_check_runs_and_one_failure_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[list[str]] = []
    monkeypatch.setattr(bootstrap, "ensure_installed", lambda extras: False)
    monkeypatch.setattr(bootstrap, "link_for_type_checkers", lambda: None)
    monkeypatch.setattr(bootstrap, "call", lambda command: ran.append(command[3:]) or int("check" in command))
    assert bootstrap.main(["test", "-k", "one"]) == 1
    assert [command[0] for command in ran] == ["ruff", "ruff", "mypy", "pytest"]
    assert ran[-1] == ["pytest", "-k", "one"]
    assert "FAILED (exit code 1)" in capsys.readouterr().err


def test_type_checkers_get_a_link_for_every_root(tmp_path: Path) -> None:
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "py.typed").touch()
    (tmp_path / "docs").mkdir()
    for _ in range(2):
        bootstrap.link_for_type_checkers(tmp_path)
    assert (tmp_path / ".typing" / "agentctl" / "core").resolve() == tmp_path / "core"
    assert [link.name for link in (tmp_path / ".typing" / "agentctl").iterdir()] == ["core"]


def test_wrong_use_explains_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bootstrap.main([]) == 2
    assert "python bootstrap.py run" in capsys.readouterr().err
    assert bootstrap.main(["--help"]) == 0
    assert bootstrap.main(["run", str(tmp_path / "none.yaml")]) == 2
    assert "no such configuration" in capsys.readouterr().err


def test_an_old_python_is_told_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 1))
    assert bootstrap.main(["run"]) == 4
    assert "needs Python 3.11 or newer; this is Python 3.10" in capsys.readouterr().err


@pytest.mark.slow
def test_a_fresh_copy_runs_from_anywhere_and_the_second_time_at_once(tmp_path: Path) -> None:
    copy = tmp_path / "a checkout"
    ignored = shutil.ignore_patterns(".git", ".venv", ".typing", "*.egg-info", "__pycache__", "*_cache", "runs")
    shutil.copytree(REPOSITORY, copy, ignore=ignored)
    game = next(path for path in sorted(copy.glob("configs/toy/*.yaml")) if bootstrap.needs(path.read_text()) == [])
    command = [sys.executable, str(copy / "bootstrap.py"), "run", str(game.relative_to(copy)), "--dry-run"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=600)
    began = time.monotonic()
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=60)
    assert time.monotonic() - began < 10
    assert not list((copy / ".venv").glob("**/site-packages/torch"))
