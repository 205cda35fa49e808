"""`agentctl record` and `agentctl replay`: whole games on disk, readable by others, and regression tests of a run."""

from __future__ import annotations

import json
import re
import signal
import time
from pathlib import Path

import gymnasium
import minari
import numpy as np
import pytest
from gymnasium import spaces
from running import ROOT, call, composed, loop_of, start, written

from agentctl.core.assembly import assemble
from agentctl.core.errors import AgentctlError, ConfigError
from agentctl.core.playback import compare, playback
from agentctl.core.recording import Episode, Recorder, Recording

CARTPOLE = {
    "game": {"name": "gym", "id": "CartPole-v1", "batch": 3},
    "perception": ["vector"],
    "reward": ["clip"],
    "policy": {"name": "ppo", "hidden": [8]},
    "replay": {"name": "rollout", "steps": 32},
    "run": {"steps": 96, "cycle_steps": 96},
    "evaluation": {"episodes": 1, "max_steps": 20},
}
PAGE = (ROOT / "docs" / "recording.md").read_text(encoding="utf-8")
PAGE_RECORDS = "agentctl record toy/lantern --agent expert --games 20"
LANTERN = ("record", "toy/lantern", "--agent", "random", "--json")


@pytest.fixture
def lantern(tmp_path: Path) -> Path:
    """Ten random games of the toy."""
    done = call(*LANTERN, "--games", "10", "--out", tmp_path / "rec")
    assert done.returncode == 0, done.stderr
    return tmp_path / "rec"


def numbers(length: int, seed: int = 0) -> Episode:
    rng = np.random.default_rng(seed)
    seen = {"x": rng.random((length + 1, 2), np.float32)}
    return Episode(seen, rng.integers(0, 3, length), rng.random(length, np.float32), ended=True)


def recorder(folder: Path) -> Recorder:
    return Recorder(folder, spaces.Dict({"x": spaces.Box(0, 1, (2,))}), spaces.Discrete(3), {})


# --- what is written --------------------------------------------------------------------------------------------------


def test_what_was_played_is_what_is_read(lantern: Path) -> None:
    """The game itself, given the recorded actions again, shows every recorded picture and pays every reward."""
    recording = Recording(lantern)
    rows = [[recording.episode(number) for number in row] for row in recording.rows]
    assert sum(map(len, rows)) == 10
    game = assemble(composed({"game": {"name": "toy/lantern", "batch": len(rows)}, "policy": "random"})).game
    observation, places = game.reset(0), [(0, 0)] * len(rows)
    while any(number < len(row) for row, (number, _) in zip(rows, places, strict=True)):
        doing = [row[min(number, len(row) - 1)] for row, (number, _) in zip(rows, places, strict=True)]
        step = game.step(np.array([episode.actions[at] for episode, (_, at) in zip(doing, places, strict=True)]))
        for row, (number, at) in enumerate(places):
            if number == len(rows[row]):  # played to its end: anything may come
                continue
            episode = rows[row][number]
            assert np.array_equal(episode.observations["picture"][at], observation["picture"][row])
            assert episode.rewards[at] == step.reward[row]
            over = at + 1 == episode.length
            assert over == bool(step.ended[row] | step.cut[row])
            if over:
                last = step.final.arrays["picture"][step.final.rows.tolist().index(row)]
                assert np.array_equal(episode.observations["picture"][-1], last)
            places[row] = (number + 1, 0) if over else (number, at + 1)
        observation = step.observation


def test_minari_reads_it(lantern: Path) -> None:
    dataset = minari.MinariDataset(lantern)
    assert dataset.total_episodes == 10
    for mine, theirs in zip(Recording(lantern).episodes(), dataset, strict=True):
        assert np.array_equal(theirs.observations["picture"], mine.observations["picture"])
        assert np.array_equal(theirs.actions, mine.actions)
        assert np.array_equal(theirs.rewards, mine.rewards)
        assert bool(theirs.terminations[-1]) is mine.ended
        assert len(theirs.observations["picture"]) == len(theirs.actions) + 1


