"""`imagined_actor_critic` learns what its equations say, from imagined steps alone, and finds what is best there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import lamplit
import numpy as np
import pytest
import torch
from lamplit import CELLS, LEFT, RIGHT, TO_LEFT, TO_RIGHT, beginnings, played
from running import composed, differing, latest, loop_of
from token_worlds import revived

from agentctl.agents.imagined_actor_critic import ImaginedActorCritic, before_ends
from agentctl.core.assembly import assemble
from agentctl.core.contracts.stand_in import StandIn
from agentctl.core.errors import ConfigError
from agentctl.core.protocols import Setup
from agentctl.core.types import Array, Batch
from agentctl.testing import assert_contract

GAMMA, LAMBDA = 0.9, 0.8
SMALL: dict[str, Any] = {
    "width": 0.25, "lstm": 16, "horizon": 6, "warmup": 0, "gamma": GAMMA, "gae_lambda": LAMBDA, "lr": 5e-3,
    "entropy": 0.01, "threads": 1, "precision": "fp32",
}  # fmt: skip


def agent(setup: Setup, **options: Any) -> ImaginedActorCritic:
    """One for which the world model has settled."""
    made = ImaginedActorCritic(ImaginedActorCritic.Config(**{**SMALL, **options}), setup)
    assert not made._ready()
    return made


def spread(policy: ImaginedActorCritic) -> ImaginedActorCritic:
    """With heads so large that choices and values differ from state to state."""
    net: Any = policy._actor.net
    for head in (net.value, net.policy.logits):
        torch.nn.init.normal_(head.weight, std=1.0)
    return policy


# --- what it learns, by hand ------------------------------------------------------------------------------------------


def carried(net: Any, world: Any, batch: Batch) -> dict[str, torch.Tensor]:
    """The LSTM's state after the batch's steps, one by one, on what the world model draws; it begins with nothing."""
    h = c = torch.zeros(batch.reward.shape[1], SMALL["lstm"])
    for t in range(len(batch.reward)):
        seen = world.decode({key: batch.state[key][t] for key in ("place", "lamp")})["picture"]
        features = net.encoder({"picture": torch.tensor(seen)})
        kept = torch.tensor(~batch.first[t] if t else np.zeros(len(seen), bool)).unsqueeze(1)
        h, c = net.lstm.cell(features, (h * kept, c * kept))
    return {"h": h, "c": c}


def lambda_return(reward: Array, ended: Array, value: Array, gamma: float, lam: float) -> float:
    """Of the first of n steps, (n,) each, with the value of each next state: the weighted mean of n-step returns."""
    total, returns = 0.0, []
    for n in range(len(reward)):
        total += gamma**n * reward[n]
        returns.append(total + (0 if ended[n] else gamma ** (n + 1) * value[n]))
        if ended[n]:
            break
    weights = [(1 - lam) * lam**n for n in range(len(returns) - 1)] + [lam ** (len(returns) - 1)]
    return float(np.dot(weights, returns))


@pytest.mark.parametrize("burnt_in", ["without a gradient", "with one"])
def test_an_update_is_that_of_reinforce_with_lambda_returns_and_of_torchs_adam(burnt_in: str) -> None:
    """All by hand but what was imagined. Had burning in a gradient, the weights would come out otherwise."""
    setup = lamplit.setup()
    one, other = (spread(agent(setup, lstm=16)) for _ in range(2))
    other.load(revived(one.save()))
    batch = played(setup.world_model, np.random.default_rng(0))
    net: Any = other._actor.net
    optimiser = torch.optim.Adam(net.parameters(), lr=5e-3)
    imagined = other._imagine(other._burn_in(batch))
    start = carried(net, setup.world_model, batch)
    if burnt_in == "without a gradient":
        start = {key: tensor.detach() for key, tensor in start.items()}
    seen = torch.tensor(np.concatenate([imagined.state["picture"], imagined.next_state["picture"][None]]))
    first = torch.tensor(np.concatenate([imagined.first, np.zeros_like(imagined.first[:1])]))
    opinion = net({"picture": seen}, start, first)
    steps, rows = imagined.reward.shape
    value = opinion.value.reshape(steps + 1, rows)
    known, going = value.detach().numpy(), before_ends(imagined.ended)
    returns = [
        [
            lambda_return(imagined.reward[t:, b], imagined.ended[t:, b], known[t + 1 :, b], GAMMA, LAMBDA)
            for b in range(rows)
        ]
        for t in range(steps)
    ]
    target, counts = torch.tensor(returns), torch.tensor(going)
    logits = opinion.policy._log_probs[0].reshape(steps + 1, rows, 2)[:-1]
    chosen = logits.gather(2, torch.tensor(imagined.action).unsqueeze(2)).squeeze(2)
    entropy = -(logits.exp() * logits).sum(2)
    policy_loss = -(chosen * (target - value[:-1].detach()))[counts].mean()
    total = policy_loss + ((value[:-1] - target) ** 2)[counts].mean() - 0.01 * entropy[counts].mean()
    total.backward()
    torch.nn.utils.clip_grad_norm_(net.parameters(), 10.0)
    optimiser.step()
    assert not going.all() and (going.sum(0) > 1).any()

    metrics = one.learn(batch)
    assert metrics["policy_loss"] == pytest.approx(float(policy_loss.detach()), abs=1e-5)
    assert metrics["imagined_return"] == pytest.approx((imagined.reward * going).sum(0).mean())
    moved = zip(one._actor.net.parameters(), net.parameters(), strict=True)
    alike = all(torch.allclose(ours, theirs, rtol=1e-4, atol=2e-5) for ours, theirs in moved)
    assert alike == (burnt_in == "without a gradient")


def test_what_is_imagined_after_an_end_counts_for_nothing() -> None:
    """A critic that expects 100 everywhere: where it ends, only the reward is left; where it goes on, it is added."""
    setup = lamplit.setup()
    policy = agent(setup)
    torch.nn.init.constant_(policy._actor.net.value.bias, 100.0)
    imagined = policy._imagine(policy._burn_in(played(setup.world_model, np.random.default_rng(0))))
    target = policy._actor.samples(imagined, GAMMA, LAMBDA).target.numpy()
    assert target[imagined.ended] == pytest.approx(imagined.reward[imagined.ended], abs=1e-4)
    least = GAMMA * (1 - LAMBDA) * 100  # even where the next step ends
    assert (target[~imagined.ended & before_ends(imagined.ended)] > least).all()
    assert before_ends(np.array([[0, 1], [1, 0], [0, 0], [1, 0]], bool)).tolist() == [[1, 1], [1, 0], [0, 0], [0, 0]]


# --- what it finds ----------------------------------------------------------------------------------------------------


def test_it_finds_the_best_way_and_what_it_is_worth() -> None:
    """Known in closed form: straight to the end that the lamp tells, where each step costs a factor gamma."""
    setup, rng = lamplit.setup(), np.random.default_rng(0)
    world: Any = setup.world_model
    policy = agent(setup, evaluate="greedy")
    for _ in range(150):
        policy.learn(played(world, rng, steps=2))
    place, lamp = (side.ravel() for side in np.meshgrid(np.arange(CELLS), [TO_LEFT, TO_RIGHT]))
    state = {"place": place, "lamp": lamp, **world.decode({"place": place, "lamp": lamp})}
    first = np.ones(len(place), bool)
    decision = policy.act(policy.initial(len(place)), state, first)
    assert (decision.action == np.where(lamp == TO_RIGHT, RIGHT, LEFT)).all()
    value = policy._actor.explore(policy.initial(len(place)), policy._seen(state), first).extras["value"]
    away = np.where(lamp == TO_RIGHT, CELLS - 1 - place, place)
    assert value == pytest.approx(GAMMA**away, abs=0.15)


@pytest.mark.parametrize(("lstm", "updates"), [(32, 180), (0, 60)])
def test_what_it_was_burnt_in_on_it_knows_while_it_imagines(lstm: int, updates: int) -> None:
    """The lamp burns in an episode's first picture alone. Without memory no policy is right more than half the time."""
    setup = lamplit.setup(lit=False)
    world, policy, rng = setup.world_model, agent(setup, lstm=lstm, entropy=0.03, lr=4e-3), np.random.default_rng(0)
    for _ in range(updates):
        policy.learn(played(world, rng, rows=24, steps=2))
    imagined = policy._imagine(policy._burn_in(played(world, rng, rows=400, steps=2)))
    paid = imagined.reward.max(0)[~imagined.first[0]].mean()  # of those that begin in the dark
    assert paid > 0.9 if lstm else paid < 0.65


