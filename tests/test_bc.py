"""Behaviour cloning moves as torch's losses say, is judged beside never looking, and is not taken in by habit."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from running import call, composed, differing, kill_and_resume, latest, loop_of, start, written
from torch.nn import functional as F

from agentctl.agents.bc import BC
from agentctl.core.assembly import assemble
from agentctl.core.errors import AgentctlError, ConfigError
from agentctl.core.protocols import Setup
from agentctl.core.recording import Episode, Recorder, Recording
from agentctl.core.types import Batch, Decision, Final, Transition
from agentctl.plugins.replay.demonstrations import Demonstrations, held_out

SEEN = spaces.Dict({"x": spaces.Box(-1, 1, (3,))})
PLANS = {
    "discrete": spaces.Discrete(4, start=2),
    "multi-discrete": spaces.MultiDiscrete([3, 2]),
    "multi-binary": spaces.MultiBinary(2),
    "continuous": spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 10.0], np.float32)),
}


def clone(action_space: spaces.Space[Any], space: spaces.Dict = SEEN, **config: Any) -> BC:
    return BC(BC.Config(hidden=(16,), threads=1, **config), Setup(space, action_space, 1))


def shown(state: dict[str, np.ndarray], action: np.ndarray, first: np.ndarray | None = None, **more: Any) -> Batch:
    """N steps that follow each other, as the replay gives them: (1, N, ...)."""
    count = len(action)
    nothing = np.zeros((1, count), bool)
    return Batch(
        state={key: array[None] for key, array in state.items()},
        first=nothing if first is None else first[None],
        action=action[None], reward=np.zeros((1, count), np.float32), ended=nothing, cut=nothing, extras={}, carry={},
        next_state=state, final_index=np.zeros((0, 2), np.int64), final_state={}, **more,
    )  # fmt: skip


def drawn(action_space: spaces.Space[Any], count: int = 32) -> tuple[dict[str, np.ndarray], np.ndarray]:
    action_space.seed(0)
    x = np.random.default_rng(0).uniform(-1, 1, (count, 3)).astype(np.float32)
    return {"x": x}, np.stack([action_space.sample() for _ in range(count)])


# --- the loss ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PLANS)
def test_an_update_is_that_of_torchs_loss_and_adam(name: str) -> None:
    agent, oracle = clone(PLANS[name]), clone(PLANS[name])
    net = oracle._cloner.actor.net
    adam = torch.optim.Adam(net.parameters(), 1e-3, eps=1e-8)
    state, action = drawn(PLANS[name])
    for _ in range(3):
        agent.learn(shown(state, action))
        adam.zero_grad()
        features = net.encoder({"x": torch.from_numpy(state["x"])})
        torch_loss(name, net.policy, features, torch.from_numpy(action)).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 10.0)
        adam.step()
    for mine, theirs in zip(agent._cloner.actor.net.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-5)


def torch_loss(name: str, head: Any, features: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
    if name == "discrete":
        return F.cross_entropy(head.logits(features), action - 2)
    if name.startswith("multi"):
        parts = torch.split(head.logits(features), [3, 2] if name == "multi-discrete" else [2, 2], dim=1)
        return sum(F.cross_entropy(part, action[:, i].long()) for i, part in enumerate(parts))
    scaled = torch.stack([action[:, 0] / 2, action[:, 1] / 5 - 1], dim=1)
    spread = head.log_std.exp().expand_as(scaled) ** 2
    return F.gaussian_nll_loss(head.mean(features), scaled, spread, full=True, eps=0) * 2


def test_what_is_masked_is_neither_learnt_nor_done() -> None:
    space = spaces.Dict({**SEEN.spaces, "action_mask": spaces.Box(0, 1, (4,), np.int8)})
    agent = clone(spaces.Discrete(4), space, lr=1e-2)
    state, action = drawn(spaces.Discrete(4))
    mask = np.ones((len(action), 4), np.int8)
    mask[:, 1] = 0
    action = np.where(action == 1, 0, action)
    for _ in range(30):
        agent.learn(shown({**state, "action_mask": mask}, action))
    acted = agent.act({}, {**state, "action_mask": mask}, np.zeros(len(action), bool)).action
    assert 1 not in acted
    only_two = np.zeros_like(mask)
    only_two[:, 2] = 1
    assert set(agent.act({}, {**state, "action_mask": only_two}, np.zeros(len(action), bool)).action) == {2}


@pytest.mark.parametrize("name", PLANS)
def test_it_does_what_was_shown(name: str) -> None:
    """A rule that the eye could read: the clone follows it where it was shown nothing, as its judgement says."""
    agent = clone(PLANS[name], lr=1e-2)
    rng = np.random.default_rng(1)

    def rule(x: np.ndarray) -> np.ndarray:
        if name == "discrete":
            return 2 + (x[:, 0] > 0) + 2 * (x[:, 1] > 0)
        if name == "multi-binary":
            return (x[:, :2] > 0).astype(np.int8)
        if name == "multi-discrete":
            return np.stack([np.digitize(x[:, 0], [-0.3, 0.3]), x[:, 1] > 0], axis=1).astype(np.int64)
        return np.stack([2 * x[:, 0], 5 + 5 * x[:, 1]], axis=1).astype(np.float32)

    for _ in range(400):
        x = rng.uniform(-1, 1, (64, 3)).astype(np.float32)
        agent.learn(shown({"x": x}, rule(x)))
    fresh = rng.uniform(-1, 1, (500, 3)).astype(np.float32)
    figures = agent.judge(shown({"x": fresh}, rule(fresh), held_out=True))
    if name == "continuous":
        assert figures["held_out_error"] < 0.1 < 0.4 < figures["mean_action_error"]
        return
    assert figures["held_out_accuracy"] > 0.9
    assert figures["majority_accuracy"] < 0.5
    assert figures["calibration_error"] < 0.1
    acted = agent.act({}, {"x": fresh}, np.zeros(500, bool)).action
    assert (acted == rule(fresh)).reshape(500, -1).all(1).mean() == pytest.approx(figures["held_out_accuracy"])


# --- judged -----------------------------------------------------------------------------------------------------------


def test_it_plays_as_it_was_judged_best_and_stops_when_it_gets_worse() -> None:
    """Few samples with noisy labels are soon learnt by heart."""
    rng = np.random.default_rng(0)
    agent = clone(spaces.Discrete(2), lr=3e-2, patience=4)

    def noisy(count: int) -> Batch:
        x = rng.uniform(-1, 1, (count, 3)).astype(np.float32)
        return shown({"x": x}, np.where(rng.random(count) < 0.3, x[:, 0] < 0, x[:, 0] > 0).astype(np.int64))

    known, held_out = noisy(40), noisy(2000)
    held_out.held_out = True
    losses = []
    while not agent.finished:
        for _ in range(5):
            agent.learn(known)
        losses.append(agent.judge(held_out)["held_out_loss"])
        assert len(losses) < 200, "it never overfits: the test proves nothing"
    assert int(np.argmin(losses)) == len(losses) - 1 - 4
    policy = agent._best.net({"x": torch.from_numpy(held_out.state["x"])}, {}, torch.zeros(1, 2000, dtype=torch.bool))
    choice = torch.from_numpy(held_out.action[0])[:, None]
    assert float(-policy.policy.log_prob(choice).mean().detach()) == pytest.approx(min(losses), abs=1e-5)


def test_figures_are_those_counted_by_hand() -> None:
    """Two episodes: 0 0 0 1 1 | 1 0; of what follows something, 2 of 5 steps are new."""
    agent = clone(spaces.Discrete(2))
    action = np.array([0, 0, 0, 1, 1, 1, 0])
    first = np.array([1, 0, 0, 0, 0, 1, 0], bool)
    x = np.random.default_rng(0).uniform(-1, 1, (7, 3)).astype(np.float32)
    agent.learn(shown({"x": x[:3]}, action[:3]))
    figures = agent.judge(shown({"x": x}, action, first, held_out=True))
    predicted = agent.act({}, {"x": x}, first).action
    assert figures["held_out_accuracy"] == pytest.approx((predicted == action).mean())
    assert figures["majority_accuracy"] == pytest.approx(4 / 7)
    assert figures["repeat_accuracy"] == pytest.approx(3 / 5)
    assert figures["changed_accuracy"] == pytest.approx((predicted == action)[[3, 6]].mean())
    tables = agent.tables()
    (name,) = [title for title in tables if title.startswith("Confusion")]
    for row in (0, 1):
        expected = [(predicted[action == row] == column).mean() for column in (0, 1)]
        assert tables[name].rows[str(row)] == pytest.approx(expected)


def test_the_one_that_plays_is_kept_up_to_date_in_bfloat16() -> None:
    space = spaces.Dict({"frames": spaces.Box(0, 255, (2, 12, 12), np.uint8)})
    agent = clone(spaces.Discrete(2), space, precision="bf16", lr=1e-2)
    rng = np.random.default_rng(0)
    state, action = {"frames": rng.integers(0, 256, (40, 2, 12, 12)).astype(np.uint8)}, rng.integers(0, 2, 40)
    for _ in range(20):
        agent.learn(shown(state, action))
    figures = agent.judge(shown(state, action, held_out=True))
    again = clone(spaces.Discrete(2), space, precision="bf16", lr=1e-2)
    again.load(agent.save())
    for player in (agent, again):
        acted = player.act({}, state, np.zeros(40, bool)).action
        assert (acted == action).mean() == pytest.approx(figures["held_out_accuracy"]) and figures[
            "held_out_accuracy"
        ] > 0.9


# --- copycat ----------------------------------------------------------------------------------------------------------


def copycat_frames(goal: np.ndarray, before: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """uint8 (N, 2, 12, 12). The old frame shows what was done before; the new one two dim lights, alike for goal 0."""
    frames = np.zeros((len(goal), 2, 12, 12), np.uint8)
    frames[np.arange(len(goal)), 0, :, :] = np.where(before == 1, 255, 60)[:, None, None]
    left = rng.integers(0, 2, len(goal))
    right = left ^ goal
    frames[:, 1, 2:5, 1:4] = 30 * left[:, None, None]
    frames[:, 1, 7:10, 8:11] = 30 * right[:, None, None]
    return frames


def taught_by_habit(drop_history: float) -> tuple[dict[str, float], float]:
    """Judgement and score (share of right actions in play) of a clone of a player whose actions seldom change."""
    space = spaces.Dict({"frames": spaces.Box(0, 255, (2, 12, 12), np.uint8)})
    how = {"drop_history": drop_history}
    agent = clone(spaces.Discrete(2), space, augment=how, width=0.5, lr=1e-3, precision="fp32")
    rng = np.random.default_rng(0)
    goal = np.cumsum(rng.random(4001) < 0.1) % 2
    frames = copycat_frames(goal[1:], goal[:-1], rng)
    known, rest = np.arange(3000), np.arange(3000, 4000)
    for _ in range(300):
        some = rng.choice(known, 64)
        agent.learn(shown({"frames": frames[some]}, goal[1:][some]))
    judged = agent.judge(shown({"frames": frames[rest]}, goal[1:][rest], held_out=True))
    done, right = np.zeros(1, np.int64), []
    for target in goal[1:1001]:
        seen = copycat_frames(np.array([target]), done, rng)
        done = agent.act({}, {"frames": seen}, np.zeros(1, bool)).action
        right.append(done[0] == target)
    return judged, float(np.mean(right))


def test_a_copycat_looks_good_and_plays_badly_and_dropping_history_cures_it() -> None:
    """Where the picture gives away the last action, copying it is right nine times in ten, and worth nothing."""
    judged, score = taught_by_habit(drop_history=0.0)
    assert judged["held_out_accuracy"] > 0.85  # looks good
    assert judged["repeat_accuracy"] > 0.85  # no better than repeating ...
    assert judged["changed_accuracy"] < 0.2  # ... and this is what shows it
    assert score < 0.65
    judged, score = taught_by_habit(drop_history=0.9)
    assert judged["changed_accuracy"] > 0.9
    assert score > 0.9


# --- runs -------------------------------------------------------------------------------------------------------------


def recorded(folder: Path, episodes: int = 12, length: int = 40, seed: int = 0) -> Path:
    """A player of CartPole's space who goes where the pole leans."""
    space = assemble(composed({**cartpole(folder), "replay": False})).game.observation_space
    writer = Recorder(folder, space, spaces.Discrete(2), {})
    rng = np.random.default_rng(seed)
    for _ in range(episodes):
        vector = rng.uniform(-0.2, 0.2, (length + 1, 4)).astype(np.float32)
        writer.write(
            Episode({"vector": vector}, (vector[:-1, 2] > 0).astype(np.int64), np.ones(length, np.float32), True)
        )
    return folder