def test_the_page_reads_it_as_pasted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = call("record", *PAGE_RECORDS.split()[2:], "--out", tmp_path / "recordings" / "toy-lantern-expert")
    assert done.returncode == 0, done.stderr
    assert f"{PAGE_RECORDS} " in PAGE
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 20
    assert all(line.endswith("1.0") for line in lines)


def test_it_tells_how_it_came_about(lantern: Path) -> None:
    about = Recording(lantern).about
    assert about["game"] == "toy/lantern"
    assert about["agent"] == "random"
    assert about["config"]["game"]["limit"] == 100
    assert about["packages"]["numpy"] == np.__version__


def test_every_row_plays_its_share_so_that_short_games_are_not_preferred(tmp_path: Path) -> None:
    call("record", written(CARTPOLE, tmp_path), "--agent", "random", "--games", "8", "--out", tmp_path / "rec")
    recording = Recording(tmp_path / "rec")
    assert [len(row) for row in recording.rows] == [3, 3, 2]
    assert len({recording.lengths[row[0]] for row in recording.rows}) > 1  # they did not end together


def test_lost_lives_end_episodes_but_not_games(tmp_path: Path) -> None:
    data = {
        "game": {"name": "atari/breakout", "batch": 2, "life_loss": "end", "noop_max": 0},
        "policy": "random",
    }
    done = call("record", written(data, tmp_path), "--games", "2", "--out", tmp_path / "rec", "--json")
    summary = json.loads(done.stdout)
    episodes = list(Recording(tmp_path / "rec").episodes())
    assert len(summary["returns"]) == 2
    assert len(episodes) == summary["episodes"] == 10  # five lives each
    assert [episode.over for episode in episodes].count(True) == 2
    assert sum(float(episode.rewards.sum()) for episode in episodes) == sum(summary["returns"])


# --- damage -----------------------------------------------------------------------------------------------------------


def test_a_truncated_episode_is_told_of_and_the_others_are_used(tmp_path: Path) -> None:
    writer = recorder(tmp_path / "rec")
    for number in range(3):
        writer.write(numbers(20, number))
    file = next((tmp_path / "rec" / "1").glob("*.parquet"))
    file.write_bytes(file.read_bytes()[:-40])
    recording = Recording(tmp_path / "rec")
    assert list(recording.damaged) == [1]
    assert [episode.number for episode in recording.episodes()] == [0, 2]
    assert np.array_equal(recording.episode(2).actions, numbers(20, 2).actions)


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    """Parquet alone would not see it: a number would be another one."""
    writer = recorder(tmp_path / "rec")
    writer.write(numbers(50))
    writer.write(numbers(50, 1))
    file = next((tmp_path / "rec" / "0").glob("*.parquet"))
    content = bytearray(file.read_bytes())
    content[len(content) // 4] ^= 1
    file.write_bytes(bytes(content))
    assert "checksum" in Recording(tmp_path / "rec").damaged[0]


def test_a_kill_costs_only_the_games_being_played(tmp_path: Path) -> None:
    process = start(*LANTERN, "--games", "100000", "--out", tmp_path / "rec")
    while not (tmp_path / "rec" / "30" / "metadata.json").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    recording = Recording(tmp_path / "rec")
    assert len(recording.lengths) >= 30
    assert set(recording.damaged) <= {max(recording.lengths) + 1}  # the one being written
    assert all(episode.length for episode in recording.episodes())


def test_a_stop_keeps_what_was_recorded(tmp_path: Path) -> None:
    process = start(*LANTERN, "--games", "100000", "--out", tmp_path / "rec")
    while not (tmp_path / "rec" / "3" / "metadata.json").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert json.loads(output)["episodes"] == len(Recording(tmp_path / "rec").lengths)
    assert not Recording(tmp_path / "rec").damaged


def test_nothing_that_a_recording_names_is_started(tmp_path: Path) -> None:
    """Minari would make the environment that a dataset without spaces names, and so run any code there is."""
    spec = {"id": "Evil-v0", "entry_point": "pathlib:Path.touch", "kwargs": {"self": str(tmp_path / "pwned")}}
    (tmp_path / "metadata.json").write_text(json.dumps({"data_format": "parquet", "env_spec": json.dumps(spec)}))
    with pytest.raises(AgentctlError, match="does not tell its action_space and observation_space"):
        Recording(tmp_path)


def test_an_empty_recording_is_named(tmp_path: Path) -> None:
    recorder(tmp_path / "rec")
    done = call("replay", tmp_path / "rec", "--against", "toy/lantern")
    assert done.returncode == 1
    assert "holds no whole episode" in done.stderr


@pytest.mark.parametrize("content", [None, "{", "{}"])
def test_what_is_no_recording_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "metadata.json").write_text(content)
    with pytest.raises(AgentctlError, match="not a recording"):
        Recording(tmp_path)