# --- what it sees and does --------------------------------------------------------------------------------------------


def test_it_sees_what_the_world_model_draws_and_not_the_picture() -> None:
    setup = lamplit.setup()
    policy, rng = spread(agent(setup, evaluate="greedy")), np.random.default_rng(0)
    state, first, carry = beginnings(setup.world_model, rng, 64), np.ones(64, bool), policy.initial(64)
    noisy = {**state, "picture": rng.integers(0, 256, state["picture"].shape).astype(np.uint8)}
    seen, other = policy.act(carry, state, first), policy.act(carry, noisy, first)
    assert (seen.action == other.action).all() and (seen.carry["h"] == other.carry["h"]).all()
    moved = policy.act(carry, {**state, "place": state["place"][::-1]}, first)
    assert (moved.carry["h"] != seen.carry["h"]).any()


def test_its_memory_is_carried_and_forgotten_where_an_episode_begins() -> None:
    setup = lamplit.setup()
    policy, rng = agent(setup), np.random.default_rng(0)
    states = [beginnings(setup.world_model, rng, 4) for _ in range(2)]
    first = np.array([False, False, True, True])
    before = policy.act(policy.initial(4), states[0], np.ones(4, bool)).carry
    after = policy.act(before, states[1], first).carry["h"]
    fresh = policy.act(policy.initial(4), states[1], np.ones(4, bool)).carry["h"]
    assert ((after == fresh).all(1) == first).all()


