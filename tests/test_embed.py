"""A bot in another program's loop: the run's own decisions, and no trace of a framework around them."""

import contextlib
import io
import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import clockwork
import numpy as np
import pytest
from running import ROOT, composed, environment, latest, loop_of, written

from agentctl.core import load, make
from agentctl.core.assembly import assemble
from agentctl.core.config import compose
from agentctl.core.embed import Bot
from agentctl.core.errors import AgentctlError, ConfigError
from agentctl.core.evaluate import Evaluator
from agentctl.core.plugins import Switches
from agentctl.core.runner import train
from agentctl.core.types import Arrays

PAGE = ROOT / "docs" / "embedding.md"
TOY = ["run.steps=12000", "run.cycle_steps=12000", "evaluation.episodes=4"]
SIDES = Switches(disable=frozenset(["tensorboard", "recorder", "report", "progress", "metrics"]))
RECURRENT = {
    "game": {"name": "gym", "id": "CartPole-v1", "batch": 2},
    "policy": {"name": "ppo", "lstm": 8, "minibatches": 1, "evaluate": "greedy"},
    "replay": {"name": "rollout", "steps": 16},
    "run": {"steps": 64, "cycle_steps": 64},
    "evaluation": {"episodes": 1},
}


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run that docs/embedding.md speaks of: runs/toy."""
    folder = tmp_path_factory.mktemp("embed")
    train(compose(ROOT / "configs/toy/lantern.yaml", TOY, (), SIDES), folder / "runs" / "toy", quiet=True)
    return folder


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


def test_the_pages_plain_loop_plays_well(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(toy)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(blocks()[0], str(PAGE), "exec"), {})
    assert float(printed.getvalue().split()[0]) > 0.9


def test_a_bot_shows_its_policy_and_what_it_was_shown(toy: Path) -> None:
    bot, (message, *_) = load(toy / "runs" / "toy"), pictures(0)
    action = bot.act(message["picture"])
    assert {key: array.shape for key, array in bot.state.items()} == {
        "cell": (1,), "lantern": (1,), "recalled_lantern": (1,)
    }  # fmt: skip
    assert bot.policy.act({}, bot.state, np.ones(1, bool)).action[0] == action


def pictures(seed: int) -> Iterator[dict[str, Any]]:
    """What a client of the page's server sends: an episode of pictures, whatever the answers."""
    env, rng = make("toy/lantern"), np.random.default_rng(seed)
    for episode in range(2):
        picture, _ = env.reset(seed=seed + 10 * episode)
        for time in range(12):
            yield {"new_episode": time == 0, "picture": picture.tolist()}
            picture, *_ = env.step(int(rng.integers(4)))


def test_the_pages_server_answers_four_characters_at_once(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(toy)
    names: dict[str, Any] = {}
    exec(compile(blocks()[1], str(PAGE), "exec"), names)
    server = names["server"]
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def talk(seed: int) -> list[int]:
        with socket.create_connection(server.server_address) as connection, connection.makefile("rw") as stream:
            answers = []
            for message in pictures(seed):
                print(json.dumps(message), file=stream, flush=True)
                answers.append(json.loads(stream.readline())["action"])
            return answers

    try:
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(talk, range(4)))
    finally:
        server.shutdown()
        server.server_close()
    for seed, given in enumerate(answers):
        assert given == list(decisions(load(toy / "runs" / "toy"), pictures(seed)))


def decisions(bot: Bot, messages: Iterator[dict[str, Any]]) -> Iterator[int]:
    for message in messages:
        if message["new_episode"]:
            bot.reset()
        yield bot.act(message["picture"])


def evaluated(evaluator: Evaluator) -> list[tuple[bool, Arrays, Any]]:
    """What an evaluation showed and decided in its one row: (first, observation, action)."""
    seen: list[tuple[bool, Arrays, Any]] = []
    assembly = evaluator.assembly
    another_game = type(assembly).another_game

    def watched(self: Any, batch: int) -> Any:
        game = another_game(self, batch)
        reset, step, shown = game.reset, game.step, {}

        def keep(observation: Arrays) -> Arrays:
            shown["now"] = {name: value[0].copy() for name, value in observation.items()}
            return observation

        def stepped(action: Any) -> Any:
            seen.append((len(seen) == 0 or shown["over"], shown["now"], action[0].copy()))
            done = step(action)
            shown["over"] = bool(done.ended[0] | done.cut[0])
            keep(done.observation)
            return done

        game.reset, game.step = lambda seed: keep(reset(seed)), stepped
        return game

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(assembly), "another_game", watched)
        assert evaluator.policy_episodes(frames=False) is not None
    return seen


LANTERN = {
    "game": {"name": "toy/lantern", "batch": 2},
    "perception": "toy_cells",
    "world_model": "tabular",
    "memory": {"name": "last_seen", "fields": ["lantern"]},
    "policy": "dyna_q",
    "replay": {"name": "rollout", "steps": 16},
    "run": {"steps": 3200, "cycle_steps": 3200},
    "evaluation": {"episodes": 1},
}
CLOCKWORK = clockwork.yaml(saves=False, hazard=0.1, run={"steps": 96}, evaluation={"episodes": 1, "max_steps": 300})


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(LANTERN, id="memory and perception"),
        pytest.param(CLOCKWORK, id="a world model that draws, a policy that carries and draws"),
        pytest.param(RECURRENT, id="recurrent PPO"),
    ],
)
def test_a_bot_decides_as_the_evaluation_did(data: dict[str, Any], tmp_path: Path) -> None:
    """One episode of one row; the policies that draw do it from the state that the checkpoint holds."""
    loop = loop_of(data, tmp_path / "run")
    loop.train()
    (tmp_path / "run" / "config.yaml").write_text(json.dumps(composed(data).resolved()))
    bot, seen = load(tmp_path / "run"), evaluated(loop.evaluator)
    assert len(seen) > 5
    for first, observation, action in seen:
        if first:
            bot.reset()
        assert (bot.act(observation) == action).all()


