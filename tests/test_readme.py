"""The README keeps its word: its plugin works as pasted, its tables are the measured ones, its links lead somewhere."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest

from agentctl.core.config import compose
from agentctl.core.plugins import Switches
from agentctl.core.runner import train

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
TOY = ROOT / "configs" / "toy" / "lantern.yaml"


def block(language: str, containing: str) -> str:
    """The README's code block in ``language`` that holds the words."""
    blocks = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return next(text for text in blocks if containing in text)


@pytest.fixture
def lively(tmp_path: Path) -> Path:
    path = tmp_path / "lively.py"
    path.write_text(block("python", "class Lively"), encoding="utf-8")
    return path


def test_the_plugin_runs_as_pasted_and_its_term_is_visible(lively: Path, tmp_path: Path) -> None:
    overrides = ["reward=[game, {name: lively, weight: 0.01}]", "run.steps=400", "run.cycle_steps=400"]
    composition = compose(TOY, [*overrides, "evaluation.episodes=4"], (), Switches.parse([str(lively)]))
    run = train(composition, tmp_path / "run", quiet=True)
    assert run.evaluations[-1].terms["lively"] > 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert any("lively" in line.get("terms", {}) for line in lines)


def test_the_plugin_is_left_out_by_the_switch(lively: Path) -> None:
    composition = compose(TOY, (), (), Switches.parse([str(lively), "no:lively"]))
    assert composition.registry.plugins["lively"].status == "disabled"


def test_the_yaml_is_a_run(tmp_path: Path) -> None:
    path = tmp_path / "game.yaml"
    path.write_text(block("yaml", "toy/lantern"), encoding="utf-8")
    assert {chosen.kind for chosen in compose(path).chosen} == {
        "game", "perception", "world_model", "memory", "reward", "policy", "replay",
    }  # fmt: skip


def test_links_and_pictures_are_there() -> None:
    for target in re.findall(r"\]\(((?!http)[^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_tables_are_generated_from_the_result_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    spec = importlib.util.spec_from_file_location("_tables", ROOT / "benchmarks" / "_tables.py")
    assert spec is not None and spec.loader is not None
    tables = importlib.util.module_from_spec(spec)
    sys.modules["_tables"] = tables
    spec.loader.exec_module(tables)
    for page in (tables.README, tables.MEASURED):
        assert tables.refreshed(page) == page.read_text(encoding="utf-8"), "run: python benchmarks/_tables.py"