def cartpole(recording: Path, **run: int) -> dict[str, Any]:
    return {
        "game": {"name": "gym", "id": "CartPole-v1", "batch": 2},
        "perception": ["vector"],
        "policy": {"name": "bc", "hidden": [16], "patience": None},
        "replay": {"name": "demonstrations", "recordings": [str(recording)], "batch_size": 16, "validation": 0.25},
        "run": {"steps": 4000, "cycle_steps": 500, **run},
        "evaluation": {"episodes": 2, "max_steps": 50},
    }


def test_no_game_is_played_while_it_learns(tmp_path: Path) -> None:
    loop = loop_of(cartpole(recorded(tmp_path / "rec")))
    loop.assembly.game.reset = loop.assembly.game.step = None  # type: ignore[assignment, method-assign]
    loop.train()
    assert loop.at.step >= 4000
    assert loop.at.metrics["held_out_accuracy"] > 0.9 > loop.at.metrics["majority_accuracy"]


def test_a_run_ends_when_nothing_gets_better(tmp_path: Path) -> None:
    data = cartpole(recorded(tmp_path / "rec"), steps=10_000_000, cycle_steps=1_000_000)
    data["policy"] |= {"patience": 3, "lr": 0.05}
    loop = loop_of(data, tmp_path / "run")
    loop.train()
    assert loop.at.step < 1_000_000
    assert loop.run.evaluations[-1].step == loop.at.step
    assert any(title.startswith("Calibration") for title in loop.run.evaluations[-1].tables)
    again = loop_of(data, tmp_path / "run")  # what is finished stays so
    again.resume(latest(tmp_path / "run"))
    again.train()
    assert again.at.step == loop.at.step


