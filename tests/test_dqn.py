"""DQN's parts against closed forms and brute force, one test per known mistake, and a chain whose values are known."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from gymnasium import spaces
from pydantic import ValidationError
from running import ROOT
from torch.nn import functional as F

from agentctl.agents.dqn import DQN, n_step
from agentctl.agents.noisy import NoisyLinear
from agentctl.agents.q_network import QNetwork
from agentctl.agents.value_distributions import Histogram, Mean, Quantiles, project, quantile_huber
from agentctl.agents.vision import Convolutions
from agentctl.core.assembly import assemble
from agentctl.core.config import compose
from agentctl.core.loop import Loop
from agentctl.core.nn.adam import ShardedAdam
from agentctl.core.nn.shards import Shards
from agentctl.core.protocols import Setup
from agentctl.core.run import Run
from agentctl.core.types import Batch

NUMBERS = spaces.Dict({"place": spaces.Discrete(6)})
PIXELS = spaces.Dict({"pixels": spaces.Box(0, 255, (4, 84, 84), np.uint8)})


def dqn(space=NUMBERS, actions=2, **config):
    return DQN(DQN.Config(**{"hidden": (32,), **config}), Setup(space, spaces.Discrete(actions), batch=8, seed=3))


# --- returns of several steps -----------------------------------------------------------------------------------------


def batch_of(reward, ended, cut, place, action=None):
    """T steps of B samples; the state is a number, and final states are 100 more than the one they follow."""
    steps, rows = reward.shape
    index = np.argwhere(ended | cut)
    return Batch(
        state={"place": place[:-1]}, first=np.zeros((steps, rows), bool),
        action=np.zeros((steps, rows), np.int64) if action is None else action,
        reward=reward, ended=ended, cut=cut, extras={}, carry={}, next_state={"place": place[-1]},
        final_index=index, final_state={"place": place[:-1][tuple(index.T)] + 100},
    )  # fmt: skip


def test_n_step_returns_stop_at_ends_and_are_bootstrapped_at_cuts():
    rng, gamma = np.random.default_rng(0), 0.9
    reward, place = rng.random((3, 500)).astype(np.float32), rng.integers(0, 50, (4, 500))
    ended, cut = rng.random((3, 500)) < 0.2, rng.random((3, 500)) < 0.2
    got = n_step(batch_of(reward, ended, cut, place), gamma)
    for b in range(500):
        total, discount, after = 0.0, 1.0, place[3, b]
        for t in range(3):
            total += discount * reward[t, b]
            discount *= gamma
            if ended[t, b] or cut[t, b]:
                after, discount = place[t, b] + 100, discount * (not ended[t, b])
                break
        assert got.reward[b] == pytest.approx(total, rel=1e-5)
        assert got.discount[b] == pytest.approx(discount, rel=1e-5)
        assert discount == 0 or got.state["place"][b] == after


# --- distributions ----------------------------------------------------------------------------------------------------


def test_c51_projects_as_the_published_loop_does_also_onto_atoms_that_are_hit():
    rng, support = np.random.default_rng(0), np.linspace(-2, 2, 9)
    reward = rng.choice([0.0, 0.25, 0.5, -3.0, 7.0, 0.1], 200)
    discount = rng.choice([0.0, 0.5, 0.99, 1.0], 200)
    chances = rng.dirichlet(np.ones(9), 200)
    expected = np.zeros_like(chances)
    for n in range(200):
        for j in range(9):
            b = (np.clip(reward[n] + discount[n] * support[j], -2, 2) + 2) / 0.5
            low, high = int(np.floor(b)), int(np.ceil(b))
            if low == high:
                expected[n, low] += chances[n, j]
            else:
                expected[n, low] += chances[n, j] * (high - b)
                expected[n, high] += chances[n, j] * (b - low)
    got = project(*(torch.tensor(x) for x in (chances, reward, discount, support)))
    np.testing.assert_allclose(got, expected, atol=1e-12)
    np.testing.assert_allclose(got.sum(1), 1.0)


def test_the_quantile_loss_is_that_of_the_paper():
    rng = np.random.default_rng(0)
    quantiles, target, levels = rng.normal(size=(5, 4)), rng.normal(size=(5, 4)) * 2, (np.arange(4) + 0.5) / 4
    expected = np.zeros(5)
    for n, i, j in np.ndindex(5, 4, 4):
        u = target[n, j] - quantiles[n, i]
        huber = 0.5 * u * u if abs(u) <= 1 else abs(u) - 0.5
        expected[n] += abs(levels[i] - (u < 0)) * huber / 4
    np.testing.assert_allclose(quantile_huber(*(torch.tensor(x) for x in (quantiles, target, levels))), expected)


@pytest.mark.parametrize("clip", [0.5, 1.0, None])
def test_an_errors_pull_ends_at_its_clip(clip):
    outputs, target = torch.linspace(-4, 4, 30)[:, None], torch.zeros(30)
    expected = 0.5 * outputs[:, 0] ** 2 if clip is None else F.huber_loss(outputs[:, 0], target, "none", clip)
    torch.testing.assert_close(Mean(clip).loss(outputs, target, target, outputs), expected)


def test_quantiles_and_histograms_learn_a_known_distribution():
    """Of 0 with 3/4 and 4 with 1/4: the mean is 1, the lower quantiles are 0, the histogram is the distribution."""
    torch.manual_seed(0)
    drawn = (torch.rand(20_000) < 0.25).float() * 4
    for kind in (Quantiles(8), Histogram(5, 0.0, 4.0), Mean(None)):
        outputs = torch.zeros(kind.outputs, requires_grad=True)
        optimiser = torch.optim.Adam([outputs], 0.05)
        for part in drawn.split(200) * 6:
            n = len(part)
            loss = kind.loss(outputs.expand(n, -1), part, torch.zeros(n), torch.zeros(n, kind.outputs)).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        if isinstance(kind, Histogram):
            np.testing.assert_allclose(outputs.softmax(0).detach(), [0.75, 0, 0, 0, 0.25], atol=0.05)
            assert kind.mean(outputs).item() == pytest.approx(1.0, abs=0.1)
        if isinstance(kind, Quantiles):
            assert (outputs[:4].abs() < 0.35).all()
            assert (outputs[7:] > 3).all()


# --- the network ------------------------------------------------------------------------------------------------------


def test_noise_is_that_of_a_matrix_and_silence_is_the_mean():
    layer, generator, x = NoisyLinear(6, 4, 0.5), torch.Generator().manual_seed(0), torch.randn(3, 6)
    assert torch.equal(layer(x), layer.mean(x))
    layer.draw_noise(generator, rows=1)
    (noise_in,), (noise_out,) = layer._noise
    weight = layer.mean.weight + layer.sigma.weight * torch.outer(noise_out, noise_in)
    bias = layer.mean.bias + layer.sigma.bias * noise_out
    torch.testing.assert_close(layer(x), x @ weight.T + bias)
    layer.mix()
    torch.testing.assert_close(layer(x), x @ weight.T + bias)
    first = layer(x)
    layer.draw_noise(generator, rows=1)
    assert not torch.equal(layer(x), first), "drawn anew"
    layer.silence()
    assert torch.equal(layer(x), layer.mean(x))


def test_games_side_by_side_explore_by_noise_of_their_own():
    layer, x = NoisyLinear(6, 4, 0.5), torch.randn(3, 6)
    layer.draw_noise(torch.Generator().manual_seed(0), rows=3)
    noise_in, noise_out = layer._noise
    for row in range(3):
        weight = layer.mean.weight + layer.sigma.weight * torch.outer(noise_out[row], noise_in[row])
        bias = layer.mean.bias + layer.sigma.bias * noise_out[row]
        torch.testing.assert_close(layer(x)[row], x[row] @ weight.T + bias)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_mixed_noise_moves_means_and_spreads_as_torch_does(threads):
    net = QNetwork(NUMBERS, (3, 5), (16, 2), Convolutions, dueling=True, noise=0.5)
    theirs = copy.deepcopy(net)
    reference = torch.optim.Adam(theirs.parameters(), 0.01)
    shards = Shards(threads)
    adam = ShardedAdam(list(net.parameters()), [], shards, eps=1e-8)
    for seed in range(3):
        for one in (net, theirs):
            one.draw_noise(torch.Generator().manual_seed(seed))
        net.mix()
        leaves = net.leaves()
        assert len(leaves.tensors) + len(leaves.scaled) == len(list(net.parameters()))
        parts = [{"place": torch.arange(6)[half]} for half in (slice(0, 4), slice(4, 6))]
        gradients, _ = shards.gradients(lambda part: (net(part).square().sum(),) * 2, parts, leaves.tensors)
        adam.step(gradients, 0.01, 1e9, leaves.scaled)
        reference.zero_grad()
        sum(theirs(part).square().sum() for part in parts).backward()
        reference.step()
    for mine, other in zip(net.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6)


def test_advantages_of_a_dueling_network_say_nothing_of_the_state():
    net = QNetwork(NUMBERS, (3, 5), (16,), Convolutions, dueling=True, noise=0.0)
    x = {"place": torch.arange(6)}
    whole = net(x)
    with torch.no_grad():
        net.out[0].bias += 7.0  # of all advantages alike
    torch.testing.assert_close(net(x), whole)
    with torch.no_grad():
        net.out[1].bias += 7.0  # of the value
    torch.testing.assert_close(net(x), whole + 7.0)


def test_double_lets_the_network_pick_and_the_target_value():
    state = {"place": torch.arange(6)}
    for double in (False, True):
        agent = dqn(double=double, actions=3)
        with torch.no_grad():
            for parameter in agent.target.parameters():
                parameter.copy_(torch.randn(parameter.shape))
        samples = agent._samples(full_batch(6, 3)).take(slice(6))
        samples.next_state = state
        ours, slow = agent.net(state).squeeze(-1), agent.target(state).squeeze(-1)
        expected = slow.gather(1, ours.argmax(1, keepdim=True)) if double else slow.max(1, keepdim=True).values
        torch.testing.assert_close(agent._after(samples), expected)


def full_batch(places, actions):
    """One step of every state and action of a chain: action 1 goes right, 0 left; right of the last one pays 1."""
    place, action = (x.ravel() for x in np.meshgrid(np.arange(places), np.arange(actions), indexing="ij"))
    after = np.clip(place + np.where(action == 1, 1, -1), 0, places - 1)
    ended = (place == places - 1) & (action == 1)
    made = batch_of(
        ended[None].astype(np.float32), ended[None], np.zeros_like(ended[None]), np.stack([place, after]), action[None]
    )
    made.final_index, made.final_state = np.zeros((0, 2), np.int64), {"place": after[:0]}
    return made


@pytest.mark.parametrize("tau", [1.0, 0.25])
def test_the_target_moves_when_due_and_so_far(tau):
    agent = dqn(tau=tau, target_every=16)
    before = [parameter.clone() for parameter in agent.target.parameters()]
    for calls in (1, 2):  # 8 steps each
        agent.explore({}, {"place": np.zeros(8, np.int64)}, np.zeros(8, bool))
        agent.learn(full_batch(6, 2))
        for old, slow, weight in zip(before, agent.target.parameters(), agent.net.parameters(), strict=True):
            torch.testing.assert_close(slow, old if calls == 1 else old + tau * (weight - old))


def test_weights_scale_the_loss_and_errors_are_told_unweighted():
    plain, weighted = dqn(), dqn()
    batches = [full_batch(6, 2) for _ in range(2)]
    batches[1].weight = np.full(12, 1e-9, np.float32)
    before = plain.net.state_dict()["out.0.bias"].clone()
    for agent, batch in zip((plain, weighted), batches, strict=True):
        agent.learn(batch)
    np.testing.assert_allclose(batches[0].error, batches[1].error)
    moved = [(agent.net.state_dict()["out.0.bias"] - before).abs().max().item() for agent in (plain, weighted)]
    assert moved[1] < 0.01 * moved[0]


@pytest.mark.parametrize("kind", ["mean", "c51", "quantile"])
def test_a_chain_is_valued_as_its_closed_form_says(kind):
    """Q* of walking right from place s of 6 is gamma^(5 - s); left is one step further away, or stays."""
    gamma = 0.9
    config = {"atoms": 121 if kind == "c51" else 8, "v_min": -0.1, "v_max": 1.1}
    agent = dqn(distribution=kind, gamma=gamma, target_every=8, adam_eps=1e-8, **config)
    for step in range(2_000):
        agent._config = agent._config.model_copy(update={"lr": 5e-3 * 0.997**step})
        agent._steps += 8 if step % 10 == 0 else 0
        agent.learn(full_batch(6, 2))
    with torch.no_grad():
        values = agent.distribution.mean(agent.net({"place": torch.arange(6)})).numpy()
    right = gamma ** (5.0 - np.arange(6))
    left = gamma * right[np.maximum(np.arange(6) - 1, 0)]
    np.testing.assert_allclose(values, np.stack([left, right], axis=1), atol=1e-3 if kind == "mean" else 2e-2)


def test_the_loop_learns_from_every_batch_that_is_due_and_tells_the_replay_its_errors():
    settings = ("run.steps=600", "run.cycle_steps=600", "replay.warmup=200", "replay.every=2", "evaluation.episodes=1")
    assembly = assemble(compose(ROOT / "configs/gym/cartpole-rainbow.yaml", settings))
    learn, errors = assembly.policy.learn, []

    def watched(batch):
        metrics = learn(batch)
        errors.append(batch.error.copy())
        return metrics

    assembly.policy.learn = watched
    Loop(assembly, Run(None, {}, {})).train()
    assert len(errors) == (600 - 200 + 4) // 2, "4 rows a step, a batch every 2 steps"
    eps = np.float32(1e-6)
    told = np.sqrt(errors[-1] + eps)
    assert np.isin(told, assembly.replay._tree.values).all(), "the last batch's errors are the priorities of its steps"


# --- acting -----------------------------------------------------------------------------------------------------------


def test_epsilon_falls_from_its_start_to_its_end():
    agent, chances = dqn(epsilon_start=1.0, epsilon_end=0.1, epsilon_steps=800), []
    for _ in range(200):
        chances.append(agent._epsilon())
        agent.explore({}, {"place": np.zeros(8, np.int64)}, np.zeros(8, bool))
    assert chances[0] == 1.0
    assert chances[50] == pytest.approx(0.55)
    assert chances[100:] == [pytest.approx(0.1)] * 100


def test_noise_explores_and_evaluation_is_without():
    agent = dqn(noisy=0.5, epsilon_act=0.0, actions=5)
    state, first = {"place": np.arange(8) % 6}, np.zeros(8, bool)
    explored = {tuple(agent.explore({}, state, first).action) for _ in range(30)}
    acted = {tuple(agent.act({}, state, first).action) for _ in range(30)}
    assert agent._epsilon() == 0.0
    assert len(explored) > 3
    assert len(acted) == 1


def test_what_is_learnt_in_bf16_is_close_to_what_is_learnt_in_fp32():
    rng, agents = np.random.default_rng(0), [dqn(PIXELS, 4, precision=p, hidden=(64,)) for p in ("fp32", "bf16")]
    place = rng.integers(0, 255, (2, 32, 4, 84, 84), np.uint8)
    flags = rng.random((1, 32)) < 0.1
    batch = batch_of(rng.random((1, 32), np.float32), flags, np.zeros_like(flags), np.zeros((2, 32), int))
    batch.state, batch.next_state = {"pixels": place[0][None]}, {"pixels": place[1]}
    batch.final_index, batch.final_state = np.zeros((0, 2), np.int64), {"pixels": place[0, :0]}
    losses = [[agent.learn(batch)["loss"] for _ in range(20)] for agent in agents]
    assert losses[0][-1] < 0.5 * losses[0][0]
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.25, atol=0.01)


@pytest.mark.parametrize(
    ("config", "told"), [({"v_min": 5.0, "v_max": 5.0}, "v_min 5 must be below"), ({"tau": 0}, "greater than 0")]
)
def test_settings_that_cannot_work_are_refused(config, told):
    with pytest.raises(ValidationError, match=told):
        DQN.Config(**config)


def test_actions_that_are_not_a_choice_are_refused():
    with pytest.raises(ValueError, match="`ppo` can"):
        DQN(DQN.Config(), Setup(NUMBERS, spaces.Box(-1, 1, (2,)), batch=1, seed=0))
