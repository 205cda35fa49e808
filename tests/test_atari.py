"""The Atari pack plays ale-py's games to the pixel; the oracle is a bare emulator driven by hand."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agentctl.core.protocols import Game, Setup
from agentctl.core.types import Array

pytest.importorskip("ale_py")

from ale_py import ALEInterface, AtariVectorEnv, LoggerMode, roms  # noqa: E402

from agentctl.games import atari  # noqa: E402
from agentctl.games.atari.game import PROTOCOLS, AtariGame, row_seeds  # noqa: E402
from agentctl.games.atari.roms import MULTIPLAYER, ROMS, SCORES  # noqa: E402

PLAIN: dict[str, Any] = {"noop_max": 0, "fire_reset": False}  # an emulator as it comes out of `reset_game`


def build(batch: int = 1, **config: Any) -> AtariGame:
    return AtariGame(AtariGame.Config(**config), Setup(batch=batch))


def actions(game: AtariGame, steps: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, game.action_space.n, (steps, game.batch))  # type: ignore[attr-defined]


class Oracle:
    """Plays one ROM with `ALEInterface` as the papers describe it: skip 4, brighter of the last two gray frames."""

    def __init__(self, rom: str, seed: int, sticky: float) -> None:
        ALEInterface.setLoggerMode(LoggerMode.Error)
        self.ale = ALEInterface()
        self.ale.setFloat("repeat_action_probability", sticky)
        self.ale.setInt("random_seed", seed)
        self.ale.loadROM(roms.get_rom_path(rom))
        self.actions = self.ale.getMinimalActionSet()

    def reset(self) -> Array:
        self.ale.reset_game()
        return self.ale.getScreenGrayscale()

    def step(self, action: int) -> tuple[Array, float, bool, bool]:
        """Picture, score, whether a life was lost and whether the game is over."""
        lives, score, screens = self.ale.lives(), 0, []
        for _ in range(4):
            score += self.ale.act(self.actions[action])
            screens.append(self.ale.getScreenGrayscale())
            if self.ale.game_over():
                break
        lost = 0 < self.ale.lives() < lives
        return np.maximum(*screens[-2:]) if len(screens) > 1 else screens[0], score, lost, self.ale.game_over()


def shrink(picture: Array, height: int, width: int) -> Array:
    """The mean of the area under each new pixel, straight from the definition."""

    def weights(new: int, old: int) -> Array:
        edges, scale = np.arange(old), old / new
        low, high = np.arange(new)[:, None] * scale, (np.arange(new)[:, None] + 1) * scale
        return np.clip(np.minimum(high, edges + 1) - np.maximum(low, edges), 0, None) / scale

    return weights(height, picture.shape[0]) @ picture @ weights(width, picture.shape[1]).T


def test_the_table_names_every_rom_that_ale_py_ships() -> None:
    assert sorted(ROMS + MULTIPLAYER) == sorted(roms.get_all_rom_ids())
    assert [component.name for component in atari.agentctl_games()] == [f"atari/{rom}" for rom in ROMS]


@pytest.mark.parametrize("rom", MULTIPLAYER)
def test_left_out_roms_end_the_process_that_loads_them(rom: str) -> None:
    code = f"import ale_py; ale_py.ALEInterface().loadROM(ale_py.roms.get_rom_path({rom!r})); print('alive')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode != 0 and "alive" not in done.stdout


def test_scores_are_the_published_ones() -> None:
    assert len(SCORES) == 57 and set(SCORES) <= set(ROMS)
    anchors = {"pong": (-20.7, 14.6), "breakout": (1.7, 30.5), "ms_pacman": (307.3, 6951.6), "boxing": (0.1, 12.1)}
    anchors |= {"freeway": (0.0, 29.6), "krull": (1598.0, 2665.5)}
    assert {rom: SCORES[rom] for rom in anchors} == anchors


def plays(rom: str) -> None:
    game = build(rom=rom)
    observation = game.reset(0)
    step = game.step(np.array([0]))
    assert game.observation_space["pixels"].contains(observation["pixels"][0]), rom
    assert isinstance(game, Game) and step.reward.dtype == np.float32 and game.frame().shape[1:] == (160, 3), rom
    game.close()


@pytest.mark.parametrize("rom", ["pong", "ms_pacman", "carnival", "pacman", "tic_tac_toe_3d"])
def test_roms_play(rom: str) -> None:
    plays(rom)


@pytest.mark.slow
def test_every_rom_plays() -> None:
    for rom in ROMS:
        plays(rom)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads in /proc")
def test_building_starts_no_threads() -> None:
    def threads() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    before = threads()
    game = build(4, rom="pong", threads=1)
    assert threads() == before
    game.reset(0)
    assert threads() == before + 1
    game.close()
    assert threads() == before


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        ({}, (4, 84, 84)),
        ({"height": 64}, (4, 64, 84)),
        ({"width": 64, "stack": 2}, (2, 84, 64)),
        ({"stack": 1}, (1, 84, 84)),
        ({"colour": "rgb", "height": 64, "width": 64}, (4, 64, 64, 3)),
        ({"colour": "rgb", "stack": 1}, (84, 84, 3)),
    ],
)
def test_pictures_have_the_configured_size(config: dict[str, Any], shape: tuple[int, ...]) -> None:
    game = build(2, rom="breakout", max_frames=40, **config)
    seen = game.reset(1)["pixels"]
    finals = [step.final for step in map(game.step, actions(game, 12)) if step.final]
    assert game.observation_space["pixels"].shape == seen.shape[1:] == shape
    assert len(finals) == 1 and finals[0].arrays["pixels"].shape == (2, *shape)
    assert seen.dtype == np.uint8 and seen.std() > 5


def test_a_seed_fixes_the_game_and_rows_differ() -> None:
    one, two = (build(3, rom="breakout", sticky=0.25) for _ in range(2))
    played = np.repeat(actions(one, 150)[:, :1], 3, axis=1)
    assert np.array_equal(one.reset(5)["pixels"], two.reset(5)["pixels"])
    trace = []
    for action in played:
        a, b = one.step(action), two.step(action)
        assert np.array_equal(a.observation["pixels"], b.observation["pixels"])
        assert np.array_equal(a.reward, b.reward) and np.array_equal(a.ended, b.ended)
        trace.append(a.observation["pixels"])
    assert all((trace[-1][i] != trace[-1][j]).any() for i, j in [(0, 1), (1, 2), (0, 2)])
    one.reset(5)
    assert all(
        np.array_equal(one.step(action).observation["pixels"], seen) for action, seen in zip(played, trace, strict=True)
    )
    two.reset(6)
    assert any(
        (two.step(action).observation["pixels"] != seen).any() for action, seen in zip(played, trace, strict=True)
    )


def test_neighbouring_seeds_share_no_game() -> None:
    seeds = np.concatenate([row_seeds(seed, 16) for seed in range(100)])
    assert len(set(seeds.tolist())) == len(seeds) and seeds.min() >= 0 and seeds.max() < 2**31


@pytest.mark.parametrize("rom", ["breakout", "space_invaders"])
def test_pixels_and_scores_are_those_of_a_bare_emulator(rom: str) -> None:
    game = build(rom=rom, height=210, width=160, sticky=0.25, **PLAIN)
    oracle = Oracle(rom, int(row_seeds(3, 1)[0]), sticky=0.25)
    seen, expected = game.reset(3)["pixels"][0], [np.zeros((210, 160), np.uint8)] * 3 + [oracle.reset()]
    overs = 0
    for action in actions(game, 500)[:, 0]:
        assert np.array_equal(seen, expected[-4:])
        step = game.step(np.array([action]))
        seen, (picture, score, _, over) = step.observation["pixels"][0], oracle.step(action)
        assert step.reward[0] == score and step.ended[0] == over
        expected.append(picture)
        if over:
            overs += 1
            expected = [np.zeros((210, 160), np.uint8)] * 3 + [oracle.reset()]
    assert overs > 0


@pytest.mark.parametrize("size", [(84, 84), (64, 84), (105, 80)])
def test_resizing_takes_the_mean_of_the_area(size: tuple[int, int]) -> None:
    whole = build(rom="ms_pacman", height=210, width=160, stack=1, **PLAIN)
    small = build(rom="ms_pacman", height=size[0], width=size[1], stack=1, **PLAIN)
    whole.reset(0), small.reset(0)
    for action in actions(whole, 40):
        big, little = whole.step(action).observation["pixels"], small.step(action).observation["pixels"]
        assert np.abs(shrink(big[0, 0], *size) - little[0, 0]).max() <= 1


@pytest.mark.parametrize(("rom", "lives", "steps"), [("breakout", 5, 1200), ("frogger", 4, 700)])
def test_a_lost_life_ends_but_does_not_restart_and_returns_are_whole_games(rom: str, lives: int, steps: int) -> None:
    game = build(rom=rom, life_loss="end", sticky=0.25, **PLAIN)
    oracle = Oracle(rom, int(row_seeds(8, 1)[0]), sticky=0.25)
    game.reset(8), oracle.reset()
    returns, expected, ends, running, scored, ended = [], [], [], 0.0, 0.0, 0
    for action in actions(game, steps)[:, 0]:
        step, (_, score, lost, over) = game.step(np.array([action])), oracle.step(action)
        assert step.ended[0] == (lost or over) and step.finished[0] == over and (step.final is None) == (not over)
        running, scored, ended = running + float(step.reward[0]), scored + score, ended + int(step.ended[0])
        if over:
            oracle.reset()
            returns.append(running), expected.append(scored), ends.append(ended)
            running, scored, ended = 0.0, 0.0, 0
    assert returns == expected and ends == [lives] * len(ends) and len(ends) > 1


def test_the_time_limit_cuts_and_does_not_end() -> None:
    game = build(2, rom="pong", max_frames=100, life_loss="end", **PLAIN)
    game.reset(0)
    steps = [game.step(action) for action in actions(game, 60)]
    assert [i for i, step in enumerate(steps, start=1) if step.cut.any()] == [25, 50]
    assert not any(step.ended.any() for step in steps)
    assert all(step.final is not None and step.final.rows.tolist() == [0, 1] for step in steps if step.cut.any())


def test_final_is_what_emulators_without_same_step_restart_show() -> None:
    game = build(2, rom="breakout", max_frames=720, **PLAIN)
    plain: dict[str, Any] = {"noop_max": 1, "use_fire_reset": False, "max_num_frames_per_episode": 720}
    others = [AtariVectorEnv("breakout", 1, **plain) for _ in range(2)]
    seen = [other.reset(seed=seed[None])[0] for other, seed in zip(others, row_seeds(2, 2), strict=True)]
    assert np.array_equal(game.reset(2)["pixels"], np.concatenate(seen))
    kinds = set()
    for action in actions(game, 700):
        step = game.step(action)
        rows = [] if step.final is None else step.final.rows.tolist()
        for row, other in enumerate(others):
            picture, _, terminated, truncated, _ = other.step(action[row : row + 1])
            assert (step.ended[row], step.cut[row], row in rows) == (
                terminated[0],
                truncated[0],
                terminated[0] or truncated[0],
            )
            if row in rows:
                kinds.add((row, "ended" if terminated[0] else "cut"))
                assert np.array_equal(step.final.arrays["pixels"][rows.index(row)], picture[0])  # type: ignore[union-attr]
                picture = other.step(action[row : row + 1])[0]  # restarts instead of acting
            assert np.array_equal(step.observation["pixels"][row], picture[0])
    assert {row for row, _ in kinds} == {0, 1} and {kind for _, kind in kinds} == {"ended", "cut"}


@pytest.mark.parametrize(("rom", "sticky"), [("breakout", 0.25), ("ms_pacman", 0.0), ("carnival", 0.25)])
def test_frames_show_in_colour_what_row_0_plays(rom: str, sticky: float) -> None:
    height = 214 if rom == "carnival" else 210
    game = build(2, rom=rom, sticky=sticky, max_frames=901, colour="rgb", height=height, width=160, stack=1)
    seen = game.reset(4)["pixels"]
    restarts = 0
    for t, action in enumerate(actions(game, 500)):
        if t < 20 or t > 300:  # the second look catches up with what nobody watched
            assert np.array_equal(game.frame(), seen[0])
        step = game.step(action)
        seen, restarts = step.observation["pixels"], restarts + int(step.finished[0])
    assert restarts > 1


def test_an_impossible_action_is_refused_where_ale_py_would_hang() -> None:
    game = build(2, rom="pong")
    with pytest.raises(RuntimeError, match="reset"):
        game.step(np.array([0, 0]))
    game.reset(0)
    for wrong in ([0, 6], [-1, 0]):
        with pytest.raises(ValueError, match="Discrete"):
            game.step(np.array(wrong))
    game.step(np.array([0, 5]))


def test_protocols_fill_in_and_explicit_keys_win() -> None:
    kaiser, machado = (AtariGame.Config(rom="pong", protocol=name) for name in ("100k", "200m"))
    assert (kaiser.sticky, kaiser.life_loss, kaiser.noop_max, kaiser.full_action_space) == (0.0, "end", 30, False)
    assert (machado.sticky, machado.life_loss, machado.noop_max, machado.full_action_space) == (0.25, "ignore", 0, True)
    assert {(c.height, c.width, c.stack, c.frame_skip, c.colour) for c in (kaiser, machado)} == {(84, 84, 4, 4, "gray")}
    assert AtariGame.Config(rom="pong", protocol="200m", sticky=0.1).sticky == 0.1
    assert AtariGame.Config(**machado.model_dump()) == machado
    assert build(rom="pong", protocol="200m").action_space.n == 18  # type: ignore[attr-defined]
    assert set(PROTOCOLS) == {"none", "100k", "200m"}


def test_an_unknown_rom_is_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'ms_pacman'"):
        build(rom="mspacman")
    with pytest.raises(ValueError, match="single-player ROM 'combat'"):
        build(rom="combat")


def test_clipped_rewards_are_signs() -> None:
    raw, clipped = build(rom="ms_pacman", **PLAIN), build(rom="ms_pacman", reward_clipping=True, **PLAIN)
    raw.reset(0), clipped.reset(0)
    rewards = np.array([(raw.step(a).reward[0], clipped.step(a).reward[0]) for a in actions(raw, 200)])
    assert rewards[:, 0].max() > 1 and np.array_equal(np.sign(rewards[:, 0]), rewards[:, 1])