def test_killed_and_resumed_equals_never_stopped_to_the_bit(tmp_path: Path) -> None:
    file = written(cartpole(recorded(tmp_path / "rec"), steps=20_000, cycle_steps=1_000), tmp_path)
    whole = start("run", file, "--out", tmp_path / "whole", "--json")
    killed = tmp_path / "killed"
    hits = kill_and_resume(["run", file, "--out", killed, "--json"], killed, kills=2, within=0.3)
    _, errors = whole.communicate(timeout=120)
    assert whole.returncode == 0, errors
    assert hits > 0, "no kill came in time: the test proves nothing"
    assert differing(latest(killed), latest(tmp_path / "whole")) == []


def test_a_clone_plays_without_its_recordings(tmp_path: Path) -> None:
    run = tmp_path / "run"
    call("run", written(cartpole(recorded(tmp_path / "rec")), tmp_path), "--out", run, "--json")
    shutil.rmtree(tmp_path / "rec")
    assert call("eval", run).returncode == 0
    assert call("export", run, "--onnx").returncode == 0


def test_a_damaged_episode_is_left_out_and_told_of(tmp_path: Path) -> None:
    data = cartpole(recorded(tmp_path / "rec"))
    file = next((tmp_path / "rec" / "3").glob("*.parquet"))
    file.write_bytes(file.read_bytes()[:100])
    done = call("run", written(data, tmp_path), "--out", tmp_path / "run", "--json")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert any(line.get("kind") == "recording" and "episode 3 is damaged" in line["text"] for line in lines)