def test_it_explores_by_chance_now_and_then_and_evaluates_cooler_than_it_explores() -> None:
    """Probabilities to the power of 1 / temperature, and a uniform action as often as epsilon says."""
    setup, rows = lamplit.setup(), 4_000
    policy = agent(setup, epsilon=0.4, temperature=0.5)
    head: Any = policy._actor.net.policy.logits
    torch.nn.init.zeros_(head.weight)
    head.bias.data = torch.tensor([0.9, 0.1]).log()
    state = {
        key: np.repeat(a, rows, 0) for key, a in beginnings(setup.world_model, np.random.default_rng(0), 1).items()
    }
    acted, explored = (
        (how(policy.initial(rows), state, np.ones(rows, bool)).action == RIGHT).mean()
        for how in (policy.act, policy.explore)
    )
    assert acted == pytest.approx(0.1**2 / (0.1**2 + 0.9**2), abs=0.007)
    assert explored == pytest.approx(0.6 * 0.1 + 0.4 * 0.5, abs=0.03)


def test_it_obeys_a_mask_in_the_game_and_learns_without_one() -> None:
    setup, rng = lamplit.setup(), np.random.default_rng(0)
    policy = agent(setup, epsilon=0.5)
    mask = np.eye(2, dtype=np.int8)[rng.integers(2, size=64)]
    state = {**beginnings(setup.world_model, rng, 64), "action_mask": mask}
    for how in (policy.act, policy.explore):
        assert mask[np.arange(64), how(policy.initial(64), state, np.ones(64, bool)).action].all()
    batch = played(setup.world_model, rng)
    masks = np.eye(2, dtype=np.int8)[batch.action]
    batch.state, batch.next_state = {**batch.state, "action_mask": masks}, {**batch.next_state, "action_mask": masks[0]}
    assert set(policy._imagine(policy._burn_in(batch)).action.ravel()) == {LEFT, RIGHT}
    assert policy.learn(batch)


