"""`agentctl compare` on runs with world models: the same real games, the same dreams, and what came of each."""

from __future__ import annotations

import json
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import lucid
import pytest
from running import written

from agentctl.core.commands.compare import compare
from agentctl.core.config import compose
from agentctl.core.errors import ConfigError
from agentctl.core.foresight import HORIZONS, foresee
from agentctl.core.plugins import Switches
from agentctl.core.runner import train


def run_of(data: dict[str, Any], folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    unseen = Switches(disable=frozenset(("progress", "tensorboard", "report")))
    train(compose(written(data, folder), (), (), unseen), folder / "run", quiet=True)
    return folder / "run"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Of a model that is the game's own rule, and of one that takes left for right."""
    models: dict[str, dict[str, Any]] = {"exact": {}, "mirrored": {"mirrored": True}}
    return [run_of(lucid.yaml(model), tmp_path_factory.mktemp(name)) for name, model in models.items()]


def test_both_dream_from_one_start_with_one_sequence_of_actions(runs: list[Path]) -> None:
    found = foresee(runs, seed=0)
    exact, mirrored = found.worlds.values()
    assert len(exact.film) == len(mirrored.film) == len(found.real) == max(HORIZONS)
    assert all((one == real).all() for one, real in zip(exact.film, found.real, strict=True))
    assert [exact.psnr(horizon) for horizon in HORIZONS] == [None] * 3, "without any error"
    late, copied = mirrored.psnr(32), found.copied.psnr(32)
    assert late is not None and copied is not None


def test_the_command_tells_metrics_drift_and_films_real_and_both_side_by_side(runs: list[Path], tmp_path: Path) -> None:
    with redirect_stdout(StringIO()) as said:
        compare(runs, seed=3, out=tmp_path, plugin=None, json_=True)
    told = json.loads(said.getvalue())
    assert told["worlds"][str(runs[0])]["psnr, 8 ahead"] is None
    assert told["worlds"][str(runs[1])]["psnr, 8 ahead"] > 0
    frames = imageio.mimread(told["video"], memtest=False)
    height, width = frames[0].shape[:2]
    assert width > 2.9 * height * 75 / 60, "three pictures of 75 x 60"
    with redirect_stdout(StringIO()) as said:
        compare(runs, seed=3, out=tmp_path, plugin=None, json_=False)
    assert "the frame at the start" in said.getvalue()


def test_without_pictures_the_metrics_are_told_and_nothing_is_filmed(tmp_path: Path) -> None:
    counting = {"perception": "toy_cells", "world_model": {"name": "tabular"}, "policy": "random", "plugins": []}
    both = [run_of(lucid.yaml(**counting, run={"steps": steps}), tmp_path / str(steps)) for steps in (64, 2_000)]
    found = foresee(both, seed=0)
    less, more = found.worlds.values()
    assert found.real == [] and more.metrics["nll"] < less.metrics["nll"] < more.metrics["uniform_nll"]


def test_runs_of_different_games_are_not_compared(runs: list[Path], tmp_path: Path) -> None:
    other = run_of(lucid.yaml(game={"name": "toy/lantern", "limit": 9}), tmp_path)
    with pytest.raises(ConfigError, match="compare runs of one game"):
        foresee([runs[0], other], seed=0)
