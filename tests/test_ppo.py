"""PPO: its algebra against oracles, and that it learns what it should and nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector.utils import batch_space

from agentctl.agents.blocks import LSTM, Categoricals, Gaussian
from agentctl.agents.on_policy import explained_variance, gae
from agentctl.agents.ppo import PPO, clipped_objective, value_error
from agentctl.agents.random import RandomPolicy
from agentctl.core.nn.adam import ShardedAdam
from agentctl.core.nn.shards import Shards
from agentctl.core.protocols import Setup
from agentctl.core.types import Array, Arrays, Batch, Final, Step, Transition
from agentctl.plugins.replay.rollout import Rollout

FAST = {"lr": 3e-3, "hidden": (32,), "gamma": 0.5, "minibatches": 2}


# --- advantages -------------------------------------------------------------------------------------------------------


def random_batch(steps=12, rows=5, stops=0.2, seed=0):
    """A batch with rewards, values and ends; states are unit squares."""
    rng = np.random.default_rng(seed)
    ended, cut = rng.random((steps, rows)) < stops, rng.random((steps, rows)) < stops
    final_index = np.argwhere(ended | cut)
    value, reward = rng.normal(size=(2, steps, rows)).astype(np.float32)
    return Batch(
        state={"x": rng.random((steps, rows, 2), np.float32)},
        first=np.vstack([np.zeros((1, rows), bool), (ended | cut)[:-1]]),
        action=rng.integers(0, 3, (steps, rows)),
        reward=reward,
        ended=ended,
        cut=cut,
        extras={"value": value},
        carry={},
        next_state={"x": rng.random((rows, 2), np.float32)},
        final_index=final_index,
        final_state={"x": rng.random((len(final_index), 2), np.float32)},
    )


def advantages_by_hand(batch, following, gamma, lam):
    """Equation 16 of Schulman et al. (2016), sum by sum."""
    steps, rows = batch.reward.shape
    value, advantage = batch.extras["value"], np.zeros((steps, rows))
    for b in range(rows):
        for t in range(steps):
            for k in range(t, steps):
                future = 0.0 if batch.ended[k, b] else following[k, b]
                advantage[t, b] += (gamma * lam) ** (k - t) * (batch.reward[k, b] + gamma * future - value[k, b])
                if batch.ended[k, b] or batch.cut[k, b]:
                    break
    return advantage


def test_advantages_are_the_double_sum():
    batch = random_batch()
    following = np.random.default_rng(1).normal(size=batch.reward.shape).astype(np.float32)
    np.testing.assert_allclose(
        gae(batch, following, 0.9, 0.8), advantages_by_hand(batch, following, 0.9, 0.8), rtol=1e-5, atol=1e-6
    )


def test_advantages_of_steady_reward_are_the_geometric_sum():
    batch = random_batch(stops=0)
    batch.reward[:], batch.extras["value"][:] = 1, 0
    left = np.arange(12, 0, -1)[:, None] * np.ones(5)
    np.testing.assert_allclose(gae(batch, np.zeros((12, 5), np.float32), 0.9, 1.0), (1 - 0.9**left) / 0.1, rtol=1e-5)


def test_advantages_are_those_of_stable_baselines3():
    buffers = pytest.importorskip("stable_baselines3.common.buffers")
    batch = random_batch()
    steps, rows = batch.reward.shape
    last = np.random.default_rng(2).normal(size=rows).astype(np.float32)
    stopped = np.random.default_rng(3).normal(size=batch.reward.shape).astype(np.float32)  # V(final state)
    following = np.where(batch.ended | batch.cut, stopped, np.vstack([batch.extras["value"][1:], last]))
    box = spaces.Box(-1, 1, (1,))
    theirs = buffers.RolloutBuffer(steps, box, box, gae_lambda=0.8, gamma=0.9, n_envs=rows)
    bootstrapped = batch.reward + 0.9 * stopped * (batch.cut & ~batch.ended)  # as its collect_rollouts does
    for t in range(steps):
        zero, value = np.zeros((rows, 1)), torch.from_numpy(batch.extras["value"][t])
        theirs.add(zero, zero, bootstrapped[t], batch.first[t], value, torch.zeros(rows))
    theirs.compute_returns_and_advantage(torch.from_numpy(last), (batch.ended | batch.cut)[-1])
    np.testing.assert_allclose(gae(batch, following, 0.9, 0.8), theirs.advantages, rtol=1e-4, atol=1e-5)


def test_explained_variance_knows_perfect_and_mean():
    target = np.random.default_rng(0).normal(size=50)
    assert explained_variance(target, target) == 1
    assert explained_variance(np.full(50, target.mean()), target) == pytest.approx(0)


# --- losses -----------------------------------------------------------------------------------------------------------


def test_gradient_at_ratio_one_is_the_policy_gradient():
    logits = torch.randn(64, 4, dtype=torch.float64, requires_grad=True)
    action, advantage = torch.randint(4, (64,)), torch.randn(64, dtype=torch.float64)
    log_prob = logits.log_softmax(1).gather(1, action[:, None])[:, 0]
    (ours,) = torch.autograd.grad(
        clipped_objective(log_prob - log_prob.detach(), advantage, 0.2).sum(), logits, retain_graph=True
    )
    by_hand = advantage[:, None] * (torch.nn.functional.one_hot(action, 4) - logits.softmax(1))  # A * grad log pi
    torch.testing.assert_close(ours, by_hand.detach())


def test_objective_stops_pushing_once_the_ratio_left_its_bounds():
    log_ratio = torch.linspace(-0.6, 0.6, 41, dtype=torch.float64).repeat(2).requires_grad_()
    advantage = torch.tensor([1.5] * 41 + [-0.5] * 41, dtype=torch.float64)
    (ours,) = torch.autograd.grad(clipped_objective(log_ratio, advantage, 0.2).sum(), log_ratio)
    ratio = log_ratio.detach().exp()
    pushes = torch.where(advantage > 0, ratio < 1.2, ratio > 0.8)
    torch.testing.assert_close(ours, torch.where(pushes, ratio * advantage, 0.0))


def test_value_error_takes_the_worse_of_free_and_held():
    value, old, target = torch.tensor([2.0, 2.0, 0.1]), torch.tensor([0.0, 0.0, 0.0]), torch.tensor([3.0, 0.0, 3.0])
    assert value_error(value, old, target, None).tolist() == pytest.approx([0.5, 2.0, 0.5 * 2.9**2])
    assert value_error(value, old, target, 0.2).tolist() == pytest.approx([0.5 * 2.8**2, 2.0, 0.5 * 2.9**2])


# --- distributions ----------------------------------------------------------------------------------------------------


def test_multi_discrete_is_that_of_torch():
    logits = torch.randn(100, 7)
    ours, parts = Categoricals(logits, [3, 4], None), logits.split([3, 4], 1)
    theirs = [torch.distributions.Categorical(logits=part) for part in parts]
    choice = torch.stack([part.sample() for part in theirs], 1)
    torch.testing.assert_close(ours.log_prob(choice), sum(p.log_prob(c) for p, c in zip(theirs, choice.T, strict=True)))
    torch.testing.assert_close(ours.entropy(), sum(p.entropy() for p in theirs))


def test_gaussian_is_that_of_torch():
    mean, log_std, choice = torch.randn(3, 50, 2)
    theirs = torch.distributions.Normal(mean, log_std.exp())
    torch.testing.assert_close(Gaussian(mean, log_std).log_prob(choice), theirs.log_prob(choice).sum(1))
    torch.testing.assert_close(Gaussian(mean, log_std).entropy(), theirs.entropy().sum(1))


def test_samples_come_as_often_as_their_probability():
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    drawn = Categoricals(probabilities.log().expand(40_000, 4), [4], None).sample(torch.Generator().manual_seed(0))
    np.testing.assert_allclose(np.bincount(drawn[:, 0], minlength=4) / 40_000, probabilities, atol=0.01)


def test_masked_choices_are_never_sampled_and_get_no_gradient():
    logits = torch.randn(2000, 5, requires_grad=True)
    mask = torch.rand(2000, 5) < 0.5
    mask[:, 2] = True
    masked = Categoricals(logits, [5], mask)
    choice = masked.sample(torch.Generator().manual_seed(0))
    assert mask.gather(1, choice).all()
    assert mask.gather(1, masked.mode()).all()
    (gradient,) = torch.autograd.grad((masked.log_prob(choice) + masked.entropy()).sum(), logits)
    assert torch.equal(gradient[~mask], torch.zeros(int((~mask).sum())))
    assert gradient[mask].abs().max() > 0


# --- what it sees -----------------------------------------------------------------------------------------------------


def test_impossible_spaces_are_named():
    with pytest.raises(ValueError, match="the state is empty"):
        build(space={}, action_space=spaces.Discrete(2))
    with pytest.raises(ValueError, match="'words'"):
        build(space={"words": spaces.Text(5)}, action_space=spaces.Discrete(2))
    with pytest.raises(ValueError, match="cannot choose from"):
        build(space={"x": spaces.Discrete(2)}, action_space=spaces.Text(5))


# --- games that a right learner learns in seconds ---------------------------------------------------------------------


class Rounds:
    """Every round shows a random cue of ``space``; ``score(cue, action)`` pays. Rounds never end."""

    def __init__(self, space: spaces.Dict, score: Callable[[Arrays, Array], Array], batch: int = 16) -> None:
        self.space, self.score, self.batch = space, score, batch
        self.rows = batch_space(space, batch)
        self.rows.seed(0)

    def reset(self) -> Arrays:
        self.cue = self.rows.sample()
        return self.cue

    def step(self, action: Array) -> Step:
        reward, nothing = self.score(self.cue, action).astype(np.float32), np.zeros(self.batch, bool)
        return Step(self.reset(), reward, nothing, nothing)


class Recall:
    """The cue is shown at the first of four steps; only repeating it at the fourth pays."""

    space = spaces.Dict({"cue": spaces.Discrete(3)})  # 0 or 1; 2: nothing to see
    batch = 16

    def reset(self) -> Arrays:
        self.rng, self.time = np.random.default_rng(0), 0
        return self._deal()

    def _deal(self) -> Arrays:
        self.cue = self.rng.integers(0, 2, self.batch)
        return {"cue": self.cue}

    def step(self, action: Array) -> Step:
        self.time = (self.time + 1) % 4
        over = np.full(self.batch, self.time == 0)
        reward = np.where(over, action == self.cue, 0).astype(np.float32)
        blank = {"cue": np.full(self.batch, 2)}
        if not over.any():
            return Step(blank, reward, over, over)
        return Step(self._deal(), reward, over, ~over & False, Final(np.arange(self.batch), blank))


class Steady:
    """From a start that pays nothing to a state that pays 1 each step, until five are over: by a rule or by a limit."""

    space = spaces.Dict({"paying": spaces.Discrete(2)})
    batch = 8

    def __init__(self, stops: str) -> None:
        self.stops = stops

    def reset(self) -> Arrays:
        self.time = 0
        return self._state(0)

    def step(self, action: Array) -> Step:
        reward = np.full(self.batch, min(self.time, 1), np.float32)
        self.time = (self.time + 1) % 5
        over, no = np.full(self.batch, self.time == 0), np.zeros(self.batch, bool)
        ended, cut = (over, no) if self.stops == "ended" else (no, over)
        final = Final(np.arange(self.batch), self._state(1)) if over.any() else None
        return Step(self._state(min(self.time, 1)), reward, ended, cut, final)

    def _state(self, paying: int) -> Arrays:
        return {"paying": np.full(self.batch, paying)}


def build(space, action_space, batch=16, seed=0, **config):
    return PPO(PPO.Config(**config), Setup(spaces.Dict(space), action_space, batch, seed))


def play(policy, game, steps, rollout=None):
    """The loop in short: the transitions of ``steps`` steps of exploring, learning whenever the rollout is ready."""
    state, first, carry = game.reset(), np.ones(game.batch, bool), policy.initial(game.batch)
    for _ in range(steps):
        decision = policy.explore(carry, state, first)
        step = game.step(decision.action)
        stopped = step.ended | step.cut
        transition = Transition(
            state, first, carry, decision, step.reward, step.ended, step.cut, stopped, step.observation, step.final
        )
        transition.total = step.reward
        yield transition
        if rollout is not None:
            rollout.add(transition)
            if rollout.ready():
                policy.learn(rollout.sample())
        state, first, carry = step.observation, stopped, decision.carry


def train(policy, game, steps, length=32):
    """Mean reward per step over the last 128 steps."""
    rollout = Rollout(Rollout.Config(steps=length), Setup(game.space, batch=game.batch))
    return np.mean([t.reward.mean() for t in play(policy, game, steps, rollout)][-128:])


def test_learns_to_repeat_a_choice():
    game = Rounds(spaces.Dict({"cue": spaces.Discrete(4)}), lambda cue, action: cue["cue"] == action)
    assert train(build(game.space, spaces.Discrete(4), **FAST), game, 700) > 0.9
    assert train(RandomPolicy(RandomPolicy.Config(), Setup(game.space, spaces.Discrete(4))), game, 300) < 0.3


def test_learns_to_repeat_several_choices_at_once():
    space = spaces.MultiDiscrete([3, 2], start=[1, 0])
    game = Rounds(spaces.Dict({"cue": space}), lambda cue, action: (cue["cue"] == action).mean(1))
    assert train(build(game.space, space, **FAST), game, 700) > 0.9


def test_learns_to_repeat_real_numbers():
    game = Rounds(
        spaces.Dict({"cue": spaces.Box(-1, 1, (2,))}), lambda cue, action: -((cue["cue"] - action / 3) ** 2).mean(1)
    )
    assert (
        train(build(game.space, spaces.Box(-3, 3, (2,)), **{**FAST, "lr": 1e-2}, entropy=0.0), game, 1000) > -0.05
    )  # blind: -0.33


def test_learns_to_repeat_a_picture():
    def brighter_half(cue, action):
        left, right = cue["pixels"][:, 0, :, :4].mean((1, 2)), cue["pixels"][:, 0, :, 4:].mean((1, 2))
        return (left > right) == action

    game = Rounds(spaces.Dict({"pixels": spaces.Box(0, 255, (1, 8, 8), np.uint8)}), brighter_half)
    policy = build(game.space, spaces.Discrete(2), **{**FAST, "lr": 1e-3}, width=0.25, threads=2, precision="fp32")
    assert train(policy, game, 800) > 0.75


def test_obeys_the_mask_while_it_learns():
    space = spaces.Dict({"cue": spaces.Discrete(5), "action_mask": spaces.MultiBinary(5)})
    game = Rounds(space, lambda cue, action: cue["cue"] == action)
    policy = build(space, spaces.Discrete(5), **FAST)
    rollout = Rollout(Rollout.Config(steps=32), Setup(space, batch=16))
    rewards = []
    for transition in play(policy, game, 700, rollout):
        mask, action = transition.state["action_mask"], transition.decision.action
        possible = mask.any(1)
        assert mask[np.arange(16), action][possible].all()
        rewards.append(transition.reward[mask[np.arange(16), transition.state["cue"]] == 1].mean())
    assert np.nanmean(rewards[-128:]) > 0.9  # of the rounds in which the right choice was legal


def test_remembers_with_an_lstm_and_not_without():
    settings = {**FAST, "gamma": 0.9, "minibatches": 4, "lr": 1e-2}
    choices = spaces.Discrete(2)
    assert train(build(Recall.space, choices, **settings, lstm=16), Recall(), 500) * 4 > 0.95
    assert train(build(Recall.space, choices, **settings), Recall(), 500) * 4 < 0.65


@pytest.mark.parametrize(
    ("stops", "start", "paying"),  # gamma 0.8; an end leaves the mean of what 4, 3, 2 and 1 more steps pay
    [("cut", 0.8 * 5, 5), ("ended", 0.8 * 2.952, (2.952 + 2.44 + 1.8 + 1) / 4)],
)
def test_a_limit_does_not_take_the_future_but_an_end_does(stops, start, paying):
    settings = {**FAST, "gamma": 0.8, "gae_lambda": 1.0, "value_clip": None, "lr": 1e-2}
    policy = build(Steady.space, spaces.Discrete(2), 8, **settings)
    train(policy, Steady(stops), 600, length=20)
    seen = {"paying": np.array([0, 1])}
    np.testing.assert_allclose(policy.explore({}, seen, np.ones(2, bool)).extras["value"], [start, paying], rtol=0.05)


# --- recurrence -------------------------------------------------------------------------------------------------------


def test_lstm_forgets_where_an_episode_begins():
    lstm, x = LSTM(3, 4), torch.randn(6, 2, 3)
    first = torch.zeros(6, 2, dtype=torch.bool)
    first[3, 0] = True
    outputs, *_ = lstm(x, torch.ones(2, 4), torch.ones(2, 4), first)
    fresh, *_ = lstm(x[3:, :1], torch.zeros(1, 4), torch.zeros(1, 4), first[:3, :1])
    torch.testing.assert_close(outputs[3:, :1], fresh)
    kept, *_ = lstm(x[3:, 1:], torch.zeros(1, 4), torch.zeros(1, 4), first[:3, 1:])
    assert not torch.allclose(outputs[3:, 1:], kept)


def collected(policy, game, steps):
    """A rollout from the middle of an episode."""
    rollout = Rollout(Rollout.Config(steps=steps), Setup(game.space, batch=game.batch))
    for number, transition in enumerate(play(policy, game, steps + 3)):
        if number >= 3:
            rollout.add(transition)
    return rollout.sample()


@pytest.mark.parametrize("lstm", [0, 16])
def test_learning_starts_from_the_recorded_probabilities(lstm):
    policy = build(Recall.space, spaces.Discrete(2), lstm=lstm, epochs=1, minibatches=1)
    metrics = policy.learn(collected(policy, Recall(), 10))
    assert abs(metrics["approx_kl"]) < 1e-9
    assert metrics["clip_fraction"] == 0


# --- parts, precision, snapshots --------------------------------------------------------------------------------------


def camera_batch(policy, space, steps=8, rows=4):
    """Random pictures, rewards and ends, judged by ``policy``."""
    rng = np.random.default_rng(0)
    batch = random_batch(steps, rows)
    batch.state = {"pixels": rng.integers(0, 255, (steps, rows, *space.shape), np.uint8)}
    batch.next_state = {"pixels": batch.state["pixels"][0]}
    batch.final_state = {"pixels": rng.integers(0, 255, (len(batch.final_index), *space.shape), np.uint8)}
    extras = [
        policy.explore({}, {"pixels": p}, f).extras for p, f in zip(batch.state["pixels"], batch.first, strict=True)
    ]
    return replace(batch, extras={key: np.stack([e[key] for e in extras]) for key in extras[0]})


def camera(**config):
    space = spaces.Box(0, 255, (4, 44, 40), np.uint8)
    policy = build({"pixels": space}, spaces.Discrete(6), 4, width=0.25, **config)
    return policy, camera_batch(policy, space)


def gradients_of(policy):
    """The gradient of a policy's only update so far: the first running mean is a tenth of it."""
    arrays = policy.save().arrays
    return [torch.from_numpy(10 * array) for name, array in arrays.items() if name.endswith("exp_avg")]