# --- when it learns ---------------------------------------------------------------------------------------------------


def test_it_waits_until_latents_have_kept_their_meaning_for_so_many_batches() -> None:
    setup = lamplit.setup()
    world: Any = setup.world_model
    policy = ImaginedActorCritic(ImaginedActorCritic.Config.model_validate({**SMALL, "warmup": 2}), setup)
    learnt, batch = [], played(world, np.random.default_rng(0))
    for world.version in (0, 1, 2, 2, 2, 2, 2, 3, 3):
        learnt.append(bool(policy.learn(batch)))
    assert learnt == [False, False, False, False, False, True, True, False, False]


def test_a_policy_that_is_resumed_goes_on_to_the_bit() -> None:
    setup, rng = lamplit.setup(), np.random.default_rng(0)
    batches = [played(setup.world_model, rng) for _ in range(6)]
    one, two = (agent(setup, warmup=1, epsilon=0.3) for _ in range(2))
    for batch in batches[:3]:
        one.learn(batch)
        one.explore(one.initial(16), batch.next_state, np.ones(16, bool))
        one.act(one.initial(16), batch.next_state, np.ones(16, bool))
    two.load(revived(one.save()))
    for batch in batches[3:]:
        assert one.learn(batch) == two.learn(batch)
        for verb in ("act", "explore"):
            done = [getattr(each, verb)(each.initial(16), batch.next_state, np.ones(16, bool)) for each in (one, two)]
            assert (done[0].action == done[1].action).all() and (done[0].carry["c"] == done[1].carry["c"]).all()


BOUNCE: dict[str, Any] = {
    "game": {"name": "toy/bounce", "batch": 4, "cells": 8, "cell_pixels": 2},
    "perception": ["pixels"],
    "policy": {"name": "imagined_actor_critic", "horizon": 3, "lstm": 8, "width": 0.1, "warmup": 2, "threads": 1},
    "replay": {"name": "uniform", "capacity": 1_000, "warmup": 32, "every": 16, "batch_size": 4, "length": 3},
    "run": {"steps": 192, "cycle_steps": 96},
    "evaluation": {"episodes": 2, "max_steps": 10},
}


@pytest.mark.parametrize("name", ["iris", "token_transformer"])
def test_a_run_with_any_world_model_that_draws_is_resumed_to_the_bit(name: str, tmp_path: Any) -> None:
    model = {"name": name, "history": 3, "layers": 1, "dim": 16, "heads": 2, "threads": 1}
    model["tokenizer"] = {"frozen_after": 3, "codes": 16, "dim": 4, "width": 8, "threads": 1}
    data = {**BOUNCE, "world_model": model}
    whole = loop_of(data, tmp_path / "whole")
    whole.train()
    assert {"imagined_return", "world_model/loss"} <= whole.at.metrics.keys()
    again = loop_of(data, tmp_path / "again")
    again.resume(sorted((tmp_path / "whole" / "checkpoints").iterdir())[-2])
    again.train()
    assert differing(latest(tmp_path / "again"), latest(tmp_path / "whole")) == []


# --- contract and refusals --------------------------------------------------------------------------------------------


def test_it_keeps_the_contract_of_a_policy() -> None:
    class Dreaming(ImaginedActorCritic):
        @classmethod
        def example_setup(cls) -> Setup:
            return lamplit.setup()

    assert_contract("policy", Dreaming)


def test_a_run_without_a_world_model_is_refused_with_the_remedy() -> None:
    with pytest.raises(ConfigError, match=r"'imagined_actor_critic' cannot be built.* add e\.g\. world_model: iris"):
        assemble(composed(BOUNCE))


def test_a_world_model_that_draws_nothing_is_refused() -> None:
    setup = replace(lamplit.setup(), world_model=StandIn())
    with pytest.raises(ValueError, match=r"draws nothing from its latent \[\]: use one with a tokenizer of its own"):
        agent(setup)
