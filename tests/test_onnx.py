"""An exported policy acts in onnxruntime as it does here."""

from __future__ import annotations

import json

import numpy as np
import onnxruntime
import pytest
from gymnasium import spaces
from running import call

from agentctl.agents.a2c import A2C
from agentctl.agents.a3c import A3C
from agentctl.agents.dqn import DQN
from agentctl.agents.ppo import PPO
from agentctl.core.contracts.samples import sample, sample_mask
from agentctl.core.protocols import Setup

PIXELS = spaces.Dict({"pixels": spaces.Box(0, 255, (4, 40, 36), np.uint8)})
MIXED = spaces.Dict({"pixels": spaces.Box(0, 255, (12, 10), np.uint8), "hud/life": spaces.Box(-1, 1, (3,))})
MASKED = spaces.Dict({"place": spaces.Discrete(5), "action_mask": spaces.MultiBinary(6)})
REAL = spaces.Box(np.array([-2, 0], np.float32), np.array([2, 50], np.float32))
GREEDY = {"evaluate": "greedy", "precision": "fp32"}
RAINBOW = {"dueling": True, "noisy": 0.5, "distribution": "c51", "epsilon_act": 0.0, "precision": "fp32"}


def session(policy, path):
    policy.export_onnx(path, {"agentctl.policy": "a test"})
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def states(space, rows, rng):
    drawn = {key: sample(part, rows, rng) for key, part in space.spaces.items()}
    return drawn | ({"action_mask": sample_mask([6], rows, rng).astype(np.int8)} if "action_mask" in drawn else {})


@pytest.mark.parametrize(
    ("kind", "config", "space", "actions"),
    [
        pytest.param(PPO, {"width": 0.25, **GREEDY}, PIXELS, spaces.Discrete(6, start=2), id="ppo on pixels"),
        pytest.param(PPO, GREEDY, MASKED, spaces.Discrete(6), id="ppo with a mask"),
        pytest.param(PPO, GREEDY, MIXED, REAL, id="ppo, real actions"),
        pytest.param(A2C, GREEDY, MIXED, spaces.MultiDiscrete([3, 4]), id="a2c, two choices"),
        pytest.param(A3C, GREEDY, MIXED, spaces.Discrete(3), id="a3c"),
        pytest.param(
            DQN, {"width": 0.25, "hidden": (32,), **RAINBOW}, PIXELS, spaces.Discrete(6), id="rainbow on pixels"
        ),
        pytest.param(DQN, {"epsilon_act": 0.0}, MASKED, spaces.Discrete(6, start=-1), id="dqn with a mask"),
    ],
)
def test_it_chooses_the_same_actions_for_any_number_of_rows(kind, config, space, actions, tmp_path):
    policy, rng = kind(kind.Config(**config), Setup(space, actions, batch=4, seed=5)), np.random.default_rng(0)
    runtime = session(policy, tmp_path / "policy.onnx")
    assert runtime.get_modelmeta().custom_metadata_map["agentctl.policy"] == "a test"
    for rows in (1, 3, 16):
        state = states(space, rows, rng)
        (action, *_) = runtime.run(["action"], state)
        expected = policy.act(policy.initial(rows), state, np.zeros(rows, bool)).action
        assert action.shape == expected.shape
        np.testing.assert_allclose(action, expected, atol=1e-4)


def test_a_recurrent_one_carries_its_state_and_forgets_where_episodes_begin(tmp_path):
    policy = PPO(PPO.Config(lstm=8, **GREEDY), Setup(MIXED, REAL, batch=4, seed=5))
    runtime, rng, rows = session(policy, tmp_path / "policy.onnx"), np.random.default_rng(0), 3
    carry = policy.initial(rows)
    theirs = dict(carry)
    for t in range(12):
        state, first = states(MIXED, rows, rng), np.array([t == 0, t % 4 == 0, t == 7])
        action, _, theirs["h"], theirs["c"] = runtime.run(None, {**state, **theirs, "first": first})
        decision = policy.act(carry, state, first)
        carry = decision.carry
        np.testing.assert_allclose(action, decision.action, atol=1e-4)
        for key in carry:
            np.testing.assert_allclose(theirs[key], carry[key], atol=1e-4)


def test_a_run_is_exported_by_one_command(tmp_path):
    settings = ("run.steps=600", "run.cycle_steps=600", "evaluation.episodes=2")
    quick = [word for setting in settings for word in ("-s", setting)]
    done = call("run", "configs/gym/cartpole-dqn.yaml", *quick, "--out", tmp_path / "run", "--json")
    assert done.returncode == 0, done.stderr
    done = call("export", tmp_path / "run", "--onnx", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert (told["policy"], told["step"]) == ("dqn", "600")
    runtime = onnxruntime.InferenceSession(told["file"], providers=["CPUExecutionProvider"])
    (action, _) = runtime.run(None, {"vector": np.zeros((5, 4), np.float32)})
    assert set(action.tolist()) <= {0, 1}


def test_what_cannot_be_exported_is_said(tmp_path):
    settings = ("run.steps=160", "run.cycle_steps=160", "evaluation.episodes=2")
    quick = [word for setting in settings for word in ("-s", setting)]
    assert call("run", "configs/toy/lantern.yaml", *quick, "--out", tmp_path / "run", "--json").returncode == 0
    done = call("export", tmp_path / "run", "--onnx")
    assert done.returncode == 2
    assert "policy 'dyna_q' cannot be exported" in done.stderr
    done = call("export", tmp_path / "run")
    assert done.returncode == 2
    assert "agentctl export RUN --onnx" in done.stderr