def test_changed_recordings_are_not_resumed_with(tmp_path: Path) -> None:
    """Also where all episodes are as long as they were."""
    data = cartpole(recorded(tmp_path / "rec"))
    loop_of(data, tmp_path / "run").train()
    shutil.rmtree(tmp_path / "rec")
    recorded(tmp_path / "rec", seed=1)
    with pytest.raises(AgentctlError, match="recordings have changed"):
        loop_of(data, tmp_path / "run").resume(latest(tmp_path / "run"))


def test_a_report_keeps_its_tables_when_the_run_is_resumed(tmp_path: Path) -> None:
    data = cartpole(recorded(tmp_path / "rec"))
    words = ("-p", "no:progress", "-p", "no:tensorboard", "-p", "no:recorder", "--json")
    command = [sys.executable, "-m", "agentctl.core.cli", "run"]
    run = tmp_path / "run"
    for arguments in ([written(data, tmp_path), "--out", run], ["--resume", run]):
        subprocess.run([*command, *map(str, arguments), *words], check=True, capture_output=True)
        assert "Confusion" in (run / "report.html").read_text()


def test_a_recurrent_clone_learns_from_sequences(tmp_path: Path) -> None:
    data = cartpole(recorded(tmp_path / "rec"))
    data["policy"] |= {"lstm": 8, "lr": 1e-2}
    data["replay"] |= {"length": 10, "batch_size": 4}
    loop = loop_of({**data, "run": {"steps": 20_000, "cycle_steps": 20_000}})
    loop.train()
    assert loop.at.metrics["held_out_accuracy"] > 0.8 > loop.at.metrics["majority_accuracy"]


