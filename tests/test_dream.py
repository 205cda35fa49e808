"""`agentctl dream`: what a world model imagines, filmed, and set beside the real game; in a window by hand."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import lucid
import numpy as np
import pytest
from gymnasium import spaces
from running import call, latest, start, written

from agentctl.core.commands.dream import action_of, by_chance, dream, read_actions
from agentctl.core.config import compose
from agentctl.core.dream import is_image, mean_squared_error, psnr, rgb, seed_of
from agentctl.core.errors import AgentctlError, ConfigError
from agentctl.core.pipeline import Flow
from agentctl.core.plugins import Switches
from agentctl.core.protocols import Setup
from agentctl.core.runner import train
from agentctl.games.toy.game import Lantern

SHORTEST = 15  # steps to a door
UP, RIGHT, DOWN, LEFT = range(4)
UNSEEN = ("metrics", "progress", "tensorboard", "report")


def run_of(data: dict[str, Any], folder: Path) -> Path:
    """A run that may be filmed: its recorder is on."""
    train(compose(written(data, folder), (), (), Switches(disable=frozenset(UNSEEN))), folder / "run", quiet=True)
    return folder / "run"


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose world model is the game's own rule."""
    return run_of(lucid.yaml(), tmp_path_factory.mktemp("exact"))


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, but the model takes left for right."""
    return run_of(lucid.yaml({"mirrored": True}), tmp_path_factory.mktemp("mirrored"))


def dreamt(run: Path, **options: Any) -> dict[str, Any]:
    """What the command prints as JSON, the moments of each step in it."""
    with redirect_stdout(StringIO()) as said:
        dream(run, **options, json_=True)
    summary = json.loads(said.getvalue())
    return summary | {"moments": json.loads(Path(summary["moments"]).read_text())["moments"]}


def lines(folder: Path, actions: list[int]) -> str:
    path = folder / "moves.txt"
    path.write_text("".join(f"{action}\n" for action in actions))
    return str(path)


def played(actions: list[int], seed: int = 0) -> list[tuple[Any, float, bool]]:
    """The real game by hand, from the start that a dream of that seed has: picture, reward and end of each step."""
    game = Lantern(Lantern.Config(), Setup())
    seen = [(game.reset(seed_of(seed, 0))["picture"][0], 0.0, False)]
    for action in actions:
        step = game.step(np.array([action]))
        last = step.observation if step.final is None else step.final.arrays
        seen.append((last["picture"][0], float(step.reward[0]), bool(step.ended[0])))
    return seen


# --- beside the real game ---------------------------------------------------------------------------------------------


def test_who_knows_the_rule_dreams_the_real_game(exact: Path, tmp_path: Path) -> None:
    """Every picture the same, every reward and end too; and what is said of the real game is what it does by hand."""
    moves = [UP, UP, RIGHT, RIGHT, UP, DOWN, LEFT, LEFT, LEFT, LEFT]
    found = dreamt(exact, actions=lines(tmp_path, moves), start_steps=0, beside_real=True, out=tmp_path)
    assert found["steps"] == len(moves) and found["psnr"] is None
    pictures = [picture for picture, _, _ in played(moves)]
    for number, (moment, action) in enumerate(zip(found["moments"], moves, strict=True), start=1):
        assert (moment["action"], moment["dream"], moment["step"]) == (action, 0, number)
        real = moment["real"]
        assert (real["mse"], real["psnr"]) == (0.0, None)
        assert (real["reward"], real["ended"]) == (moment["reward"], moment["ended"]) == (0.0, False)
        error = np.mean((pictures[number].astype(float) - pictures[0]) ** 2)
        assert real["mse_copy_last"] == pytest.approx(error) and error > 0
        assert real["psnr_copy_last"] == pytest.approx(20 * math.log10(255) - 10 * math.log10(error))


def test_a_wrong_rule_shows_where_it_is_wrong(mirrored: Path, tmp_path: Path) -> None:
    """Up is right; then it walks the other way, until both are back in the middle."""
    moves, model = [UP, RIGHT, RIGHT, LEFT, LEFT, UP], [UP, LEFT, LEFT, RIGHT, RIGHT, UP]
    found = dreamt(mirrored, actions=lines(tmp_path, moves), start_steps=0, beside_real=True, out=tmp_path)
    by_hand = [[picture.astype(float) for picture, _, _ in played(way)] for way in (moves, model)]
    for moment, real, imagined in zip(found["moments"], by_hand[0][1:], by_hand[1][1:], strict=True):
        assert moment["real"]["mse"] == pytest.approx(np.mean((real - imagined) ** 2))
        assert moment["real"]["mse_copy_last"] == pytest.approx(np.mean((real - by_hand[0][0]) ** 2))
    assert [moment["real"]["mse"] > 0 for moment in found["moments"]] == [False, True, True, True, False, False]
    assert all((moment["real"]["psnr"] is None) == (moment["real"]["mse"] == 0) for moment in found["moments"])
    assert found["psnr"] == pytest.approx(psnr(np.mean([moment["real"]["mse"] for moment in found["moments"]])))


def test_the_baseline_is_the_last_real_picture_before_the_dream(tmp_path: Path) -> None:
    """Here it is nearer to the real ones than what is imagined, where the lantern never goes out."""
    run, moves = run_of(lucid.yaml({"generous": True}), tmp_path), [UP, UP, RIGHT]
    found = dreamt(run, actions=lines(tmp_path, moves), start_steps=2, seed=5, beside_real=True, out=tmp_path)
    game, chance = Lantern(Lantern.Config(), Setup()), by_chance(spaces.Discrete(4), 5)
    picture = game.reset(seed_of(5, 0))["picture"][0]
    for _ in range(2):
        picture = game.step(chance(Flow(np.zeros(1)), {}).action).observation["picture"][0]
    for moment, move in zip(found["moments"], moves, strict=True):
        real = game.step(np.array([move])).observation["picture"][0]
        assert moment["real"]["mse_copy_last"] == pytest.approx(np.mean((real.astype(float) - picture) ** 2))
        assert moment["real"]["mse_copy_last"] < moment["real"]["mse"]


@pytest.mark.parametrize("awake", [0, 4])
def test_the_policy_walks_to_the_door_in_its_sleep(exact: Path, tmp_path: Path, awake: int) -> None:
    """The expert sees the lantern once, awake or at the first moment of a dream, and finds the right door each time."""
    length, dreams = SHORTEST - awake, 6
    steps = length * dreams
    found = dreamt(exact, actions="policy", beside_real=True, start_steps=awake, steps=steps, out=tmp_path)
    ends = [(moment["dream"], moment["step"]) for moment in found["moments"] if moment["ended"]]
    assert ends == [(number, length) for number in range(dreams)]
    assert found["dreams"] == found["return"] == found["real_return"] == dreams
    assert all(moment["real"]["ended"] == moment["ended"] for moment in found["moments"])
    assert found["psnr"] is None  # the last picture of the real episode counts, not the first of the next
    ways = {tuple(m["action"] for m in found["moments"] if m["dream"] == number) for number in range(dreams)}
    assert len(ways) == 2  # to both doors: the dreams begin in games of their own


def test_the_real_game_ends_a_dream_that_would_go_on(mirrored: Path, tmp_path: Path) -> None:
    moments = dreamt(mirrored, actions="policy", beside_real=True, start_steps=0, steps=150, out=tmp_path)["moments"]
    stops = [m["ended"] or m["real"]["ended"] or m["real"]["cut"] for m in moments]
    assert any(m["real"]["cut"] and not m["ended"] for m in moments)
    assert [m["dream"] for m in moments] == [0, *np.cumsum(stops)[:-1].tolist()]


def test_the_video_holds_both_the_real_one_at_the_left(mirrored: Path, tmp_path: Path) -> None:
    moves = [UP, RIGHT, RIGHT, RIGHT, LEFT]
    found = dreamt(mirrored, actions=lines(tmp_path, moves), start_steps=0, beside_real=True, out=tmp_path)
    assert Path(found["video"]).parent == tmp_path and not (tmp_path / "videos").exists()
    with imageio.get_reader(found["video"]) as video:
        frames = np.stack([*video.iter_data()]).astype(int)  # 60 x (75 + 2 + 75), enlarged 3 times
    assert frames.shape == (len(moves) + 1, 180, 456, 3)
    halves = frames[:, 1::3, 1 : 75 * 3 : 3], frames[:, 1::3, 77 * 3 + 1 :: 3]
    wrong = [{RIGHT: LEFT, LEFT: RIGHT}.get(move, move) for move in moves]
    real, model = (np.stack([picture for picture, _, _ in played(way)]).astype(int) for way in (moves, wrong))
    for half, own, other in ((halves[0], real, model), (halves[1], model, real)):
        near, far = (np.abs(half - pictures).mean(axis=(1, 2, 3)) for pictures in (own, other))
        assert max(near) < 4  # all that H.264 loses
        assert (near[2:] + 0.2 < far[2:]).all() and np.array_equal(near[:2], far[:2])


# --- alone ------------------------------------------------------------------------------------------------------------


def test_the_same_seed_dreams_the_same(exact: Path, tmp_path: Path) -> None:
    first, again, other = (
        dreamt(exact, actions="random", steps=40, seed=seed, out=tmp_path / str(number))
        for number, seed in enumerate((3, 3, 4))
    )
    assert first["moments"] == again["moments"] != other["moments"]
    assert {moment["action"] for moment in first["moments"]} == {0, 1, 2, 3}
    assert all(moment["real"] is None for moment in first["moments"]) and "psnr" not in first


def test_it_lands_in_the_run_and_says_how_fast_the_model_is(exact: Path) -> None:
    done = call("dream", latest(exact), "--actions", "random", "--steps", "5")
    assert done.returncode == 0, done.stderr
    assert (
        "5 steps in 1 dream, imagined return 0.00" in done.stdout and "frames a second, the model alone" in done.stdout
    )
    name = f"{latest(exact).name}-random-0"
    assert {path.name for path in (exact / "dreams").iterdir()} == {f"{name}.mp4", f"{name}.json"}


def test_what_a_latent_stands_for_is_drawn(tmp_path: Path) -> None:
    run = run_of(lucid.yaml({"draws": False}), tmp_path)
    found = dreamt(run, actions="random", steps=20, beside_real=True)
    assert found["psnr"] is None and found["psnr_copy_last"] > 0


# --- what is refused --------------------------------------------------------------------------------------------------


def refused(code: int, told: str, run: Path, actions: str | None = "random", **options: Any) -> None:
    with pytest.raises(AgentctlError, match=told) as error:
        dream(run, actions, **options)
    assert error.value.exit_code == code


def test_what_cannot_be_dreamt_is_named(exact: Path, tmp_path: Path) -> None:
    refused(2, "--actions nope: neither `policy` nor `random`, nor a file", exact, "nope")
    refused(2, r"moves.txt:3: the action 4 is not in Discrete\(4\)", exact, lines(tmp_path, [0, 3, 4]))
    refused(1, "nowhere: no checkpoint there", tmp_path / "nowhere")
    refused(1, "cannot write there", exact, out=tmp_path / "moves.txt" / "dreams")


def test_a_model_without_pictures_is_told(tmp_path: Path) -> None:
    blind = run_of(lucid.yaml({"draws": False, "blind": True}), tmp_path)
    refused(4, "imagines cell, lantern, place, nor draws the picture", blind)
    assert not (blind / "dreams").exists()


def test_a_run_without_a_world_model_is_told(tmp_path: Path) -> None:
    refused(2, "has no world model to play in", run_of(lucid.yaml(world_model=False), tmp_path))


def test_a_policy_that_looks_at_what_is_not_imagined_is_told(tmp_path: Path) -> None:
    memory = {"name": "last_seen", "fields": ["lantern"]}
    run = run_of(lucid.yaml(memory=memory, policy={"name": "dyna_q", "planning": 0}), tmp_path)
    refused(2, "it looks at 'recalled_lantern', and the world model imagines only", run, "policy")


@pytest.mark.parametrize(
    ("text", "space", "told"),
    [
        ("up", spaces.Discrete(4), "moves:7: 'up' is no action"),
        ("[1, 2", spaces.Discrete(4), "moves:7: '.1, 2' is no action"),
        ("1.5", spaces.Discrete(4), r"moves:7: the action 1.5 is not in Discrete\(4\)"),
        ("true", spaces.Discrete(4), "moves:7: the action true is not in"),
        ("[1]", spaces.Discrete(4), r"the action \[1\] is not in"),
        ("3", spaces.Discrete(3, start=3), ""),
        ("[0.5, -1]", spaces.Box(-1, 1, (2,), np.float32), ""),
        ("[0.5, 2]", spaces.Box(-1, 1, (2,), np.float32), "is not in Box"),
        ("[2, 1]", spaces.MultiDiscrete([3, 2]), ""),
        ("[2, 2]", spaces.MultiDiscrete([3, 2]), "is not in MultiDiscrete"),
        ("[0, 1]", spaces.MultiBinary(2), ""),
        ("[0, 256]", spaces.MultiBinary(2), "is not in MultiBinary"),
    ],
)
def test_an_action_is_one_of_the_games_or_refused(text: str, space: spaces.Space[Any], told: str) -> None:
    if told:
        with pytest.raises(ConfigError, match=told):
            action_of(text, "moves:7", space)
    else:
        (action,) = action_of(text, "moves:7", space)
        assert action.tolist() == json.loads(text) and action.dtype == space.dtype


def test_empty_lines_are_not_actions_but_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "moves"
    path.write_text("1\n\n 2 \n")
    assert [action.tolist() for action in read_actions(path, spaces.Discrete(4))] == [[1], [2]]
    path.write_text("1\n\n9\n")
    with pytest.raises(ConfigError, match="moves:3: "):
        read_actions(path, spaces.Discrete(4))
    path.write_text("\n")
    with pytest.raises(ConfigError, match="holds no action"):
        read_actions(path, spaces.Discrete(4))


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_psnr_is_what_it_is_known_to_be() -> None:
    """A byte off by one everywhere is 48.13 dB, black against white 0 dB, and no difference has no number."""
    black = np.zeros((4, 5, 3), np.uint8)
    assert psnr(mean_squared_error(black, black + 1)) == pytest.approx(48.1308, abs=1e-4)
    assert psnr(mean_squared_error(black, black + 255)) == 0.0
    assert psnr(mean_squared_error(black + 255, black)) == 0.0
    assert psnr(mean_squared_error(black, black)) is None


def test_the_newest_picture_of_an_image_is_shown_in_colour() -> None:
    image = np.arange(4 * 6 * 5 * 3, dtype=np.uint16).reshape(4, 6, 5, 3).astype(np.uint8)
    gray = image[..., 0]
    assert np.array_equal(rgb(image[0]), image[0])
    assert np.array_equal(rgb(image), image[3])
    for shown in (rgb(gray), rgb(gray[3]), rgb(gray[3][..., None])):
        assert shown.shape == (6, 5, 3) and (shown == gray[3][..., None]).all()
    assert [is_image(spaces.Box(0, 255, shape, np.uint8)) for shape in ((6, 5), (4, 6, 5), (4, 6, 5, 3))] == [True] * 3
    assert not any(map(is_image, (spaces.Box(0, 1, (6, 5)), spaces.Discrete(3), spaces.Box(0, 255, (7,), np.uint8))))


# --- in a window ------------------------------------------------------------------------------------------------------


@pytest.fixture
def display(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An X server without a monitor, for this test alone."""
    if not (shutil.which("Xvfb") and shutil.which("xdotool")):
        pytest.skip("needs Xvfb and xdotool (apt-get install xvfb xdotool)")
    ours, theirs = os.pipe()
    command = ["Xvfb", "-displayfd", str(theirs), "-screen", "0", "1280x1024x24", "-nolisten", "tcp"]
    process = subprocess.Popen(command, pass_fds=[theirs], stderr=subprocess.DEVNULL)
    os.close(theirs)
    with os.fdopen(ours) as pipe:
        number = pipe.readline().strip()
    monkeypatch.setenv("DISPLAY", f":{number}")
    monkeypatch.setenv("SDL_VIDEODRIVER", "x11")
    yield number
    process.terminate()
    process.wait()


