"""Evaluation: fixed seeds beside a random policy, the game's own return, and nothing about training changed by it."""

from pathlib import Path
from typing import Any

import clockwork
import numpy as np
import pytest
from gymnasium import spaces
from running import composed, contents, latest, loop_of

from agentctl.core.assembly import assemble
from agentctl.core.errors import ConfigError, NotReadyError
from agentctl.core.evaluate import MAX_FRAMES, Evaluator, random_actions
from agentctl.core.runner import evaluate
from agentctl.core.types import Array

TOY = {
    "game": {"name": "toy/lantern", "batch": 4},
    "perception": "toy_cells",
    "memory": {"name": "last_seen", "fields": ["lantern"]},
    "policy": "dyna_q",
    "replay": {"name": "rollout", "steps": 16},
    "reward": ["game", {"name": "toy_step_cost", "weight": 0.01}],
    "run": {"steps": 1920, "cycle_steps": 320},
    "evaluation": {"episodes": 6},
}


def end_of(data: dict[str, Any], folder: Path, **evaluation: Any) -> dict[str, Any]:
    """What the last checkpoint of a run holds, but for its evaluations."""
    loop_of({**data, "evaluation": {**data["evaluation"], **evaluation}}, folder).train()
    found = contents(latest(folder))
    del found["loop.json"]["evaluations"], found["checkpoint.json"]
    return found


@pytest.mark.parametrize("data", [clockwork.yaml(), clockwork.yaml(saves=False), TOY], ids=["saves", "restarts", "toy"])
def test_training_is_the_same_however_often_and_long_it_is_evaluated(data: dict[str, Any], tmp_path: Path) -> None:
    """The clockwork policy and world model draw from one generator for training and evaluation."""
    every = end_of(data, tmp_path / "every")
    assert every == end_of(data, tmp_path / "third", every=3)
    assert every == end_of(data, tmp_path / "more", episodes=9, max_steps=31)


def test_a_checkpoint_always_gives_the_figures_that_its_run_gave(tmp_path: Path) -> None:
    loop = loop_of(clockwork.yaml(lives=0.2), tmp_path)
    loop.train()
    for _ in range(2):
        again = evaluate(loop.assembly.composition, latest(tmp_path), None, quiet=True).evaluations[-1]
        assert again.returns == loop.run.evaluations[-1].returns
        assert again.step == 96 and again.random_returns == loop.run.evaluations[-1].random_returns


def by_hand(evaluator: Evaluator, seed: int, episodes: int) -> tuple[list[float], list[int]]:
    """The same episodes in a plain loop over one game, with what the policy saw taken from the pipeline alone."""
    assembly = evaluator.assembly
    policy, game, pipeline = assembly.policy, assembly.another_game(episodes), assembly.another_pipeline(episodes)
    flow, state = pipeline.begin(game.reset(seed), episodes, policy.initial(episodes))
    returns, lengths, over = np.zeros(episodes), np.zeros(episodes, int), np.zeros(episodes, bool)
    while not over.all():
        decision = policy.act(flow.policy, state, flow.first)
        flow.policy, action = decision.carry, decision.action
        step = game.step(action)
        for row in np.flatnonzero(~over):
            returns[row] += step.reward[row]
            lengths[row] += 1
            over[row] = step.ended[row] or step.cut[row]
        state = pipeline.see(flow, step.observation, action, step.ended | step.cut)
    return returns.tolist(), lengths.tolist()


LONG = clockwork.yaml(hazard=0.2, limit=40, evaluation={"episodes": 6, "max_steps": 99})


LONG |= {"world_model": False, "reward": ["game", "toy_step_cost"]}


@pytest.mark.parametrize("data", [TOY, LONG], ids=["toy", "clockwork"])
def test_returns_and_lengths_are_those_of_the_first_episode_of_each_row(data: dict[str, Any]) -> None:
    loop = loop_of(data)
    loop.train()
    episodes = loop.evaluator.policy_episodes(frames=False)
    assert episodes is not None
    assert (episodes.returns, episodes.lengths) == by_hand(loop.evaluator, 1_000_000, 6)
    assert data is TOY or len(set(episodes.lengths)) > 3
    assert episodes.terms["game"] == pytest.approx(np.mean(episodes.returns))
    assert episodes.terms["step_cost"] == pytest.approx(-np.mean(episodes.lengths))


def test_lost_lives_do_not_end_an_evaluation_episode() -> None:
    data = clockwork.yaml(lives=0.9, hazard=0.0, limit=7, evaluation={"max_steps": 100})
    episodes = loop_of(data).evaluator.policy_episodes(frames=False)
    assert episodes is not None and episodes.lengths == [7, 7, 7]


def test_rows_that_reach_the_step_limit_count_as_they_stand() -> None:
    data = clockwork.yaml(hazard=0.0, limit=1000, evaluation={"max_steps": 11, "episodes": 5})
    loop = loop_of(data)
    episodes = loop.evaluator.policy_episodes(frames=False)
    assert episodes is not None and episodes.lengths == [11] * 5 and len(episodes.returns) == 5
    assert all(return_ > 0 for return_ in episodes.returns)


