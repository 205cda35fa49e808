"""Reward terms say what their name says and leave the game's own reward alone."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium import spaces

from agentctl.core.protocols import Setup
from agentctl.core.types import Decision, Transition
from agentctl.plugins.reward.clip import Clip
from agentctl.plugins.reward.game import Game
from agentctl.plugins.reward.scale import Scale

SETUP = Setup(batch=4)


def transition(reward, ended=(False,) * 4, cut=(False,) * 4):
    ended, cut = np.array(ended), np.array(cut)
    nothing = np.zeros(4)
    return Transition(
        {}, nothing == 1, {}, Decision(nothing), np.array(reward, np.float32), ended, cut, ended | cut, {}, None
    )


def test_game_is_the_games_own():
    assert Game(Game.Config(), SETUP).score(transition([0, 1, -5, 400]))["game"].tolist() == [0, 1, -5, 400]


def test_clip_keeps_the_sign_or_what_is_within_its_bound():
    step = transition([0, 0.5, -5, 400])
    assert Clip(Clip.Config(), SETUP).score(step)["clip"].tolist() == [0, 1, -1, 1]
    assert Clip(Clip.Config(bound=2), SETUP).score(step)["clip"].tolist() == [0, 0.5, -2, 2]
    assert step.reward.tolist() == [0, 0.5, -5, 400]
    with pytest.raises(ValueError, match="greater than 0"):
        Clip.Config(bound=-1)


def test_scale_by_a_constant():
    scaled = Scale(Scale.Config(constant=100), SETUP).score(transition([0, 50, -5, 4000]))["scale"]
    np.testing.assert_allclose(scaled, [0, 0.5, -0.05, 10])


def steps(count, seed=0):
    rng = np.random.default_rng(seed)
    return [transition(rng.normal(3, 20, 4), rng.random(4) < 0.1, rng.random(4) < 0.1) for _ in range(count)]


def test_scale_is_the_normalisation_of_stable_baselines3():
    vec_env = pytest.importorskip("stable_baselines3.common.vec_env")
    box, made = spaces.Box(-1, 1, (1,)), steps(200)

    class Replayed(vec_env.VecEnv):
        """The same rewards again."""

        def __init__(self):
            super().__init__(4, box, box)
            self.left = iter(made)

        def reset(self):
            return np.zeros((4, 1), np.float32)

        def step_async(self, actions):
            pass

        def step_wait(self):
            step = next(self.left)
            return np.zeros((4, 1), np.float32), step.reward, step.ended | step.cut, [{}] * 4

        def close(self):
            pass

        def get_attr(self, name, indices=None):
            return [None] * 4

        set_attr = env_method = env_is_wrapped = lambda self, *args, **kwargs: [None] * 4

    theirs = vec_env.VecNormalize(Replayed(), norm_obs=False, gamma=0.95)
    theirs.reset()
    ours = Scale(Scale.Config(gamma=0.95), SETUP)
    for step in made:
        np.testing.assert_allclose(ours.score(step)["scale"], theirs.step(np.zeros((4, 1)))[1], rtol=1e-4)


def test_scale_gives_returns_of_unit_spread_whatever_the_games_numbers():
    for size in (0.01, 1000):
        scale, rng, running, seen = Scale(Scale.Config(gamma=0.9), SETUP), np.random.default_rng(0), np.zeros(4), []
        for _ in range(3000):
            running = running * 0.9 + scale.score(transition(rng.normal(0, size, 4)))["scale"]
            seen.append(running)
        assert np.std(seen[500:]) == pytest.approx(1, abs=0.1)


def test_a_loaded_scale_goes_on_to_the_bit():
    made = steps(50)
    saved, loaded = Scale(Scale.Config(), SETUP), Scale(Scale.Config(), SETUP)
    for step in made[:25]:
        saved.score(step)
    loaded.load(saved.save())
    for step in made[25:]:
        assert np.array_equal(saved.score(step)["scale"], loaded.score(step)["scale"])
