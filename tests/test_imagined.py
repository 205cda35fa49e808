"""`game: imagined`: policies that learn inside a run's world model, and are measured in its real game."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import clockwork
import lucid
import numpy as np
import pytest
import yaml as pyyaml
from running import QUIET, ROOT, call, composed, contents, differing, kill_and_resume, latest, loop_of, start, written

from agentctl.core.assembly import assemble
from agentctl.core.config import compose
from agentctl.core.errors import ConfigError, NotReadyError
from agentctl.core.plugins import Switches
from agentctl.core.protocols import Imagining, Setup
from agentctl.core.runner import train
from agentctl.games.imagined.game import ImaginedGame
from agentctl.games.imagined.starts import PER_ROW
from agentctl.games.toy.game import MAZE, neighbours
from agentctl.testing import assert_contract

PAGE = (ROOT / "docs" / "dreaming.md").read_text(encoding="utf-8")
LANTERN = ROOT / "configs" / "toy" / "lantern.yaml"
SILENT = Switches(disable=frozenset(QUIET))
SHORTEST = 15  # steps to a door; tests/test_toy.py finds it by search


@pytest.fixture(scope="module")
def tabular(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of the toy's YAML: its world model has counted the maze, and what the memory holds."""
    folder = tmp_path_factory.mktemp("imagined") / "tabular"
    train(compose(LANTERN, ["evaluation.episodes=4"], (), SILENT), folder, quiet=True)
    return folder


def run_of(data: dict[str, Any], folder: Path) -> Path:
    """A run of ``data`` in a folder of its own below ``folder``."""
    folder.mkdir(exist_ok=True)
    train(compose(written(data, folder), (), (), SILENT), folder / "wm", quiet=True)
    return folder / "wm"


def inside(run: Path, policy: Any = "random", **game: Any) -> dict[str, Any]:
    """A short run inside the world model of ``run``."""
    return {
        "game": {"name": "imagined", "run": str(run), "batch": 8, **game},
        "policy": policy,
        "replay": {"name": "rollout", "steps": 16},
        "run": {"steps": 1280, "cycle_steps": 640},
        "evaluation": {"episodes": 8},
    }


def imagined(run: Path, batch: int = 8, **options: Any) -> ImaginedGame:
    return ImaginedGame(ImaginedGame.Config(run=run, **options), Setup(batch=batch))


# --- learning in it ---------------------------------------------------------------------------------------------------


def test_who_learnt_only_in_the_model_finds_the_door_in_the_real_game(tabular: Path) -> None:
    """By the YAML of the page."""
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    data = pyyaml.safe_load(block.replace("runs/maze", str(tabular)))
    loop = loop_of({**data, "run": {"steps": 160_000, "cycle_steps": 160_000}})
    loop.train()
    evaluation = loop.run.evaluations[-1]
    assert evaluation.return_mean > 0.95 and np.mean(evaluation.lengths) < SHORTEST + 3
    assert evaluation.return_random < 0.3


def test_its_steps_are_those_of_the_maze(tabular: Path) -> None:
    """A move that was never tried changes nothing, says `tabular`; all others are the real ones."""
    game, rng, tiles = imagined(tabular, 16, horizon=30), np.random.default_rng(0), np.array([list(m) for m in MAZE])
    after, doors = neighbours(tiles), np.flatnonzero(np.isin(tiles, ["a", "b"]).ravel())
    seen, exact = game.reset(0), []
    for _ in range(300):
        action = rng.integers(4, size=16)
        step = game.step(action)
        cell = step.observation["cell"].copy()
        if step.final is not None:
            cell[step.final.rows] = step.final.arrays["cell"]
        right = cell == after[seen["cell"], action]
        assert (right | (cell == seen["cell"])).all()
        assert (step.ended == np.isin(cell, doors)).all()
        exact.append(right.mean())
        seen = step.observation
    assert np.mean(exact) > 0.95