def test_gradients_do_not_depend_on_the_number_of_threads():
    found = []
    for threads in (1, 2, 3):
        policy, batch = camera(threads=threads, precision="fp32", epochs=1, minibatches=1)
        policy.learn(batch)
        found.append(gradients_of(policy))
    assert max(gradient.abs().max() for gradient in found[0]) > 1e-3
    for parts in found[1:]:
        for one, other in zip(found[0], parts, strict=True):
            torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_sharded_adam_is_that_of_torch(threads):
    weights = [torch.randn(5, 4, 3, 3), torch.randn(2, 7), torch.randn(1)]
    theirs = [torch.nn.Parameter(weight.clone()) for weight in weights]
    reference = torch.optim.Adam(theirs, 0.01, eps=1e-5, fused=False)
    twins = [weight.bfloat16() for weight in weights]
    ours = ShardedAdam(weights, twins, Shards(threads))
    for size in (0.01, 10.0, 10.0):  # shorter and longer than the longest
        parts = [[size * torch.randn_like(weight) for weight in weights] for _ in range(2)]
        parts[1][0] = parts[1][0].contiguous(memory_format=torch.channels_last)
        for parameter, one, two in zip(theirs, *parts, strict=True):
            parameter.grad = one + two
        torch.nn.utils.clip_grad_norm_(theirs, 0.5)
        reference.step()
        ours.step(parts, 0.01, 0.5)
    for weight, twin, parameter in zip(weights, twins, theirs, strict=True):
        torch.testing.assert_close(weight, parameter.detach())
        assert torch.equal(twin, weight.bfloat16())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_two_threads_give_the_same_to_the_bit_every_time(precision):
    weights = []
    for _ in range(2):
        policy, batch = camera(threads=2, precision=precision)
        policy.learn(batch)
        weights.append(policy.save().arrays)
    assert all(np.array_equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_bf16_gradients_point_where_those_of_fp32_do():
    flat = []
    for precision in ("fp32", "bf16"):
        policy, batch = camera(threads=1, precision=precision, epochs=1, minibatches=1, max_grad_norm=1e9)
        batch.extras["log_prob"][:] = -math.log(6)
        policy.learn(batch)
        flat.append(torch.cat([gradient.flatten() for gradient in gradients_of(policy)]))
    assert torch.cosine_similarity(*flat, dim=0) > 0.995
    assert flat[1].norm() / flat[0].norm() == pytest.approx(1, abs=0.03)


def test_an_error_in_a_thread_reaches_the_caller_and_torch_keeps_its_threads():
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError):
        Shards(2).map(lambda part: 1 / part, [1, 0])
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("config", [{}, {"lstm": 8}, {"precision": "bf16", "threads": 2}])
def test_a_loaded_policy_goes_on_to_the_bit(config):
    space = {"pixels": spaces.Box(0, 255, (1, 8, 8), np.uint8), "x": spaces.Box(-1, 1, (2,))}
    game = Rounds(spaces.Dict(space), lambda cue, action: cue["x"][:, 0] * action[:, 0])
    actions = spaces.Box(-1, 1, (2,))
    config = {**config, "width": 0.1}
    saved = build(space, actions, **config)
    train(saved, game, 40, length=8)
    loaded = build(space, actions, seed=7, **config)
    loaded.load(saved.save())
    endings = []
    for policy in (saved, loaded):
        game.rows.seed(1)
        rewards = train(policy, game, 40, length=8)
        greedy = policy.act(policy.initial(16), game.reset(), np.ones(16, bool)).action
        endings.append((rewards, greedy, policy.save()))
    assert endings[0][0] == endings[1][0]
    assert np.array_equal(endings[0][1], endings[1][1])
    arrays, others = endings[0][2].arrays, endings[1][2].arrays
    assert arrays.keys() == others.keys()
    assert all(np.array_equal(arrays[name], others[name]) for name in arrays)