def test_reward_terms_see_the_states_in_which_episodes_stopped() -> None:
    seen = []
    loop = loop_of(clockwork.yaml(hazard=0.3) | {"reward": "clockwork/reward"})

    def another_rewards(batch: int) -> Any:
        rewards = type(loop.assembly).another_rewards(loop.assembly, batch)
        score = rewards.parts[0][1].score
        rewards.parts[0][1].score = lambda transition: seen.append(transition) or score(transition)
        return rewards

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.evaluator, "assembly", _With(loop.assembly, another_rewards=another_rewards))
        loop.evaluator.policy_episodes(frames=False)
    stops = [transition for transition in seen if transition.over.any()]
    assert stops
    for transition in stops:
        rows = np.flatnonzero(transition.over)
        assert transition.final.rows.tolist() == rows.tolist()
        assert (transition.final.arrays["time"] == transition.state["time"][rows] + 1).all()


class _With:
    """``real`` with some attributes replaced."""

    def __init__(self, real: Any, **replaced: Any) -> None:
        self.__dict__.update(replaced, _real=real)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def test_the_random_reference_is_measured_once_and_by_seed() -> None:
    first, second = loop_of(TOY).evaluator, loop_of(TOY | {"policy": "random"}).evaluator
    assert first.random_returns() == second.random_returns()
    assert first.random_returns() is first.random_returns()
    other = loop_of(TOY | {"evaluation": {"episodes": 6, "seed": 5}})
    assert len(other.evaluator.random_returns() or []) == 6


def test_an_undrawable_game_is_evaluated_without_frames() -> None:
    loop = loop_of(clockwork.yaml())

    def undrawable(game: Any) -> Array:
        raise NotReadyError("no screen here")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(loop.assembly.game), "frame", undrawable)
        episodes = loop.evaluator.policy_episodes(frames=True)
    assert episodes is not None and episodes.unseen == "no screen here" and episodes.frames == []


def test_frames_are_of_the_first_episode_and_bounded() -> None:
    data = clockwork.yaml(hazard=0.0, limit=9, evaluation={"max_steps": 20})
    episodes = loop_of(data).evaluator.policy_episodes(frames=True)
    assert episodes is not None and len(episodes.frames) == 9
    long = clockwork.yaml(hazard=0.0, limit=10**6, evaluation={"episodes": 1, "max_steps": MAX_FRAMES + 50})
    episodes = loop_of(long).evaluator.policy_episodes(frames=True)
    assert episodes is not None and len(episodes.frames) == MAX_FRAMES and episodes.lengths == [MAX_FRAMES + 50]


SPACES = [
    spaces.Discrete(5, start=3),
    spaces.MultiDiscrete([2, 4, 3]),
    spaces.MultiBinary(4),
    spaces.Box(-2.0, 3.0, (2,), np.float32),
]


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_random_actions_are_legal_uniform_and_of_the_seed(space: spaces.Space[Any]) -> None:
    actions = random_actions(space, 4000, np.random.default_rng(0))
    assert all(space.contains(action) for action in actions)
    assert (actions == random_actions(space, 4000, np.random.default_rng(0))).all()
    if not isinstance(space, spaces.Box):
        for column in actions.reshape(4000, -1).T:
            _, counts = np.unique(column, return_counts=True)
            assert counts.min() > 0.85 * 4000 / len(counts)


def test_random_actions_keep_to_the_mask_and_are_uniform_on_what_it_leaves() -> None:
    rng = np.random.default_rng(0)
    mask = np.tile(np.array([0, 1, 0, 1, 1], np.int8), (6000, 1))
    actions = random_actions(spaces.Discrete(5, start=10), 6000, rng, mask)
    values, counts = np.unique(actions, return_counts=True)
    assert values.tolist() == [11, 13, 14] and counts.min() > 1800
    mask = np.tile(np.array([1, 0, 0, 1, 1, 0], bool), (3000, 1))
    actions = random_actions(spaces.MultiDiscrete([2, 4]), 3000, rng, mask)
    assert set(actions[:, 0]) == {0} and set(actions[:, 1]) == {1, 2}


def test_spaces_without_a_random_reference_are_named() -> None:
    with pytest.raises(ConfigError, match="Text"):
        random_actions(spaces.Text(3), 1, np.random.default_rng(0))


MASKED = """
import numpy as np
from gymnasium import spaces
from agentctl.core import BaseConfig, Component, hookimpl

@hookimpl
def agentctl_perceptions():
    return [Component("rules", f"{__name__}:Rules", "only 1 is legal")]

class Rules:
    class Config(BaseConfig):
        pass
    def __init__(self, config, setup):
        self.space = spaces.Dict({"action_mask": spaces.Box(0, 1, (3,), np.int8)})
    def perceive(self, observation):
        return {"action_mask": np.tile(np.array([0, 1, 0], np.int8), (len(observation["time"]), 1))}
"""


def test_the_random_reference_keeps_to_a_mask_that_a_perception_sees(tmp_path: Path) -> None:
    (tmp_path / "rules.py").write_text(MASKED)
    data = clockwork.yaml(hazard=0.0, limit=6) | {"perception": ["clockwork/eye", "rules"]}
    data["plugins"] = [*data["plugins"], str(tmp_path / "rules.py")]
    returns = Evaluator(assemble(composed(data)), loop_of(data).evaluator.settings).random_returns()
    assert returns == [sum((1 + time) % 3 for time in range(6))] * 3