def test_a_folder_that_holds_something_is_not_written_into(lantern: Path) -> None:
    for out in (lantern, lantern / "metadata.json"):
        done = call(*LANTERN, "--out", out)
        assert done.returncode == 2
        assert "choose another --out" in done.stderr


def test_a_recording_that_was_stopped_before_its_first_episode_is_in_nobodys_way(tmp_path: Path) -> None:
    recorder(tmp_path / "rec")
    recorder(tmp_path / "rec").write(numbers(5))
    assert list(Recording(tmp_path / "rec").lengths) == [0]
    with pytest.raises(ConfigError, match="choose another --out"):
        recorder(tmp_path / "rec")


@pytest.mark.parametrize("content", ["{}", "what else is called so", '{"total_episodes": 1}'])
def test_what_may_be_somebodys_is_not_written_over(tmp_path: Path, content: str) -> None:
    (tmp_path / "metadata.json").write_text(content)
    with pytest.raises(ConfigError, match="choose another --out"):
        recorder(tmp_path)


# --- who plays --------------------------------------------------------------------------------------------------------


def test_the_expert_of_the_toy_always_finds_the_door(tmp_path: Path) -> None:
    done = call("record", "toy/lantern", "--agent", "expert", "--games", "20", "--out", tmp_path / "rec", "--json")
    assert json.loads(done.stdout)["returns"] == [1.0] * 20


@pytest.mark.parametrize(
    ("agent", "told"), [("expert", "brings no expert"), ("rnadom", "did you mean 'random'"), ("runs/none", "policy")]
)
def test_an_agent_that_is_not_there_is_named(tmp_path: Path, agent: str, told: str) -> None:
    done = call("record", written(CARTPOLE, tmp_path), "--agent", agent, "--out", tmp_path / "rec")
    assert done.returncode == 2
    assert told in done.stderr
    assert not (tmp_path / "rec").exists()


# --- replay -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A short run of PPO, which samples its actions, and a recording of it in ``rec``."""
    loop = loop_of(CARTPOLE, tmp_path / "run")
    loop.train()
    (tmp_path / "run" / "config.yaml").write_text(written(CARTPOLE, tmp_path).read_text())
    done = call("record", tmp_path / "run.yaml", "--agent", tmp_path / "run", "--games", "7", "--out", tmp_path / "rec")
    assert done.returncode == 0, done.stderr
    return tmp_path / "run"


