"""`agentctl record --human`: a person plays in a window, here a real one, and is recorded like any agent."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import minari
import numpy as np
import pytest
from ale_py import Action
from gymnasium import spaces
from running import call, composed, start, written

from agentctl.core.assembly import assemble
from agentctl.core.commands.record import Stop
from agentctl.core.errors import ConfigError, NotReadyError
from agentctl.core.evaluate import Player
from agentctl.core.keyboard import Keyboard, picture_size
from agentctl.core.keys import Keys, keys_of, numbered, steps_per_second
from agentctl.core.pipeline import Flow, Pipeline
from agentctl.core.playback import compare
from agentctl.core.protocols import Game, Setup
from agentctl.core.recording import Recording
from agentctl.core.tape import Tape
from agentctl.games.atari.game import AtariGame
from agentctl.games.gym.game import GymGame
from agentctl.games.toy.game import Lantern

pygame = pytest.importorskip("pygame")

TOY = {"game": {"name": "toy/lantern", "batch": 8}, "perception": ["toy_cells"], "policy": "toy_expert"}
PONG = ("NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE")


def atari(rom: str = "pong", **config: Any) -> AtariGame:
    return AtariGame(AtariGame.Config(rom=rom, **config), Setup())


def gym(env_id: str, **options: Any) -> GymGame:
    return GymGame(GymGame.Config(id=env_id, options=options), Setup())


def lantern() -> Lantern:
    return Lantern(Lantern.Config(), Setup())


# --- which keys -------------------------------------------------------------------------------------------------------


def test_atari_is_played_by_arrows_and_space() -> None:
    keys = {frozenset(held): action for held, action in keys_of(atari(full_action_space=True)).items()}
    assert len(keys) == 18
    assert keys[frozenset()] == Action.NOOP.value
    assert keys[frozenset({"up", "right", "space"})] == Action.UPRIGHTFIRE.value
    assert keys[frozenset({"down", "left"})] == Action.DOWNLEFT.value
    small = Keys(keys_of(atari()))
    assert [small.action(held) for held in ([], ["space"], ["right"], ["space", "left"])] == [0, 1, 2, 5]


@pytest.mark.parametrize(
    ("held", "action"),
    [
        (["up"], "NOOP"),  # Pong has no UP
        (["up", "left"], "LEFT"),
        (["left", "right"], "RIGHT"),  # the one pressed later
        (["right", "left"], "LEFT"),
        (["left", "space", "right"], "RIGHTFIRE"),
        (["right", "space", "left", "down"], "LEFTFIRE"),
    ],
)
def test_a_key_too_many_does_no_harm(held: list[str], action: str) -> None:
    assert PONG[Keys(keys_of(atari())).action(held)] == action


@pytest.mark.parametrize(
    ("env_id", "held", "action"),
    [
        ("CartPole-v1", ["left"], 0),
        ("CartPole-v1", [], None),  # it waits: there is no way to do nothing
        ("MountainCar-v0", ["left"], 0),  # its own mapping, in the key codes of the first pygame
        ("MountainCar-v0", ["right"], 2),
        ("MountainCar-v0", ["left", "right"], 1),
        ("MountainCar-v0", [], 1),
        ("Acrobot-v1", [], 1),
        ("FrozenLake8x8-v1", ["down"], 1),
        ("CliffWalking-v1", ["down"], 2),
        ("ale_py:ALE/Pong-v5", ["d", "space"], 4),  # its own mapping, of letters
        ("ale_py:ALE/Pong-v5", [], 0),
    ],
)
def test_gymnasium_environments_are_played_as_they_say_or_as_is_known(
    env_id: str, held: list[str], action: int | None
) -> None:
    assert Keys(keys_of(gym(env_id))).action(held) == action


class Dial(gymnasium.Env[Any, Any]):
    """An environment that nothing is known of."""

    metadata = {"render_modes": ["rgb_array"]}
    observation_space = spaces.Box(0, 1, (1,))
    action_space: spaces.Space[Any] = spaces.Discrete(12, start=3)

    def __init__(self, render_mode: str | None = None, actions: spaces.Space[Any] | None = None) -> None:
        self.action_space = actions or self.action_space

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        return np.zeros(1, np.float32), {}


@pytest.fixture
def dial() -> Iterator[str]:
    gymnasium.register("Dial-v0", Dial)
    yield "Dial-v0"
    del gymnasium.registry["Dial-v0"]


def test_unknown_actions_have_keys_by_number(dial: str) -> None:
    keys = Keys(keys_of(gym(dial)))
    assert keys.waits
    assert [keys.action([name]) for name in ("0", "9", "a", "b", "c")] == [3, 12, 13, 14, None]


def test_what_cannot_be_numbered_is_told(dial: str) -> None:
    with pytest.raises(ConfigError, match="no keys are known"):
        keys_of(gym(dial, actions=spaces.Box(0, 1, (2,))))
    with pytest.raises(ConfigError, match="up to 35"):
        numbered(spaces.Discrete(36))
    assert "p" not in {name for (name,) in numbered(spaces.Discrete(35))}  # it pauses


def test_a_game_has_its_own_speed() -> None:
    assert steps_per_second(atari()) == 15  # 60 frames a second, 4 a step
    assert steps_per_second(atari(frame_skip=1)) == 60
    assert steps_per_second(gym("CartPole-v1")) == 50


# --- the window -------------------------------------------------------------------------------------------------------


class Table:
    """A person's place: a game in a real window of SDL's driver without a screen, and its queue of events."""

    def __init__(self, game: Game, fps: float = 1000) -> None:
        self.tape, self.stop = Tape(game), Stop()
        self.tape.reset(0)
        self.keyboard = Keyboard(self.tape, "a game", fps, self.stop)

    def press(self, *names: str) -> None:
        for name in names:
            self._post(pygame.KEYDOWN, name)

    def release(self, *names: str) -> None:
        for name in names:
            self._post(pygame.KEYUP, name)

    def step(self) -> int:
        """Returns the action."""
        assert not self.keyboard.ended()
        decision = self.keyboard.act(Flow(np.zeros(1, np.int64)), {})
        self.tape.step(decision.action)
        return int(decision.action[0])

    def _post(self, kind: int, name: str) -> None:
        pygame.event.post(pygame.event.Event(kind, key=pygame.key.key_code(name)))


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Table]]:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    tables: list[Table] = []

    def lay(game: Game, fps: float = 1000) -> Table:
        tables.append(Table(game, fps))
        return tables[-1]

    yield lay
    for used in tables:
        used.keyboard.close()
        used.tape.close()


def test_held_keys_are_actions_and_no_key_is_none(table: Callable[..., Table]) -> None:
    pong = table(atari())
    assert PONG[pong.step()] == "NOOP"
    pong.press("right")
    assert [PONG[pong.step()] for _ in range(3)] == ["RIGHT"] * 3
    pong.press("space")
    assert PONG[pong.step()] == "RIGHTFIRE"
    pong.release("right")
    assert PONG[pong.step()] == "FIRE"
    pong.release("space")
    assert PONG[pong.step()] == "NOOP"


def test_a_tap_shorter_than_a_step_counts_once(table: Callable[..., Table]) -> None:
    pong = table(atari())
    pong.press("left")
    pong.release("left")
    assert [PONG[pong.step()] for _ in range(2)] == ["LEFT", "NOOP"]


def test_the_other_direction_counts_while_it_is_held_too(table: Callable[..., Table]) -> None:
    pong = table(atari())
    pong.press("left", "right")
    assert PONG[pong.step()] == "RIGHT"
    pong.release("right")
    assert PONG[pong.step()] == "LEFT"


def test_where_nothing_happens_by_itself_each_press_is_a_step(table: Callable[..., Table]) -> None:
    maze = table(lantern())
    maze.press("up")
    maze.release("up")
    maze.press("left", "down")
    assert [maze.step() for _ in range(3)] == [0, 3, 2]
    maze.press("x", "escape")  # keys of no meaning are no steps
    assert maze.keyboard.ended()
    assert maze.tape.time.tolist() == [3]


def test_the_picture_is_the_games(table: Callable[..., Table]) -> None:
    pong = table(atari())
    for _ in range(40):
        pong.step()
    pong.keyboard.ended()
    frame = pong.tape.frame()
    shown = pygame.surfarray.array3d(pygame.display.get_surface()).swapaxes(0, 1)
    assert shown.shape[0] % 210 == shown.shape[1] % 160 == 0
    times = shown.shape[0] // 210
    assert times >= 2
    assert np.array_equal(shown, frame.repeat(times, 0).repeat(times, 1))


def test_pictures_are_enlarged_by_whole_numbers() -> None:
    picture = np.zeros((210, 160, 3), np.uint8)
    assert picture_size(picture, (1000, 700)) == (480, 630)
    assert picture_size(picture, (100, 100)) == (160, 210)


def test_the_title_tells_game_score_and_step(table: Callable[..., Table]) -> None:
    maze = table(Lantern(Lantern.Config(limit=2), Setup()))
    maze.press("up", "up")
    maze.step()
    maze.step()
    maze.press("escape")
    assert maze.keyboard.ended()
    assert pygame.display.get_caption()[0].startswith("a game: game 2, score 0, step 0, last game 0 |")


def test_p_pauses_and_goes_on(table: Callable[..., Table]) -> None:
    maze = table(lantern())
    maze.press("p", "left", "p", "right", "p", "down", "escape")
    assert maze.keyboard.ended()
    again = table(lantern())
    again.press("p", "left", "p", "right")
    assert again.step() == 1


def test_closing_the_window_ends_it(table: Callable[..., Table]) -> None:
    pong = table(atari())
    pong.step()
    pygame.event.post(pygame.event.Event(pygame.QUIT))
    assert pong.keyboard.ended()
    assert pong.stop.stop_asked


def test_ctrl_c_ends_it_also_while_the_game_waits(table: Callable[..., Table]) -> None:
    maze = table(lantern())
    maze.stop.ask_to_stop()
    assert maze.keyboard.ended()


def test_it_is_never_faster_than_asked(table: Callable[..., Table]) -> None:
    pong = table(atari(), fps=50)
    pong.step()
    began = time.monotonic()
    for _ in range(10):
        pong.step()
    assert time.monotonic() - began > 0.9 * 10 / 50


def test_a_person_is_a_player_like_any_other(table: Callable[..., Table]) -> None:
    maze = table(lantern())
    player = Player(Pipeline([], None, None), maze.keyboard.act, assemble(composed(TOY)).rewards)
    state = player.begin(maze.tape.reset(0), {})
    maze.press("up")
    assert not maze.keyboard.ended()
    seen = player.step(maze.tape, state)
    assert seen.decision.action.tolist() == [0]
    assert np.array_equal(seen.state["picture"], state["picture"])


class Harp(Lantern):
    keys = {("the third string",): 0}


def test_a_key_that_there_is_not_is_named(table: Callable[..., Table]) -> None:
    with pytest.raises(ConfigError, match="the third string"):
        table(Harp(Lantern.Config(), Setup()))


def test_a_missing_pygame_is_told_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pygame", None)
    tape = Tape(lantern())
    tape.reset(0)
    with pytest.raises(NotReadyError, match=r"pip install 'game-agentctl\[window\]'"):
        Keyboard(tape, "a game", None, Stop())


# --- the command, without a screen ------------------------------------------------------------------------------------


def test_without_a_screen_it_says_what_to_do_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    done = call("record", "toy/lantern", "--human", "--out", tmp_path / "rec", "--json")
    assert done.returncode == 4
    assert "no window can be opened here" in done.stderr and "ssh -X" in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "rec").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [(("--human", "--agent", "random"), "only one of them can play"), (("--fps", "5"), "add --human")],
)
def test_options_that_contradict_each_other_are_refused(tmp_path: Path, words: tuple[str, ...], told: str) -> None:
    done = call("record", "toy/lantern", *words, "--out", tmp_path / "rec")
    assert done.returncode == 2
    assert told in done.stderr


# --- the command, on a real X server ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """An X server without a monitor. Its display, e.g. ``:3``."""
    if not (shutil.which("Xvfb") and shutil.which("xdotool")):
        pytest.skip("needs Xvfb and xdotool (apt-get install xvfb xdotool)")
    ours, theirs = os.pipe()
    command = ["Xvfb", "-displayfd", str(theirs), "-screen", "0", "1280x1024x24", "-nolisten", "tcp"]
    process = subprocess.Popen(command, pass_fds=[theirs], stderr=subprocess.DEVNULL)
    os.close(theirs)
    with os.fdopen(ours) as pipe:
        number = pipe.readline().strip()
    assert number, "Xvfb did not start"
    yield f":{number}"
    process.terminate()
    process.wait()


class Desk:
    """A desktop, on which keys are pressed as by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, display: str) -> None:
        monkeypatch.setenv("DISPLAY", display)
        monkeypatch.setenv("SDL_VIDEODRIVER", "x11")
        self.window = ""

    def sit_down(self, *words: str | Path) -> subprocess.Popen[str]:
        """Start recording and wait for the window."""
        process = start("record", *words, "--human", "--json")
        self.window = self.do("search", "--sync", "--onlyvisible", "--pid", str(process.pid)).split()[-1]
        self.do("mousemove", "--window", self.window, "20", "20")  # without a window manager, focus follows the mouse
        return process

    def do(self, *words: str) -> str:
        done = subprocess.run(["xdotool", *words], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def title(self) -> str:
        return self.do("getwindowname", self.window)

    def game(self) -> int:
        """The number of the one being played."""
        found = re.search(r"game (\d+),", self.title())
        return int(found[1]) if found else 0

    def wait(self, words: str) -> None:
        """Until the window's title holds the words."""
        limit = time.monotonic() + 30
        while words not in self.title():
            assert time.monotonic() < limit, self.title()
            time.sleep(0.02)


@pytest.fixture
def desk(server: str, monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(monkeypatch, server)


def way_to_the_door(seed: int) -> list[str]:
    """The keys that win the first game of the toy with this seed, found by its expert."""
    assembly = assemble(composed({**TOY, "run": {"seed": seed}}), batch=1)
    player = Player(
        assembly.pipeline, lambda flow, s: assembly.policy.act(flow.policy, s, flow.first), assembly.rewards
    )
    state, over, keys = player.begin(assembly.game.reset(seed), assembly.policy.initial(1)), False, []
    while not over:
        seen = player.step(assembly.game, state)
        state, over = seen.next_state, bool(seen.over[0])
        keys.append(("Up", "Right", "Down", "Left")[int(seen.decision.action[0])])
    return keys


@pytest.mark.parametrize("seed", [0, 3])
def test_a_game_won_by_hand_is_recorded(desk: Desk, tmp_path: Path, seed: int) -> None:
    keys = way_to_the_door(seed)
    process = desk.sit_down("toy/lantern", "--games", "1", "--out", tmp_path / "rec", "-s", f"run.seed={seed}")
    desk.do("key", "--delay", "20", *keys)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    summary = json.loads(output)
    assert (summary["returns"], summary["steps"], summary["agent"]) == ([1.0], len(keys), "human")
    (episode,) = minari.MinariDataset(tmp_path / "rec")
    assert [("Up", "Right", "Down", "Left")[action] for action in episode.actions] == keys
    assert episode.rewards[-1] == 1 and bool(episode.terminations[-1])
    recording = Recording(tmp_path / "rec")
    assert recording.about["agent"] == "human"
    assert recording.about["config"]["policy"] is False
    found = compare(
        recording, assemble(composed({**TOY, "reward": ["game", {"name": "toy_step_cost", "weight": 0.01}]}))
    )
    assert not found.differences  # the expert would have done the same, and the rewards are the game's


def test_escape_keeps_whole_games_and_drops_the_one_being_played(desk: Desk, tmp_path: Path) -> None:
    keys = way_to_the_door(0)
    process = desk.sit_down("toy/lantern", "--games", "5", "--out", tmp_path / "rec")
    desk.do("key", "--delay", "20", *keys, "Up", "Up")
    desk.wait("game 2, score 0, step 2, last game 1 ")
    desk.do("key", "Escape")
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert json.loads(output)["returns"] == [1.0]
    assert json.loads(output)["stopped"] is True
    assert [episode.length for episode in Recording(tmp_path / "rec").episodes()] == [len(keys)]


def test_keys_held_together_through_a_game_are_in_every_step(desk: Desk, tmp_path: Path) -> None:
    data = {"game": {"name": "atari/pong", "max_frames": 120, "noop_max": 0}, "perception": ["pixels"], "policy": "ppo"}
    process = desk.sit_down(written(data, tmp_path), "--games", "1000", "--fps", "60", "--out", tmp_path / "rec")
    desk.do("keydown", "Left", "keydown", "space")
    held_from = desk.game() + 2  # by then they have surely arrived
    while desk.game() <= held_from:
        time.sleep(0.02)
    desk.do("keyup", "Left", "keyup", "space", "key", "Escape")
    output, errors = process.communicate(timeout=60)
    assert json.loads(output)["stopped"], errors
    episode = Recording(tmp_path / "rec").episode(held_from - 1)
    assert [PONG[action] for action in episode.actions] == ["LEFTFIRE"] * 30
    assert episode.observations["pixels"].shape == (31, 4, 84, 84)


def test_a_window_made_larger_shows_a_larger_picture(desk: Desk, tmp_path: Path) -> None:
    """And is still listened to."""
    process = desk.sit_down("toy/lantern", "--games", "1", "--out", tmp_path / "rec")
    desk.do("windowsize", "--sync", desk.window, "1210", "970")
    desk.do("mousemove", "--window", desk.window, "20", "20", "key", "Up")
    desk.wait("step 1")
    desk.do("key", "Escape")
    process.communicate(timeout=60)
    assert process.returncode == 130
