"""docs/plugins.md tells all that there is: every hook, every check, every status; and its examples run."""

import importlib.util
import re
from pathlib import Path

import pytest
from typer.main import get_command

from agentctl.core.commands.plugins import app
from agentctl.core.contracts import contract
from agentctl.core.contracts.reference import call_of, hook_specs
from agentctl.core.plugins import KINDS, Registry
from agentctl.testing import __all__ as helpers
from agentctl.testing import run_cli

TESTS = Path(__file__).resolve().parent
PAGE = (TESTS.parent / "docs" / "plugins.md").read_text(encoding="utf-8")
HOOKS = hook_specs()


def blocks(language: str) -> list[str]:
    """The page's code blocks of one language."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_has_a_section_with_its_exact_arguments(name: str) -> None:
    section = re.search(rf"^### `{re.escape(call_of(HOOKS[name]))}`\n\n(.+?)(?=\n##)", PAGE, re.DOTALL | re.MULTILINE)
    assert section is not None and len(section[1]) > 80


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_is_named_by_a_test(name: str) -> None:
    others = [path for path in TESTS.glob("test_*.py") if path != Path(__file__).resolve()]
    assert [path.name for path in others if name in path.read_text(encoding="utf-8")] != []


def test_every_builtin_component_loads() -> None:
    registry = Registry()
    rows = [(kind, row) for plugin in registry.plugins.values() for kind, row in plugin.components if plugin.builtin]
    here = [(kind, row) for kind, row in rows if all(importlib.util.find_spec(name) for name in row.requires)]
    assert len(here) > 10
    for kind, row in {row.target: (kind, row) for kind, row in here}.values():
        assert registry.load(kind, row.name).Config


def test_every_check_is_documented() -> None:
    promised = PAGE.partition("## The contract")[2].partition("## Testing")[0]
    names = {name for kind in KINDS for name in contract(kind)} | {"manifest", "import", "observers"}
    assert [name for name in sorted(names) if name not in promised] == []


def test_every_status_is_documented() -> None:
    table = PAGE.partition("## What became of a plugin")[2]
    for status in ("ok", "disabled", "failed", "incompatible", "missing extra"):
        assert f"| {status} |" in table


def test_every_command_on_the_page_exists_and_each_is_on_it() -> None:
    told = set(re.findall(r"agentctl plugins (\w+)", PAGE))
    assert told == set(get_command(app).commands)


def test_every_helper_for_tests_is_documented() -> None:
    told = PAGE.partition("## Testing with pytest")[2]
    assert [name for name in helpers if name not in told and name != "Result"] == []


@pytest.fixture(scope="module")
def novelty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's one-file plugin and its run, as a reader would save them."""
    folder = tmp_path_factory.mktemp("novelty")
    code = next(block for block in blocks("python") if "class Novelty" in block)
    (folder / "novelty.py").write_text(code, encoding="utf-8")
    run = next(block for block in blocks("yaml") if "novelty.py" in block)
    (folder / "run.yaml").write_text(run, encoding="utf-8")
    return folder


def test_the_one_file_plugin_keeps_its_contract(novelty: Path) -> None:
    done = run_cli("plugins", "check", "novelty", "-p", "novelty.py", "--json", cwd=novelty)
    assert done.exit_code == 0, done.stdout


def test_the_one_file_plugin_runs(novelty: Path) -> None:
    short = ("-s", "run.steps=400", "-s", "run.cycle_steps=400", "-s", "evaluation.episodes=2")
    done = run_cli("run", "run.yaml", *short, "--json", "--out", novelty / "run", cwd=novelty)
    assert done.exit_code == 0, done.stderr
    assert '"novelty"' in (novelty / "run" / "metrics.jsonl").read_text(encoding="utf-8")