def test_building_and_acting_leave_torchs_own_randomness_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    policy, _ = camera(threads=2)
    assert torch.equal(torch.rand(3), expected)
    first = policy.act({}, {"pixels": np.zeros((4, 4, 44, 40), np.uint8)}, np.zeros(4, bool))
    assert first.action.shape == (4,)


def test_greedy_acts_alike_every_time_and_sampling_does_not_disturb_exploring():
    state = {"x": np.zeros((16, 1), np.float32)}
    first = np.zeros(16, bool)
    for evaluate, kinds in (("greedy", 1), ("sample", 2)):
        one, two = (build({"x": spaces.Box(-1, 1, (1,))}, spaces.Discrete(2), evaluate=evaluate) for _ in range(2))
        assert len(np.unique(one.act({}, state, first).action)) == kinds
        assert np.array_equal(one.explore({}, state, first).action, two.explore({}, state, first).action)


def test_the_learning_rate_falls_to_nothing():
    policy = build(Recall.space, spaces.Discrete(2), anneal_steps=320, lr=1e-3)
    batch = collected(policy, Recall(), 10)
    rates = [policy.learn(batch)["learning_rate"] for _ in range(4)]
    assert rates == pytest.approx([1e-3, 5e-4, 0, 0])


def test_epochs_stop_once_the_policy_moved_far_enough():
    policy, batch = camera(lr=0.01, target_kl=1e-4, epochs=50, minibatches=1, precision="fp32")
    policy.learn(batch)
    assert 1 < policy.save().arrays["adam/0/step"] < 50


# --- the baseline -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "mask"),
    [(spaces.Discrete(4), [0, 1, 1, 0]), (spaces.MultiDiscrete([2, 3]), [0, 1, 1, 0, 1])],
)
def test_random_draws_every_legal_action_and_no_other(space, mask):
    policy = RandomPolicy(RandomPolicy.Config(), Setup(action_space=space))
    state = {"action_mask": np.tile(np.array(mask, bool), (200, 1))}
    drawn = {tuple(np.atleast_1d(action)) for action in policy.act({}, state, np.ones(200, bool)).action}
    assert drawn == {(1,), (2,)} if space == spaces.Discrete(4) else drawn == {(1, 0), (1, 2)}


def test_random_goes_on_where_it_was_saved():
    one, two = (
        RandomPolicy(RandomPolicy.Config(), Setup(action_space=spaces.Box(-1, 1, (3,)), seed=s)) for s in (0, 1)
    )
    two.load(one.save())
    assert np.array_equal(*(policy.act({}, {}, np.ones(9, bool)).action for policy in (one, two)))
