"""A2C moves as its equations say, and as torch's own optimiser does; then it solves what can be solved in seconds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces

from agentctl.agents.a2c import A2C
from agentctl.core.protocols import Setup
from agentctl.core.types import Batch

SPACE = spaces.Dict({"place": spaces.Box(-1, 1, (3,))})
STEPS, ROWS, GAMMA = 5, 4, 0.9


def a2c(threads=1, **config):
    return A2C(A2C.Config(threads=threads, gamma=GAMMA, hidden=(8,), **config), Setup(SPACE, spaces.Discrete(3), ROWS))


def rollout(agent, seed=0):
    """What the agent did in a world without rules, in which episodes end and are cut."""
    rng = np.random.default_rng(seed)
    place = rng.uniform(-1, 1, (STEPS + 1, ROWS, 3)).astype(np.float32)
    decisions = [agent.explore({}, {"place": place[t]}, np.zeros(ROWS, bool)) for t in range(STEPS)]
    ended, cut = rng.random((STEPS, ROWS)) < 0.2, rng.random((STEPS, ROWS)) < 0.2
    index = np.argwhere(ended | cut)
    extras = {key: np.stack([decision.extras[key] for decision in decisions]) for key in decisions[0].extras}
    return Batch(
        state={"place": place[:-1]}, first=np.zeros((STEPS, ROWS), bool),
        action=np.stack([d.action for d in decisions]), reward=rng.random((STEPS, ROWS), np.float32),
        ended=ended, cut=cut & ~ended, extras=extras,
        carry={}, next_state={"place": place[-1]}, final_index=index,
        final_state={"place": rng.uniform(-1, 1, (len(index), 3)).astype(np.float32)},
    )  # fmt: skip


def returns_by_hand(batch, value):
    """Discounted rewards up to where each row stops, then the value of the state it stopped in, unless it ended."""
    finals = {tuple(at): state for at, state in zip(batch.final_index, batch.final_state["place"], strict=True)}
    found = np.zeros((STEPS, ROWS))
    for t, b in np.ndindex(STEPS, ROWS):
        weight = 1.0
        for k in range(t, STEPS):
            found[t, b] += weight * batch.reward[k, b]
            weight *= GAMMA
            if batch.ended[k, b]:
                break
            if batch.cut[k, b] or k == STEPS - 1:
                after = finals.get((k, b), batch.next_state["place"][b])
                found[t, b] += weight * value(after)
                break
    return torch.tensor(found, dtype=torch.float32)


@pytest.mark.parametrize("threads", [1, 2])
def test_two_updates_are_those_of_the_equations_and_of_torchs_rmsprop(threads):
    agent, oracle = a2c(threads), a2c()
    net = oracle._actor.net
    optimiser = torch.optim.RMSprop(net.parameters(), lr=7e-4, alpha=0.99, eps=1e-5)

    def opinion(place):
        place = torch.as_tensor(place).reshape(1, -1, 3)
        return net({"place": place}, {}, torch.zeros(place.shape[:2], dtype=torch.bool))

    for seed in (1, 2):
        batch = rollout(agent, seed)
        with torch.no_grad():
            target = returns_by_hand(batch, lambda place: opinion(place).value.item())
        new = opinion(batch.state["place"])
        choice, target = torch.tensor(batch.extras["choice"]).reshape(-1, 1), target.flatten()
        advantage = target - torch.tensor(batch.extras["value"]).flatten()
        loss = -(new.policy.log_prob(choice) * advantage).mean() + 0.25 * ((new.value - target) ** 2).mean()
        optimiser.zero_grad()
        (loss - 0.01 * new.policy.entropy().mean()).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 0.5)
        optimiser.step()
        agent.learn(batch)
        for ours, theirs in zip(agent._actor.net.parameters(), net.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_it_finds_the_paying_arm():
    agent = A2C(A2C.Config(hidden=(8,), lr=7e-3, evaluate="greedy"), Setup(SPACE, spaces.Discrete(3), ROWS))
    for seed in range(60):
        batch = rollout(agent, seed)
        batch.reward = (batch.action == 1).astype(np.float32)
        batch.ended[:], batch.cut[:] = True, False
        agent.learn(batch)
    state = {"place": np.random.default_rng(0).uniform(-1, 1, (ROWS, 3)).astype(np.float32)}
    assert (agent.act({}, state, np.zeros(ROWS, bool)).action == 1).all()


def test_its_rate_falls_to_nothing():
    agent = a2c(anneal_steps=4 * STEPS * ROWS)
    rates = [agent.learn(rollout(agent))["learning_rate"] for _ in range(6)]
    np.testing.assert_allclose(rates, 7e-4 * np.array([1, 0.75, 0.5, 0.25, 0, 0]), atol=1e-12)