# --- what is measured is real -----------------------------------------------------------------------------------------


def test_returns_are_real_ones_whatever_the_model_promises(tmp_path: Path) -> None:
    """In the dream every step pays 1 and nothing ends; the expert's real games pay 1 at their 15th step."""
    run = run_of(lucid.yaml({"generous": True}), tmp_path)
    loop = loop_of(inside(run, "toy_expert", horizon=16))
    loop.train()
    assert loop.at.tally.return_mean == 16
    evaluation = loop.run.evaluations[-1]
    assert evaluation.returns == [1.0] * 8 and evaluation.lengths == [SHORTEST] * 8


def test_the_random_reference_is_the_real_games(tabular: Path) -> None:
    real = {"game": {"name": "toy/lantern", "batch": 8}, "policy": "random", "evaluation": {"episodes": 40}}
    dreamt = inside(tabular) | {"evaluation": {"episodes": 40}}
    expected = loop_of(real).evaluator.random_returns()
    assert expected is not None and any(expected)
    assert loop_of(dreamt).evaluator.random_returns() == expected


def test_a_game_imagined_from_an_imagined_one_is_still_measured_awake(tabular: Path, tmp_path: Path) -> None:
    first = inside(tabular, "toy_expert") | {"world_model": "tabular"}
    second = inside(run_of(first, tmp_path), "toy_expert")
    episodes = loop_of(second).evaluator.policy_episodes(frames=False)
    assert episodes is not None and episodes.returns == [1.0] * 8


def test_awake_it_shows_what_it_shows_asleep(tmp_path: Path) -> None:
    """Only what the model imagines: a policy is never measured on more than it learnt from."""
    data = lucid.yaml({"draws": False}, perception=[])
    game = imagined(run_of(data | {"policy": "random"}, tmp_path))
    awake = game.awake(3)
    assert isinstance(game, Imagining) and not isinstance(awake, Imagining)
    assert game.observation_space == awake.observation_space and set(game.observation_space) == {"place"}
    assert set(game.reset(0)) == set(awake.reset(0)) == {"place"}
    assert set(awake.step(np.zeros(3, np.int64)).observation) == {"place"}
    assert game.action_space == awake.action_space


def test_what_a_model_only_passes_on_is_neither_observed_nor_shown(drifting: Path, tmp_path: Path) -> None:
    """It would stand still: here row, seed and episode; or the picture, where only its cells are counted."""
    assert set(imagined(drifting).observation_space) == {"count", "noise", "time"}
    data = lucid.yaml(world_model="tabular", policy="random", replay={"name": "rollout", "steps": 8})
    game = imagined(run_of(data, tmp_path))
    assert set(game.observation_space) == {"cell", "lantern"}
    game.reset(0)
    with pytest.raises(NotReadyError, match="imagines cell, lantern, nor draws the picture"):
        game.frame()