def test_bots_in_threads_act_as_they_do_alone(tmp_path: Path) -> None:
    """Four bots, loaded and driven at once, each with a policy and a world model that draw and a memory that keeps."""
    yaml = written(CLOCKWORK, tmp_path)

    def live(row: int) -> list[int]:
        bot = load(yaml)
        numbers = ({"seed": 1, "row": row, "episode": t // 9, "time": t % 9} for t in range(400))
        return [(bot.reset() if shown["time"] == 0 else None, bot.act(shown))[1] for shown in numbers]

    alone = [live(row) for row in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(live, range(4))) == alone
    assert len({tuple(actions) for actions in alone}) >= 1 and len(set(alone[0])) == 3


WATCH = """
import json, logging, os, signal, sys, threading
written = []
def audit(event, args):
    flags = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    if event == "open" and isinstance(args[2], int) and args[2] & flags and "__pycache__" not in str(args[0]):
        written.append(str(args[0]))
    if event in ("os.mkdir", "os.rename", "os.remove", "os.symlink", "socket.__new__", "subprocess.Popen", "os.fork"):
        written.append(event)
def state():
    handlers = [repr(h) for h in logging.root.handlers]
    handlers += [repr(l) for l in logging.Logger.manager.loggerDict.values() if getattr(l, "handlers", None)]
    return {
        "signals": [repr(signal.getsignal(n)) for n in signal.valid_signals()],
        "threads": [t.name for t in threading.enumerate()],
        "tasks": len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 0,
        "handlers": handlers,
        "hooks": [repr(sys.excepthook), repr(threading.excepthook), logging.root.level],
        "folder": os.getcwd(),
        "files": sorted(os.listdir(".")),
    }
IMPORTS
from agentctl.core import load
before = state()
sys.addaudithook(audit)
bot = load(sys.argv[1])
for _ in range(3):
    bot.reset()
    bot.act(bot.observation_space.sample())
    bot.act(bot.observation_space.sample())
print(json.dumps({"written": written, "before": before, "after": state()}))
"""


@pytest.mark.parametrize(
    ("what", "imports"),
    [("toy", ""), ("ppo", "import torch._dynamo  # makes its cache folder")],
    ids=["toy", "ppo"],
)
def test_loading_and_acting_leave_no_trace(what: str, imports: str, toy: Path, tmp_path: Path) -> None:
    source = toy / "runs" / "toy" if what == "toy" else written(RECURRENT, tmp_path)
    done = subprocess.run(
        [sys.executable, "-B", "-c", WATCH.replace("IMPORTS", imports), str(source)],
        capture_output=True, text=True, cwd=toy, env=environment(), timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["written"] == []
    assert found["after"] == found["before"]
    assert done.stderr == ""


def test_a_bot_builds_neither_replay_nor_reward(tmp_path: Path) -> None:
    data = clockwork.yaml() | {"reward": "clockwork/reward"}
    bot = load(written(data, tmp_path))
    assert bot._assembly.replay is None and bot._assembly.rewards.parts == []


def test_observations_are_checked_and_named(tmp_path: Path) -> None:
    bot = load(written(clockwork.yaml(), tmp_path))
    shown = {"seed": 1, "row": 0, "episode": 0, "time": 0}
    assert bot.act(shown) in (0, 1, 2) and isinstance(bot.act({**shown, "time": 1.0}), int)
    for wrong, message in [
        ({**shown, "time": 0.5}, "'time' is float64; the game's is int64"),
        ({**shown, "time": [1]}, r"'time' has the shape \(1,\); the game's has \(\)"),
        ({"seed": 1}, "the observation has no 'episode'"),
        (np.zeros(3), "the observation is one ndarray; name its parts"),
    ]:
        with pytest.raises(ValueError, match=message):
            bot.act(wrong)


@pytest.mark.parametrize("picture", [np.float64, list], ids=["floats", "lists"])
def test_whole_numbers_of_any_kind_are_welcome(picture: type, toy: Path) -> None:
    one, other = load(toy / "runs" / "toy"), load(toy / "runs" / "toy")
    shown = one.observation_space["picture"].sample()
    assert one.act(shown) == other.act(shown.astype(picture) if picture is not list else shown.tolist())
    with pytest.raises(ValueError, match="convert it first"):
        other.act(shown / 255)
    with pytest.raises(ValueError, match="convert it first"):
        other.act(shown.astype(np.int64) + 300)


def test_one_checkpoint_alone_can_be_loaded(toy: Path) -> None:
    bot = load(latest(toy / "runs" / "toy"))
    assert bot.act(bot.observation_space.sample()) in range(4)


def test_what_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    with pytest.raises(AgentctlError, match=r"not a run's folder: it has no config\.yaml"):
        load(tmp_path)
    with pytest.raises(ConfigError, match="no such file"):
        load(tmp_path / "nothing.yaml")


def test_an_array_of_actions_comes_as_an_array() -> None:
    data = clockwork.yaml()
    assembly = assemble(composed(data), batch=1)
    act = assembly.policy.act

    def two(carry: Any, state: Arrays, first: Any) -> Any:
        decision = act(carry, state, first)
        decision.action = np.zeros((1, 2))
        return decision

    assembly.policy.act = two  # type: ignore[method-assign]
    shown = {"seed": 1, "row": 0, "episode": 0, "time": 0}
    assert Bot(assembly).act(shown).tolist() == [0.0, 0.0]