@pytest.mark.parametrize(
    ("policy", "replay", "told"),
    [
        ("ppo", None, "only from its own play"),
        ("bc", {"name": "rollout", "steps": 8}, "only from recordings"),
        ({"name": "bc", "expert": "random"}, None, "learns from no expert"),
    ],
)
def test_what_cannot_learn_from_each_other_is_refused(tmp_path: Path, policy: Any, replay: Any, told: str) -> None:
    data = cartpole(recorded(tmp_path / "rec")) | {"policy": policy}
    with pytest.raises(ConfigError, match=told):
        assemble(composed(data if replay is None else {**data, "replay": replay}))


def test_missing_recordings_are_named(tmp_path: Path) -> None:
    with pytest.raises(AgentctlError, match="agentctl record"):
        assemble(composed(cartpole(tmp_path / "none")))


# --- the replay -------------------------------------------------------------------------------------------------------


def filled(tmp_path: Path, **options: Any) -> Any:
    data = cartpole(recorded(tmp_path / "rec"))
    data["replay"] |= options
    loop = loop_of(data)
    loop._games.begin()
    return loop.assembly.replay


def epoch(replay: Any) -> tuple[list[Batch], Batch]:
    """The batches of an epoch, and the one that is held out."""
    batches: list[Batch] = []
    while True:
        batch = replay.sample()
        if batch.held_out:
            return batches, batch
        batches.append(batch)


def test_an_epoch_holds_every_step_once_and_nothing_that_is_held_out(tmp_path: Path) -> None:
    replay = filled(tmp_path)
    played = np.concatenate([e.observations["vector"][:-1] for e in Recording(tmp_path / "rec").episodes()])
    for _ in range(2):
        batches, judged = epoch(replay)
        learnt = np.concatenate([batch.state["vector"][0] for batch in batches])
        assert len(learnt) == 9 * 40
        assert judged.state["vector"].shape == (1, 3 * 40, 4)
        together = np.concatenate([learnt, judged.state["vector"][0]])
        assert np.array_equal(np.sort(together, axis=0), np.sort(played, axis=0))
    assert judged.first[0].sum() == 3


