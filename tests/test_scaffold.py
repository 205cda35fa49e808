"""`agentctl plugins new`: a package of every kind that is clean, keeps its contract, installs, runs, breaks alone."""

import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agentctl.core.errors import ConfigError
from agentctl.core.plugins import KINDS, Registry
from agentctl.core.scaffold import SUMMARIES, check_free, create
from agentctl.testing import run_cli
from agentctl.testing.cli import Result

REPOSITORY = Path(__file__).resolve().parent.parent
SHORT = ("-s", "run.steps=160", "-s", "run.cycle_steps=160", "-s", "evaluation.episodes=2")
QUICK = [word for name in ("recorder", "tensorboard", "report") for word in ("-p", f"no:{name}")]


def name_of(kind: str) -> str:
    return f"my-{kind.replace('_', '-')}"


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A package of every kind, as `plugins new` writes it."""
    out = tmp_path_factory.mktemp("packages")
    return {kind: create(kind, name_of(kind), out) for kind in SUMMARIES}


@pytest.fixture(scope="session")
def python(packages: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment on top of this one, with every package installed as an author would: ``pip install -e``."""
    venv = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    interpreter = venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    ask = [interpreter, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site = Path(subprocess.run(ask, check=True, capture_output=True, text=True).stdout.strip())
    ours = sysconfig.get_path("purelib")
    (site / "underneath.pth").write_text(f"import site; site.addsitedir({ours!r})\n", encoding="utf-8")
    editable = [word for folder in packages.values() for word in ("-e", folder)]
    quietly = ["--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    subprocess.run([interpreter, "-m", "pip", "install", *quietly, *editable], check=True)
    return interpreter


def statuses(python: Path, *words: str) -> dict[str, dict[str, Any]]:
    listed = run_cli("plugins", "list", "--json", *words, python=python).json["plugins"]
    return {plugin["name"]: plugin for plugin in listed}


def run_example(python: Path, folder: Path, out: Path, *words: str) -> Result:
    """`agentctl run example.yaml`, short and without what only draws."""
    command = ["run", "example.yaml", *SHORT, *QUICK, "--json", "--out", out, *words]
    return run_cli(*command, cwd=folder, env={"OMP_NUM_THREADS": "1"}, python=python)


# what is written


def test_there_is_a_template_for_every_kind_and_for_observers() -> None:
    assert set(SUMMARIES) == {*KINDS, "observer"}


def test_every_package_is_clean(packages: dict[str, Path]) -> None:
    for command in (["check", "--select", "E,F,W,I,UP,B,C90,SIM,RET"], ["format", "--check"]):
        ruff = [sys.executable, "-P", "-m", "ruff", *command, *packages.values()]
        done = subprocess.run(ruff, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_every_package_is_fully_typed(packages: dict[str, Path], tmp_path: Path) -> None:
    house = tmp_path / "agentctl"
    house.mkdir()
    for folder in ("core", "testing"):
        (house / folder).symlink_to(REPOSITORY / folder, target_is_directory=True)
    search = os.pathsep.join(map(str, [tmp_path, *packages.values()]))
    modules = [word for kind in packages for word in ("-p", f"agentctl_{name_of(kind).replace('-', '_')}")]
    flags = [
        "--strict",
        "--namespace-packages",
        "--explicit-package-bases",
        "--config-file=",
        "--follow-imports=silent",
    ]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "mypy", *flags, f"--cache-dir={tmp_path / 'cache'}", *modules],
        capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "MYPYPATH": search}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_readme_names_the_exact_commands(packages: dict[str, Path]) -> None:
    text = (packages["reward"] / "README.md").read_text(encoding="utf-8")
    commands = "pip install -e .", "agentctl plugins check my-reward", "agentctl run example.yaml", "-p no:my-reward"
    assert [command for command in commands if command not in text] == []


def test_a_package_is_never_overwritten(tmp_path: Path) -> None:
    folder = create("reward", "mine", tmp_path)
    (folder / "README.md").write_text("my own words", encoding="utf-8")
    with pytest.raises(ConfigError, match="is there already"):
        create("memory", "mine", tmp_path)
    assert (folder / "README.md").read_text(encoding="utf-8") == "my own words"


@pytest.mark.parametrize(
    ("kind", "name", "hint"),
    [
        ("rewrd", "mine", "did you mean 'reward'"),
        ("reward", "my reward!", "e.g. 'my-reward'"),
        ("reward", "9lives", "a letter first"),
        ("reward", "class", "cannot name a plugin"),
        ("reward", "../mine", "e.g. 'mine'"),
    ],
)
def test_what_cannot_be_written_is_refused_with_a_hint(tmp_path: Path, kind: str, name: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        create(kind, name, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("kind", "name"), [("game", "toy"), ("policy", "random")])
def test_a_name_that_is_taken_is_refused(kind: str, name: str) -> None:
    with pytest.raises(ConfigError, match=f"called '{name}'.*choose another name"):
        check_free(Registry(), kind, name)


# what an author does with it


def test_every_installed_package_is_listed_as_ok(python: Path) -> None:
    listed = statuses(python)
    for kind in SUMMARIES:
        plugin = listed[name_of(kind)]
        assert (plugin["status"], plugin["version"]) == ("ok", "0.1.0"), plugin
        components = [(component["kind"], component["name"]) for component in plugin["components"]]
        assert components == ([] if kind == "observer" else [(kind, name_of(kind))])


def test_every_package_passes_its_own_tests(python: Path, packages: dict[str, Path]) -> None:
    flags = ["-q", "-p", "no:cacheprovider", "--import-mode=importlib"]
    command = [python, "-P", "-m", "pytest", *flags, *packages.values()]
    done = subprocess.run(command, capture_output=True, text=True, cwd=packages["game"].parent, check=False)
    assert done.returncode == 0, done.stdout
    assert "23 passed" in done.stdout


@pytest.mark.parametrize("kind", ["reward", "observer"])
def test_check_passes_from_the_command_line(python: Path, kind: str) -> None:
    done = run_cli("plugins", "check", name_of(kind), "--json", python=python)
    assert done.exit_code == 0 and done.json["ok"], done.stdout


def test_every_example_runs(python: Path, packages: dict[str, Path], tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda item: run_example(python, item[1], tmp_path / item[0]), packages.items()))
    for kind, result in zip(packages, done, strict=True):
        assert result.exit_code == 0, (kind, result.stderr)
        assert result.json["steps"] == 160
    assert (tmp_path / "observer" / "my-observer.md").read_text(encoding="utf-8").startswith("- step 160")


def test_a_run_that_needs_a_disabled_plugin_names_the_line(
    python: Path, packages: dict[str, Path], tmp_path: Path
) -> None:
    assert statuses(python, "-p", "no:my-reward")["my-reward"]["status"] == "disabled"
    done = run_example(python, packages["reward"], tmp_path / "run", "-p", "no:my-reward")
    text = (packages["reward"] / "example.yaml").read_text(encoding="utf-8").splitlines()
    line = next(number for number, words in enumerate(text, start=1) if "my-reward, weight" in words)
    assert done.exit_code == 3
    assert f"example.yaml:{line}" in done.stderr and "my-reward is disabled" in done.stderr


@contextmanager
def broken(path: Path, line: str) -> Iterator[int]:
    """The file with one line more; yields that line's number."""
    text = path.read_text(encoding="utf-8")
    path.write_text(f"{text}{line}\n", encoding="utf-8")
    try:
        yield len(text.splitlines()) + 1
    finally:
        path.write_text(text, encoding="utf-8")


def test_a_broken_table_fails_alone(python: Path, packages: dict[str, Path], tmp_path: Path) -> None:
    with broken(packages["replay"] / "agentctl_my_replay" / "__init__.py", "def broken(:") as line:
        listed = statuses(python)
        assert listed["my-replay"]["status"] == "failed"
        assert f"agentctl_my_replay{os.sep}__init__.py:{line}" in listed["my-replay"]["reason"]
        assert {listed[name_of(kind)]["status"] for kind in SUMMARIES if kind != "replay"} == {"ok"}
        assert run_example(python, packages["policy"], tmp_path / "other").exit_code == 0
        needs_it = run_example(python, packages["replay"], tmp_path / "needs it")
        assert needs_it.exit_code == 3 and f"__init__.py:{line}" in needs_it.stderr
    assert statuses(python)["my-replay"]["status"] == "ok"


def test_a_broken_implementation_names_its_line_when_it_is_used(
    python: Path, packages: dict[str, Path], tmp_path: Path
) -> None:
    with broken(packages["memory"] / "agentctl_my_memory" / "my_memory.py", "oops = 1 / 0") as line:
        assert statuses(python)["my-memory"]["status"] == "ok"
        done = run_example(python, packages["memory"], tmp_path / "run")
        assert done.exit_code == 3
        assert f"my_memory.py:{line}" in done.stderr and "-p no:my-memory" in done.stderr
