"""Several games in one batch: each is played as it would be alone, by a joystick that means the same in all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from running import composed, loop_of

from agentctl.core.assembly import assemble
from agentctl.core.errors import ConfigError
from agentctl.core.evaluate import random_actions
from agentctl.core.protocols import Setup
from agentctl.core.types import Array
from agentctl.games.multi.game import EXAMPLE, MASK, POSITIONS, MultiGame
from agentctl.games.toy.bounce import LEFT, RIGHT, STAY, Bounce
from agentctl.testing import assert_contract

SMALL, LARGE = EXAMPLE
ARROWS = {("left",): LEFT, ("right",): RIGHT, (): STAY}
ATARI = {"height": 64, "width": 64, "colour": "rgb", "stack": 1}


def multi(games: list[Any], batch: int) -> MultiGame:
    return MultiGame(MultiGame.Config(games=games), Setup(batch=batch, seed=1))


def alone(options: dict[str, Any], batch: int) -> Bounce:
    return Bounce(Bounce.Config.model_validate({k: v for k, v in options.items() if k != "name"}), Setup(batch=batch))


def joystick(keys: tuple[str, ...]) -> int:
    return POSITIONS.index(frozenset(keys))


def test_it_keeps_the_contract_of_a_game() -> None:
    assert_contract("game", MultiGame)


def test_each_row_is_its_own_game_as_it_is_alone() -> None:
    """Five rows of two games, against each game alone from the same states: pictures, rewards, ends and last sights."""
    both, rng = multi([SMALL, {**LARGE, "limit": 30}], 5), np.random.default_rng(0)
    pair = [(alone(SMALL, 3), np.array([0, 2, 4])), (alone({**LARGE, "limit": 30}, 2), np.array([1, 3]))]
    shown, state, ends = both.reset(7), both.save(), 0
    assert state is not None and shown["game"].tolist() == [0, 1, 0, 1, 0]
    for place, (game, rows) in enumerate(pair):
        game.reset(0)
        mine = {k.partition(".")[2]: v for k, v in state.arrays.items() if k.startswith(f"{place}.")}
        game.load(type(state)(mine, state.data["games"][place]))
        assert (shown["pixels"][rows] == game._observe()["picture"]).all()
    for _ in range(60):
        keys = [tuple(ARROWS)[k] for k in rng.integers(3, size=5)]
        step = both.step(np.array([joystick(held) for held in keys]))
        finals: dict[int, Array] = {}
        for game, rows in pair:
            own = game.step(np.array([ARROWS[keys[row]] for row in rows]))
            assert (step.observation["pixels"][rows] == own.observation["picture"]).all()
            assert (step.reward[rows] == own.reward).all() and (step.ended[rows] == own.ended).all()
            assert (step.cut[rows] == own.cut).all()
            if own.final is not None:
                finals |= dict(zip(rows[own.final.rows].tolist(), own.final.arrays["picture"], strict=True))
        found = {} if step.final is None else dict(zip(step.final.rows, step.final.arrays["pixels"], strict=True))
        assert list(found) == sorted(finals) and all((found[row] == finals[row]).all() for row in finals)
        ends += len(found)
    assert ends > 5


def test_what_a_game_lacks_is_masked_and_does_what_no_key_does() -> None:
    game = multi([SMALL], 2)
    mask = game.reset(0)[MASK]
    assert [set(POSITIONS[k]) for k in np.flatnonzero(mask[0])] == [set(), {"right"}, {"left"}]
    start = game.save()
    assert start is not None
    idle = game.step(np.full(2, joystick(())))
    for lacking in np.flatnonzero(mask[0] == 0):
        game.load(start)
        assert (game.step(np.full(2, lacking)).observation["pixels"] == idle.observation["pixels"]).all()
    drawn = random_actions(game.action_space, 2, np.random.default_rng(0), mask)
    assert mask[np.arange(2), drawn].all()


def test_the_joystick_is_ales() -> None:
    """Against ale-py's own names of the 18 actions, and its minimal set of Pong."""
    ale_py = pytest.importorskip("ale_py")
    words = {"UP": "up", "RIGHT": "right", "LEFT": "left", "DOWN": "down", "FIRE": "space"}
    named = [frozenset(key for word, key in words.items() if word in action.name) for action in ale_py.Action]
    assert list(POSITIONS) == named[:18]
    game = multi([{"name": "atari/pong", **ATARI}, {"name": "atari/pong", **ATARI, "full_action_space": True}], 2)
    minimal = [getattr(ale_py.Action, n).value for n in ("NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE")]
    assert np.flatnonzero(game.reset(0)[MASK][0]).tolist() == sorted(minimal)
    assert game.reset(0)[MASK][1].all()
    game.close()


def test_atari_and_the_toy_play_side_by_side() -> None:
    """Pong's rows are those of Pong alone under the same seed and actions."""
    pytest.importorskip("ale_py")
    from agentctl.games.atari.game import AtariGame

    game = multi([{"name": "atari/pong", **ATARI}, LARGE], 3)
    shown = game.reset(5)
    assert shown["pixels"].shape == (3, 64, 64, 3) and game.save() is None
    own = AtariGame(AtariGame.Config(rom="pong", **ATARI), Setup(batch=2))
    seed = int(np.random.SeedSequence(5).generate_state(2)[0] >> 1)
    assert (shown["pixels"][[0, 2]] == own.reset(seed)["pixels"]).all()
    right = own.keys[("right",)]
    for _ in range(40):
        seen, alone_seen = game.step(np.full(3, joystick(("right",)))), own.step(np.full(2, right))
        assert (seen.observation["pixels"][[0, 2]] == alone_seen.observation["pixels"]).all()
    game.close()
    own.close()


@pytest.mark.parametrize(
    ("games", "told"),
    [
        ([SMALL, {**LARGE, "cell_pixels": 2}], r"toy/bounce \(64, 64, 3\), toy/bounce \(32, 32, 3\)"),
        (["toy/bounce", "toy/lantern"], r"toy/lantern"),
        ([{"name": "gym", "id": "CartPole-v1"}], r"gym shows .* must show one picture alone"),
        ([{**SMALL, "batch": 3}], r"set game\.batch"),
        (["toy/bouncy"], r"did you mean 'toy/bounce'"),
        ([{"name": "toy/bounce", "cell": 3}], r"cell"),
    ],
)
def test_games_that_do_not_fit_are_told(games: list[Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        assemble(composed({"game": {"name": "multi", "games": games, "batch": 4}, "policy": "random"}))


RUN = {
    "game": {"name": "multi", "games": [SMALL, LARGE], "batch": 4},
    "policy": "random",
    "replay": {"name": "rollout", "steps": 8},
    "run": {"steps": 64, "cycle_steps": 64},
    "evaluation": {"episodes": 5},
}


def test_returns_are_told_game_by_game() -> None:
    loop = loop_of(RUN)
    loop.train()
    (evaluation,) = loop.run.evaluations
    table = evaluation.tables["returns by game"]
    assert table.rows == {
        "0 toy/bounce": [np.mean(evaluation.returns[::2]), np.mean(evaluation.random_returns[::2]), 3],
        "1 toy/bounce": [np.mean(evaluation.returns[1::2]), np.mean(evaluation.random_returns[1::2]), 2],
    }