@pytest.fixture(scope="module")
def drifting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of clockwork, whose game cannot save its state, and whose world model draws noise all the time."""
    data = clockwork.yaml(saves=False, hazard=0.0, limit=99, run={"steps": 96, "cycle_steps": 96})
    data |= {"world_model": "drifting", "plugins": [*data["plugins"], str(lucid.FILE)]}
    return run_of(data, tmp_path_factory.mktemp("drifting"))


def inside_clockwork(run: Path, **settings: Any) -> dict[str, Any]:
    game = {"name": "imagined", "run": str(run), "batch": 4, "horizon": 3, "start_steps": 4}
    settings = {"steps": 320, "cycle_steps": 36, "keep_checkpoints": 99, "seed": 3, **settings}
    data = clockwork.yaml(run=settings) | {"game": game}
    return data | {"world_model": False, "memory": False}


def test_training_is_the_same_however_often_it_is_evaluated(drifting: Path, tmp_path: Path) -> None:
    ends = []
    for every in (1, 3):
        data = inside_clockwork(drifting, cycle_steps=32)
        loop_of(data | {"evaluation": {"episodes": 3, "max_steps": 12, "every": every}}, tmp_path / str(every)).train()
        found = contents(latest(tmp_path / str(every)))
        del found["loop.json"]["evaluations"], found["checkpoint.json"]
        ends.append(found)
    assert ends[0] == ends[1]


def test_evaluating_reads_no_file_of_the_run_again(drifting: Path, tmp_path: Path) -> None:
    """It may go on training meanwhile, and drop the checkpoint."""
    run = Path(shutil.copytree(drifting, tmp_path / "run"))
    loop = loop_of(inside_clockwork(run))
    shutil.rmtree(run)
    loop.train()
    assert len(loop.run.evaluations) == 9


# --- where it begins, and how it restarts -----------------------------------------------------------------------------


def test_episodes_begin_in_real_situations_of_all_rows_and_moments(drifting: Path) -> None:
    """Clockwork shows who and when it is, and its model carries a count of the steps that it saw."""
    game, begun = imagined(drifting, 4, horizon=1, start_steps=5), []
    game.reset(0)
    for _ in range(60):
        state, carry = game._state, game._carry
        assert (state["count"] == state["time"]).all() and (carry["steps"] == state["time"]).all()
        assert (state["before"] == state["time"] - 1).all()
        begun += list(zip(*(state[name].tolist() for name in ("seed", "row", "time")), strict=True))
        assert (game.step(np.zeros(4, np.int64)).final.arrays["count"] == state["time"] + 1).all()
    assert len(set(begun)) == len(begun) == 240
    assert len({seed for seed, _, _ in begun}) == 60 / PER_ROW
    counts = np.zeros((4, 6))
    np.add.at(counts, tuple(np.array([(row, time) for _, row, time in begun]).T), 1)
    assert (counts.sum(axis=1) == 60).all() and counts.min() > 2


def test_the_real_game_rests_while_it_is_imagined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    endless = run_of(lucid.yaml({"generous": True}), tmp_path)
    game = imagined(endless, 4, horizon=6, start_steps=9)
    game.reset(0)
    with monkeypatch.context() as patch:
        patch.setattr(game._real, "step", lambda action: pytest.fail("the real game was played"))
        for _ in range(PER_ROW * 6 - 1):
            game.step(np.zeros(4, np.int64))
    steps: list[int] = []
    real = game._real.step
    monkeypatch.setattr(game._real, "step", lambda action: steps.append(0) or real(action))
    game.step(np.zeros(4, np.int64))
    assert 0 < len(steps) <= 9


def test_rows_end_by_the_model_or_are_cut_at_the_horizon_and_go_on_elsewhere(tabular: Path) -> None:
    game, rng = imagined(tabular, 64, horizon=25, start_steps=90), np.random.default_rng(1)
    game.reset(3)
    age, ends = np.zeros(64, int), 0
    for _ in range(600):
        step = game.step(rng.integers(4, size=64))
        age += 1
        assert (step.cut == (~step.ended & (age == 25))).all()
        stopped = step.ended | step.cut
        assert (step.final.rows.tolist() if step.final else []) == np.flatnonzero(stopped).tolist()
        age[stopped] = 0
        ends += step.ended.sum()
    assert ends > 5


def test_it_is_a_game_like_any_other(tmp_path: Path) -> None:
    """The whole contract: batches, determinism, save and load, final observations, Gymnasium's own checks."""
    run = run_of(lucid.yaml(), tmp_path)
    assert_contract("game", ImaginedGame, run=str(run), horizon=5, start_steps=6)


def test_the_same_seed_gives_the_same_game_whatever_was_played_before(drifting: Path) -> None:
    game, seen = imagined(drifting, 4, horizon=3), []
    for seed in (0, 0, 1):
        first = game.reset(seed)
        seen.append(np.stack([first["noise"], *(game.step(np.ones(4, int)).observation["noise"] for _ in range(20))]))
    assert np.array_equal(seen[0], seen[1])
    assert not np.array_equal(seen[0], seen[2])