def test_a_run_does_again_what_it_did(run: Path) -> None:
    """Also where its actions are drawn by chance: rows and order are the recorded ones."""
    done = call("replay", run.parent / "rec", "--against", run, "--fail-on", "diff", "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 0
    assert found["differences"] == []
    assert found["steps"] == Recording(run.parent / "rec").steps


def test_rows_stay_where_they_were_when_one_is_lost(run: Path) -> None:
    """Each row draws its own chances; and what is lost is a failure of its own."""
    rec = run.parent / "rec"
    for number in Recording(rec).rows[0]:
        next((rec / str(number)).glob("*.parquet")).unlink()
    done = call("replay", rec, "--against", run, "--fail-on", "diff", "--json")
    found = json.loads(done.stdout)
    assert found["differences"] == []
    assert len(found["damaged"]) == 3
    assert done.returncode == 1


def test_a_runs_agent_plays_the_games_that_the_seed_asks_for(run: Path) -> None:
    seeds = {}
    for seed in (0, 7):
        out = run.parent / f"seed-{seed}"
        words = ("--agent", run, "--games", "1", "-s", f"run.seed={seed}", "--out", out)
        assert call("record", run.parent / "run.yaml", *words).returncode == 0
        seeds[seed] = Recording(out).episode(0).observations["vector"][0].tolist()
    assert seeds[0] != seeds[7]


def test_another_policy_and_another_reward_are_noticed(run: Path) -> None:
    rec = run.parent / "rec"
    done = call("replay", rec, "--against", run, "--fail-on", "diff", "--json", "-s", "reward.clip.bound=0.5")
    found = json.loads(done.stdout)
    assert done.returncode == 1
    assert {difference["what"] for difference in found["differences"]} == {"clip", "total"}
    assert {(d["recorded"], d["now"]) for d in found["differences"]} == {(1.0, 0.5)}
    other = json.loads(call("replay", rec, "--against", run, "--json", "-s", "run.seed=5").stdout)
    assert other["differences"] == []  # the seed is in the checkpoint
    untrained = call("replay", rec, "--against", run.parent / "run.yaml", "-s", "run.seed=5", "--fail-on", "diff")
    assert untrained.returncode == 1
    assert "action" in untrained.stdout


def test_a_changed_decision_is_named_with_its_episode_and_step(tmp_path: Path) -> None:
    call("record", "toy/lantern", "--agent", "expert", "--games", "3", "--out", tmp_path / "rec")
    recording = Recording(tmp_path / "rec")
    altered = Recorder(tmp_path / "altered", recording.observation_space, recording.action_space, recording.about)
    for episode in recording.episodes():
        if episode.number == 2:
            episode.actions = episode.actions.copy()
            episode.actions[4] = (episode.actions[4] + 1) % 4
        altered.write(episode)
    toy = {"game": "toy/lantern", "perception": ["toy_cells"], "policy": "toy_expert", "reward": ["game"]}
    found = compare(Recording(tmp_path / "altered"), assemble(composed(toy))).differences
    (difference,) = [one for one in found if one.what == "action"]
    assert (difference.episode, difference.step, difference.what) == (2, 4, "action")
    assert difference.recorded == (difference.now + 1) % 4


def test_playback_sees_what_the_run_saw(run: Path) -> None:
    assembly = assemble(composed(CARTPOLE))
    seen = list(playback(Recording(run.parent / "rec"), assembly))
    episodes = list(Recording(run.parent / "rec").episodes())
    assert len(seen) == sum(episode.length for episode in episodes)
    assert np.flatnonzero([transition.first[0] for transition in seen]).tolist() == [
        sum(episode.length for episode in episodes[:k]) for k in range(len(episodes))
    ]
    stops = [transition for transition in seen if transition.final is not None]
    for episode, transition in zip(episodes, stops, strict=True):
        assert transition.final is not None
        assert np.array_equal(transition.final.arrays["vector"][0], episode.observations["vector"][-1])
        assert (bool(transition.ended[0]), bool(transition.cut[0])) == (episode.ended, not episode.ended)


def test_a_recording_of_another_game_is_refused(lantern: Path) -> None:
    with pytest.raises(ConfigError, match=r"its actions are Discrete\(4\), the game's are Discrete\(2\)"):
        list(playback(Recording(lantern), assemble(composed(CARTPOLE))))


def test_bare_arrays_of_another_library_fit_a_game_that_shows_one(tmp_path: Path) -> None:
    """As Minari's own collector writes them, with HDF5 or Arrow and without our checksums."""
    from minari.data_collector import EpisodeBuffer
    from minari.dataset.minari_storage import MinariStorage

    env = gymnasium.make("CartPole-v1")
    storage = MinariStorage.new(tmp_path / "theirs", env.observation_space, env.action_space, data_format="arrow")
    storage.update_metadata({"dataset_id": "cartpole/theirs-v0", "minari_version": minari.__version__})
    observation, _ = env.reset(seed=0)
    seen, rewards = [observation], []
    for _ in range(5):
        observation, reward, *_ = env.step(1)
        seen.append(observation)
        rewards.append(reward)
    stops = [False] * 4 + [True]
    storage.update_episodes([EpisodeBuffer(None, None, None, np.stack(seen), np.ones(5, int), rewards, stops, stops)])
    played = list(playback(Recording(tmp_path / "theirs"), assemble(composed(CARTPOLE))))
    assert np.array_equal(np.stack([step.state["vector"][0] for step in played]), np.stack(seen[:-1]))