def xdotool(*words: str) -> str:
    done = subprocess.run(["xdotool", *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_in_a_window_the_keys_act_and_the_real_game_goes_along(exact: Path, tmp_path: Path, display: str) -> None:
    process = start("dream", exact, "--beside-real", "--start-steps", "0", "--out", tmp_path, "--json")
    window = xdotool("search", "--sync", "--onlyvisible", "--pid", str(process.pid)).split()[-1]
    xdotool("mousemove", "--window", window, "20", "20", "key", "--delay", "20", "Up", "Right", "Right", "Left")
    limit = time.monotonic() + 30
    while "step 4" not in xdotool("getwindowname", window):
        assert time.monotonic() < limit, xdotool("getwindowname", window)
        time.sleep(0.02)
    width, height = re.findall(r"(?:WIDTH|HEIGHT)=(\d+)", xdotool("getwindowgeometry", "--shell", window))
    assert (int(width) * 60, int(width) % 152) == (int(height) * 152, 0)  # both pictures, enlarged by a whole number
    xdotool("key", "Escape")
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    summary = json.loads(output)
    moments = json.loads(Path(summary["moments"]).read_text())["moments"]
    assert [moment["action"] for moment in moments] == [UP, RIGHT, RIGHT, LEFT]
    assert summary["stopped"] and summary["psnr"] is None and Path(summary["video"]).exists()


def test_without_a_screen_nothing_is_left(exact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    done = call("dream", exact, "--out", tmp_path / "dreams", "--json")
    assert (done.returncode, done.stdout) == (4, "") and "no window can be opened here" in done.stderr
    assert not (tmp_path / "dreams").exists()
