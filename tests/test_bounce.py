"""toy/bounce keeps its rules, pictures are read right, and the expert never misses."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from PIL import Image, ImageFilter
from running import call

from agentctl.core.protocols import Playable, Setup
from agentctl.core.types import Array, Final, Snapshot
from agentctl.games.toy.bounce import (
    BALL_COLOUR,
    BOARD_COLOUR,
    FRAME_SCALE,
    LEFT,
    PADDLE,
    PADDLE_COLOUR,
    RIGHT,
    STAY,
    Bounce,
    fair_places,
    find,
    fold,
)
from agentctl.games.toy.bounce_expert import BounceExpert, landing

CELLS, PIXELS, LIMIT = 16, 4, 200


def bounce(batch: int, **config: int) -> Bounce:
    return Bounce(Bounce.Config.model_validate(config), Setup(batch=batch))


def standing(ball: Array, velocity: Array, paddle: Array, **config: int) -> Bounce:
    """Boards on which everything is put where it is asked for."""
    game = bounce(len(paddle), **config)
    game.reset(0)
    state = game.save()
    state.arrays.update(ball=ball, velocity=velocity, paddle=paddle)
    game.load(state)
    return game


def expert(game: Bounce, seed: int = 0, **config: float) -> BounceExpert:
    setup = Setup(game.observation_space, game.action_space, game.batch, seed)
    return BounceExpert(BounceExpert.Config.model_validate(config), setup)


def grid(*sides: int) -> Iterator[Array]:
    """Every combination, one flat array for each side."""
    return (axis.ravel() for axis in np.indices(sides))


# the game ------------------------------------------------------------------------------------------------------------


class OneRow:
    """The rules again, one row, in plain Python: the reference that the vectorised game is held against."""

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def start(self, ball: list[int], velocity: list[int], paddle: int) -> None:
        (self.row, self.column), (self.down, self.right) = ball, velocity
        self.paddle, self.time = paddle, 0

    def step(self, action: int) -> tuple[float, bool, bool]:
        if action == 1 and self.paddle > 0:
            self.paddle -= 1
        if action == 2 and self.paddle < CELLS - 4:
            self.paddle += 1
        self.time += 1
        if not 0 <= self.column + self.right < CELLS:
            self.right = -self.right
        self.column += self.right
        if self.row + self.down < 0:
            self.down = -self.down
        if self.row + self.down < CELLS - 1:
            self.row += self.down
            return 0.0, False, self.time == self.limit
        if self.column in range(self.paddle, self.paddle + 4):
            self.down = -self.down
            self.row += self.down
            return 1.0, False, self.time == self.limit
        self.row += self.down
        return -1.0, True, False

    def picture(self) -> Array:
        canvas = np.empty((CELLS, CELLS, 3), np.uint8)
        canvas[:] = BOARD_COLOUR
        canvas[CELLS - 1, self.paddle : self.paddle + 4] = PADDLE_COLOUR
        canvas[self.row, self.column] = BALL_COLOUR
        return np.kron(canvas, np.ones((PIXELS, PIXELS, 1), np.uint8))


def keenly(row: OneRow, chance: np.random.Generator) -> int:
    """At random, and half of the time after the ball: chance alone would seldom catch it."""
    if chance.random() < 0.5:
        return int(chance.integers(3))
    return RIGHT if row.column > row.paddle + 2 else LEFT if row.column < row.paddle + 1 else STAY


@pytest.mark.parametrize("seed", range(5))
def test_the_game_plays_by_the_rules_of_a_plain_reference(seed: int) -> None:
    batch, limit, outcomes = 8, 60, Counter[tuple[float, bool, bool]]()
    game, chance = bounce(batch, limit=limit), np.random.default_rng(seed)
    rows = [OneRow(limit) for _ in range(batch)]

    def started(these: list[int]) -> None:
        begun = game.save().arrays
        for i in these:
            rows[i].start(begun["ball"][i].tolist(), begun["velocity"][i].tolist(), int(begun["paddle"][i]))

    pictures = game.reset(seed)["picture"]
    started(list(range(batch)))
    for _ in range(300):
        assert all((row.picture() == picture).all() for row, picture in zip(rows, pictures, strict=True))
        action = np.array([keenly(row, chance) for row in rows])
        said = game.step(action)
        expected = [row.step(int(a)) for row, a in zip(rows, action, strict=True)]
        assert list(zip(said.reward, said.ended, said.cut, strict=True)) == expected
        outcomes.update(expected)
        finished = [i for i, (_, ended, cut) in enumerate(expected) if ended or cut]
        assert (said.final.rows.tolist() if said.final else []) == finished
        for place, i in enumerate(finished):
            assert isinstance(said.final, Final)
            assert (said.final.arrays["picture"][place] == rows[i].picture()).all()
        started(finished)
        pictures = said.observation["picture"]
    assert min(outcomes[1.0, False, False], outcomes[-1.0, True, False], outcomes[0.0, False, True]) >= 5


@pytest.mark.parametrize(
    ("ball", "velocity", "paddle", "action", "after", "reward"),
    [
        ((5, 15), (1, 1), 0, STAY, (6, 14), 0),  # at the right wall
        ((5, 0), (1, -1), 0, STAY, (6, 1), 0),  # at the left one
        ((0, 7), (-1, 1), 0, STAY, (1, 8), 0),  # at the ceiling
        ((0, 15), (-1, 1), 0, STAY, (1, 14), 0),  # in a corner
        ((0, 0), (-1, -1), 0, STAY, (1, 1), 0),  # in the other
        ((14, 15), (1, 1), 11, STAY, (13, 14), 1),  # at the wall and onto the paddle's last cell: column 14 counts
        ((14, 15), (1, 1), 10, STAY, (15, 14), -1),  # ... which is one too far
        ((14, 15), (1, 1), 10, RIGHT, (13, 14), 1),  # the paddle moves first
        ((14, 6), (1, 1), 7, RIGHT, (15, 7), -1),  # and may move away
        ((14, 6), (1, 1), 7, STAY, (13, 7), 1),  # its first cell
        ((14, 2), (1, -1), 0, LEFT, (13, 1), 1),  # the paddle stays where it is at the wall
        ((14, 13), (1, 1), 12, RIGHT, (13, 14), 1),  # at the other
        ((13, 6), (-1, 1), 0, STAY, (12, 7), 0),  # on the way up
    ],
)
def test_what_happens_at_walls_and_corners(
    ball: tuple[int, int], velocity: tuple[int, int], paddle: int, action: int, after: tuple[int, int], reward: int
) -> None:
    game = standing(np.array([ball]), np.array([velocity]), np.array([paddle]))
    step = game.step(np.array([action]))
    seen = find(step.final.arrays["picture"] if step.final else step.observation["picture"])
    assert np.rint(seen.ball[0]).tolist() == list(after)
    assert (step.reward[0], step.ended[0]) == (reward, reward < 0)


def test_a_miss_on_the_last_step_is_an_end_and_no_cut() -> None:
    game = standing(np.array([[14, 8], [14, 8]]), np.ones((2, 2), int), np.array([0, 8]), limit=1)
    step = game.step(np.zeros(2, np.int64))
    assert step.ended.tolist() == [True, False] and step.cut.tolist() == [False, True]


def triangle(way: Array, far: int) -> Array:
    """The triangle wave between 0 and ``far`` in closed form."""
    return far / np.pi * np.arccos(np.cos(np.pi * way / far))


def test_a_ball_that_is_never_missed_flies_in_triangle_waves() -> None:
    """From every start, for 100 steps: some go through corners. The paddle is put under it whenever it comes down."""
    row, column, side = grid(CELLS // 2, CELLS, 2)
    right = 2 * side - 1
    game = standing(np.stack([row, column], 1), np.stack([np.ones_like(row), right], 1), np.zeros_like(row))
    for t in range(1, 101):
        state = game.save()
        comes = triangle(right * column + t, CELLS - 1)
        state.arrays["paddle"] = np.clip(comes.astype(np.int64) - 1, 0, CELLS - PADDLE)
        game.load(state)
        assert not game.step(np.zeros_like(row)).ended.any()
        ball = game.save().arrays["ball"]
        assert np.allclose(ball[:, 1], comes, atol=1e-5)
        assert np.allclose(ball[:, 0], triangle(row + t, CELLS - 2), atol=1e-5)


def test_folding_is_the_triangle_wave() -> None:
    way = np.arange(-100, 100)
    for far in (1, 7, 15):
        assert np.allclose(fold(way, far), triangle(way, far), atol=1e-5)


def test_starts_are_as_they_are_said_to_be() -> None:
    """Any row of the upper half, any column, either way, equally often; and every place of the paddle is drawn."""
    game = bounce(8000)
    game.reset(0)
    state = game.save().arrays
    assert (state["velocity"][:, 0] == 1).all() and (state["time"] == 0).all()
    for drawn, sides in ((state["ball"][:, 0], 8), (state["ball"][:, 1], 16), (state["velocity"][:, 1] == 1, 2)):
        counts = np.bincount(drawn.astype(np.int64), minlength=sides)
        spread = np.sqrt(8000 / sides * (1 - 1 / sides))
        assert len(counts) == sides and np.abs(counts - 8000 / sides).max() < 4.5 * spread
    assert set(state["paddle"]) == set(range(CELLS - PADDLE + 1))


@cache
def catchable(paddle: int, row: int, column: int, right: int) -> bool:
    """Whether some play catches a falling ball after a step of waiting, by search of all the paddle's ways."""
    places, one = {paddle}, OneRow(LIMIT)
    one.start([row, column], [1, right], paddle)
    one.step(STAY)
    while one.row < CELLS - 2:
        places |= {min(max(place + move, 0), CELLS - PADDLE) for place in places for move in (-1, 1)}
        one.step(STAY)
    places |= {min(max(place + move, 0), CELLS - PADDLE) for place in places for move in (-1, 1)}
    enters = one.column + one.right if 0 <= one.column + one.right < CELLS else one.column - one.right
    return any(place <= enters < place + PADDLE for place in places)