def test_sequences_hold_nearly_every_step_once_and_reach_over_no_end(tmp_path: Path) -> None:
    """Episodes of 40 steps: five sequences of 7 each, in every epoch, the five steps left over not always the same."""
    replay, left_out = filled(tmp_path, length=7), []
    for _ in range(4):
        batches, _ = epoch(replay)
        learnt = np.concatenate([batch.state["vector"].reshape(-1, 4) for batch in batches])
        assert all(not batch.first[1:].any() for batch in batches)
        assert len(learnt) == len(np.unique(learnt, axis=0)) == 9 * 35
        left_out.append(learnt)
    assert len(np.unique(np.concatenate(left_out), axis=0)) > 9 * 35


def test_a_sample_longer_than_every_episode_is_refused(tmp_path: Path) -> None:
    data = cartpole(recorded(tmp_path / "rec"))
    data["replay"]["length"] = 41
    with pytest.raises(ConfigError, match="the longest episode to learn from has 40 steps"):
        loop_of(data)


def test_nothing_is_forgotten_however_short_the_episodes_are(tmp_path: Path) -> None:
    """Pictures that are no stack moved on by one, in games of two steps: each state needs all the room there may be."""
    space = spaces.Dict({"frames": spaces.Box(0, 255, (4, 8, 8), np.uint8)})
    writer, rng = Recorder(tmp_path / "rec", space, spaces.Discrete(2), {}), np.random.default_rng(0)
    pictures = rng.integers(0, 256, (60, 3, 4, 8, 8)).astype(np.uint8)
    for shown_ in pictures:
        writer.write(Episode({"frames": shown_}, np.zeros(2, np.int64), np.zeros(2, np.float32), True))
    replay = Demonstrations(
        Demonstrations.Config(recordings=(tmp_path / "rec",), validation=0.0), Setup(space, spaces.Discrete(2))
    )
    for number, shown_ in enumerate(pictures):
        for t in (0, 1):
            last = t == 1
            following = pictures[(number + 1) % 60][0] if last else shown_[1]
            replay.add(
                Transition(
                    {"frames": shown_[t][None]}, np.array([t == 0]), {}, Decision(np.zeros(1, np.int64)),
                    np.zeros(1, np.float32), np.array([last]), np.zeros(1, bool), np.array([last]),
                    {"frames": following[None]}, Final(np.array([0]), {"frames": shown_[2][None]}) if last else None,
                    total=np.zeros(1, np.float32),
                )
            )  # fmt: skip
    assert replay.ready()
    learnt = np.concatenate([replay.sample().state["frames"][0] for _ in range(2)])
    played = pictures[:, :2].reshape(120, -1)
    assert {picture.tobytes() for picture in learnt} == {picture.tobytes() for picture in played}


def test_whole_games_are_held_out_at_least_one_and_never_all() -> None:
    rng = np.random.default_rng(0)
    assert [int(held_out(range(n), 0.1, rng).sum()) for n in (1, 2, 5, 20, 100)] == [0, 1, 1, 2, 10]
    assert held_out(range(5), 0.0, rng).sum() == 0
    lives = [(0, 0)] * 3 + [(0, 1)] * 3 + [(1, 0)] * 3
    for _ in range(20):
        chosen = held_out(lives, 0.3, rng).reshape(3, 3)
        assert (chosen.all(axis=1) | ~chosen.any(axis=1)).all()
        assert chosen.any(axis=1).sum() == 1


def test_a_recording_of_another_game_is_refused_before_learning(tmp_path: Path) -> None:
    data = cartpole(recorded(tmp_path / "rec"))
    data["game"] = {"name": "gym", "id": "Acrobot-v1", "batch": 2}
    with pytest.raises(ConfigError, match="its actions are"):
        loop_of(data).train()