def test_its_picture_is_the_models_drawn_if_it_must_be(tmp_path: Path) -> None:
    drawn, decoded = (
        imagined(run_of(lucid.yaml({"draws": draws}), tmp_path / str(draws)), 2, start_steps=0)
        for draws in (True, False)
    )
    for game in (drawn, decoded):
        game.reset(0)
        game.step(np.zeros(2, np.int64))
    assert drawn.frame().shape == (60, 75, 3)
    assert np.array_equal(drawn.frame(), decoded.frame())


def test_a_model_without_pictures_says_so(tabular: Path) -> None:
    game = imagined(tabular)
    game.reset(0)
    with pytest.raises(NotReadyError, match="imagines cell, lantern, recalled_lantern, and the percept holds no pic"):
        game.frame()


# --- resuming ---------------------------------------------------------------------------------------------------------


def test_resuming_at_any_checkpoint_gives_the_same_end(drifting: Path, tmp_path: Path) -> None:
    """Although the real game cannot save its state, and the model draws noise each time that it is played."""
    data = inside_clockwork(drifting)
    loop_of(data, tmp_path / "whole").train()
    checkpoints = sorted((tmp_path / "whole" / "checkpoints").iterdir())
    assert len(checkpoints) == 10
    for checkpoint in checkpoints[:-1]:
        again = loop_of(data, tmp_path / checkpoint.name)
        again.resume(checkpoint)
        again.train()
        assert differing(latest(tmp_path / checkpoint.name), checkpoints[-1]) == []


def test_killed_and_resumed_equals_never_stopped_to_the_bit(tabular: Path, tmp_path: Path) -> None:
    data = inside(tabular, {"name": "dyna_q", "planning": 0}) | {"run": {"steps": 12_000, "cycle_steps": 1_200}}
    path = written(data | {"evaluation": {"episodes": 2}}, tmp_path)
    whole, killed = start("run", path, "--out", tmp_path / "whole", "--json"), tmp_path / "killed"
    hits = kill_and_resume(["run", path, "--out", killed, "--json"], killed, 2, 0.3)
    _, errors = whole.communicate(timeout=120)
    assert whole.returncode == 0, errors
    assert hits > 0, "no kill came in time: the test proves nothing"
    assert differing(latest(killed), latest(tmp_path / "whole")) == []


def test_it_goes_on_in_the_checkpoint_that_it_began_in(drifting: Path) -> None:
    chosen = composed(inside_clockwork(drifting)).one("game")
    assert chosen is not None and chosen.config.run == latest(drifting).absolute()


def test_the_models_weights_are_not_written_again(tabular: Path) -> None:
    game = imagined(tabular)
    game.reset(0)
    game.step(np.zeros(8, np.int64))
    assert not [name for name in game.save().arrays if name.startswith("model.")]


# --- what is refused --------------------------------------------------------------------------------------------------


def test_a_run_without_a_world_model_is_named(tmp_path: Path) -> None:
    run = run_of(clockwork.yaml() | {"world_model": False}, tmp_path)
    with pytest.raises(ConfigError, match="wm.*has no world model to play in"):
        assemble(composed(inside(run)))


def test_a_model_that_imagines_nothing_is_no_game(tmp_path: Path) -> None:
    run = run_of(clockwork.yaml(), tmp_path)  # its model leaves all as it is
    with pytest.raises(ConfigError, match=r"imagines nothing: it leaves all as it is \(before, count"):
        assemble(composed(inside(run)))


def test_what_is_no_run_is_named_with_its_line(tmp_path: Path) -> None:
    done = call("config", "check", written(inside(tmp_path / "nowhere"), tmp_path))
    assert done.returncode == 2
    assert "run.yaml:" in done.stderr and "nowhere: no checkpoint there" in done.stderr