def fair(row: int, column: int) -> list[int]:
    """The places from which the paddle catches the ball whichever way it flies."""
    return [p for p in range(CELLS - PADDLE + 1) if all(catchable(p, row, column, right) for right in (-1, 1))]


def test_the_paddle_starts_where_it_can_still_catch_either_way_and_nowhere_else() -> None:
    game = bounce(8000)
    game.reset(0)
    state = game.save().arrays
    drawn = zip(state["ball"].tolist(), state["paddle"].tolist(), strict=True)
    assert all(paddle in fair(row, column) for (row, column), paddle in drawn)
    for row, column in np.ndindex(CELLS // 2, CELLS):
        lowest, highest = fair_places(np.array([[row, column]]), CELLS)
        assert fair(row, column) == list(range(lowest[0], highest[0] + 1))


def test_one_picture_does_not_tell_which_way_the_ball_flies_and_two_do() -> None:
    row, column = grid(CELLS // 2, CELLS)
    ball, paddle = np.stack([row, column], 1), np.full_like(row, 6)
    left, right = (standing(ball, np.full_like(ball, 1) * [1, side], paddle) for side in (-1, 1))
    assert (left._observe()["picture"] == right._observe()["picture"]).all()
    ours, theirs = (game.step(np.zeros_like(row)).observation["picture"] for game in (left, right))
    same = (ours == theirs).all(axis=(1, 2, 3))
    assert (same == ((column == 0) | (column == CELLS - 1))).all()  # at a wall there is but one way on


def test_the_same_seed_gives_the_same_game_and_another_another() -> None:
    one, two, other = (bounce(50).reset(seed)["picture"] for seed in (3, 3, 4))
    assert (one == two).all() and (one != other).any()


def test_a_loaded_game_continues_to_the_bit() -> None:
    game, chance = bounce(5, limit=30), np.random.default_rng(1)
    game.reset(0)
    for action in chance.integers(0, 3, (20, 5)):
        game.step(action)
    saved = game.save()
    twin = bounce(5, limit=30)
    twin.load(Snapshot({k: v.copy() for k, v in saved.arrays.items()}, json.loads(json.dumps(saved.data))))
    for action in chance.integers(0, 3, (60, 5)):
        ours, theirs = game.step(action), twin.step(action)
        assert all((getattr(ours, name) == getattr(theirs, name)).all() for name in ("reward", "ended", "cut"))
        assert (ours.observation["picture"] == theirs.observation["picture"]).all()


def test_the_frame_is_row_0_enlarged() -> None:
    game = bounce(3)
    picture = game.reset(0)["picture"][0]
    frame = game.frame()
    assert frame.dtype == np.uint8
    assert (frame == np.kron(picture, np.ones((FRAME_SCALE, FRAME_SCALE, 1), np.uint8))).all()


def test_a_person_can_play_it() -> None:
    game = bounce(1)
    assert isinstance(game, Playable)
    assert game.keys == {("left",): LEFT, ("right",): RIGHT, (): STAY}


@pytest.mark.parametrize(("cells", "pixels"), [(8, 8), (9, 1), (32, 2)])
def test_other_boards_are_drawn_and_won_too(cells: int, pixels: int) -> None:
    game = bounce(64, cells=cells, cell_pixels=pixels, limit=4 * cells)
    game.reset(0)
    best = best_returns(game)
    assert (play(game, expert(game, cell_pixels=pixels)) == best).all()


# reading pictures ----------------------------------------------------------------------------------------------------


def everywhere() -> tuple[Array, Array, Array]:
    """Ball (N, 2), paddle (N,) and picture (N, 64, 64, 3), wherever both can be."""
    row, column, paddle = grid(CELLS, CELLS, CELLS - PADDLE + 1)
    apart = (row < CELLS - 1) | (column < paddle) | (column >= paddle + PADDLE)
    ball, paddle = np.stack([row, column], 1)[apart], paddle[apart]
    return ball, paddle, standing(ball, np.ones_like(ball), paddle)._observe()["picture"]


def test_every_picture_is_read_exactly() -> None:
    ball, paddle, pictures = everywhere()
    seen = find(pictures)
    assert seen.visible.all()
    assert np.abs(seen.ball - ball).max() < 1e-4
    assert np.abs(seen.paddle - (paddle + 1.5)).max() < 1e-4
    assert find(pictures.astype(np.float32)).ball == pytest.approx(seen.ball)


@pytest.mark.parametrize(("blur", "noise"), [(0, 24), (1, 0), (1, 12), (2, 0), (2, 12)])
def test_blurred_and_noisy_pictures_are_read_to_half_a_cell(blur: int, noise: int) -> None:
    """Blurred by Pillow, ``blur`` pixels; noise of that spread, of 255. At the edge a blur hides part of the ball."""
    ball, paddle, pictures = everywhere()
    chance = np.random.default_rng(0)
    some = chance.permutation(len(ball))[:1000]
    soft = np.stack([np.asarray(Image.fromarray(p).filter(ImageFilter.GaussianBlur(blur))) for p in pictures[some]])
    seen = find(np.clip(soft + chance.normal(0, noise, soft.shape), 0, 255).astype(np.uint8))
    assert seen.visible.all()
    assert np.abs(seen.ball - ball[some]).max() < 0.5
    assert np.abs(seen.paddle - (paddle[some] + 1.5)).max() < 0.5


def test_between_two_cells_a_ball_is_between() -> None:
    """A decoder that is not sure draws a bit of both: the mean of two pictures reads as the mean of their places."""
    here, there = (standing(np.array([[5, column]]), np.ones((1, 2), int), np.array([3])) for column in (8, 9))
    mixed = (here._observe()["picture"].astype(np.float32) + there._observe()["picture"]) / 2
    assert find(mixed).ball[0] == pytest.approx([5, 8.5], abs=1e-4)


def test_what_is_not_there_is_not_found() -> None:
    empty = np.zeros((3, 64, 64, 3), np.uint8)
    empty[:] = BOARD_COLOUR
    empty[1, 20:24, 40:44] = BALL_COLOUR
    empty[2, 60:, 8:24] = PADDLE_COLOUR
    seen = find(empty)
    assert not seen.visible.any()
    assert np.isnan(seen.ball).all(axis=1).tolist() == [True, False, True]
    assert np.isnan(seen.paddle).tolist() == [True, True, False]
    assert seen.ball[1] == pytest.approx([5, 10], abs=1e-4) and seen.paddle[2] == pytest.approx(3.5, abs=1e-4)


# the expert ----------------------------------------------------------------------------------------------------------


def best_returns(game: Bounce) -> Array:
    """Who never misses catches the ball when it has fallen, then once a period: (B,), of episodes that just began."""
    cells, row = game.config.cells, game.save().arrays["ball"][:, 0]
    return 1 + (game.config.limit - (cells - 1 - row)) // (2 * (cells - 2))


def play(game: Bounce, policy: BounceExpert, steps: int | None = None) -> Array:
    """What ``steps`` steps, or a whole episode, bring each row of a game that just began: (B,)."""
    pictures, carry = game._observe(), policy.initial(game.batch)
    first, total = np.ones(game.batch, bool), np.zeros(game.batch)
    for _ in range(steps or game.config.limit):
        decision = policy.act(carry, pictures, first)
        step = game.step(decision.action)
        carry, pictures, first = decision.carry, step.observation, step.ended | step.cut
        total += step.reward
    return total


def test_the_expert_never_misses_on_200_seeds() -> None:
    begun = []
    for seed in range(200):
        game = bounce(1)
        game.reset(seed)
        begun.append(game.save().arrays)
    ball, velocity, paddle = (np.concatenate([each[name] for each in begun]) for name in ("ball", "velocity", "paddle"))
    game = standing(ball, velocity, paddle)
    assert set(best_returns(game)) == {7}
    assert (play(game, expert(game)) == 7).all()


def test_the_expert_catches_from_every_start_there_is() -> None:
    """Every row, column and direction, with the paddle at either end of its range."""
    row, column, side = grid(CELLS // 2, CELLS, 2)
    velocity = np.stack([np.ones_like(row), 2 * side - 1], 1)
    places = [fair(r, c) for r, c in zip(row.tolist(), column.tolist(), strict=True)]
    for end in (0, -1):
        game = standing(np.stack([row, column], 1), velocity, np.array([here[end] for here in places]))
        assert (play(game, expert(game), CELLS) == 1).all()


def test_the_expert_knows_where_the_ball_comes_down() -> None:
    """From every cell and in every direction, beside the plain reference flown to the last row."""
    one = OneRow(LIMIT)
    for row, column, down, right in np.ndindex(CELLS - 1, CELLS, 2, 2):
        before = [row - (2 * down - 1), column - (2 * right - 1)]
        if not (0 <= before[0] < CELLS - 1 and 0 <= before[1] < CELLS):
            continue  # it cannot have come from there
        one.start([row, column], [2 * down - 1, 2 * right - 1], 0)
        while one.row != CELLS - 2 or one.down != 1:
            one.step(STAY)
        one.step(STAY)
        assert landing(np.array([before]), np.array([[row, column]]), CELLS).tolist() == [one.column]


def test_epsilon_is_the_share_of_random_actions() -> None:
    """Two of three random actions are not what the expert would do; the seed says which."""
    game = bounce(2000)
    before = find(game.reset(0)["picture"]).ball
    pictures, first = game.step(np.zeros(2000, np.int64)).observation, np.zeros(2000, bool)
    sure, varied, again, other = (
        expert(game, seed, epsilon=epsilon).act({"ball": np.rint(before)}, pictures, first).action
        for seed, epsilon in ((0, 0.0), (0, 0.3), (0, 0.3), (1, 0.3))
    )
    share = 0.3 * 2 / 3
    assert abs((sure != varied).mean() - share) < 4.5 * np.sqrt(share * (1 - share) / 2000)
    assert (varied == again).all() and (varied != other).any()
    assert all(np.bincount(sure, minlength=3) > 100)


def test_with_epsilon_some_balls_are_missed() -> None:
    game = bounce(60)
    game.reset(0)
    caught_all = play(game, expert(game, epsilon=0.5)) == 7
    assert 0 < caught_all.mean() < 0.9


def test_it_waits_where_it_sees_no_ball() -> None:
    game = bounce(2)
    state = {"picture": np.full_like(game.reset(0)["picture"], BOARD_COLOUR)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decision = expert(game).act({"ball": np.full((2, 2), np.nan)}, state, np.array([False, True]))
    assert decision.action.tolist() == [STAY, STAY]


def test_games_of_the_expert_are_recorded_whatever_the_pictures_size(tmp_path: Path) -> None:
    """The command line hands the game's `cell_pixels` on to its expert."""
    words = ("--games", "2", "-s", "game.cell_pixels=6", "-s", "game.limit=60", "--out", tmp_path / "rec", "--json")
    done = call("record", "toy/bounce", "--agent", "expert", *words)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["returns"] == [2.0, 2.0]


@pytest.mark.parametrize(
    ("space", "actions", "complaint"),
    [
        ({"cell": spaces.Discrete(9)}, 3, "`picture` of toy/bounce.*perception: pixels"),
        ({"picture": spaces.Box(0, 255, (60, 75, 3), np.uint8)}, 3, "square and of cells of 4 pixels"),
        ({"picture": spaces.Box(0, 255, (64, 64, 3), np.uint8)}, 4, r"knows Discrete\(3\), not Discrete\(4\)"),
    ],
)
def test_the_expert_says_what_it_cannot_play(space: dict[str, Any], actions: int, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        BounceExpert(BounceExpert.Config(), Setup(spaces.Dict(space), spaces.Discrete(actions)))
