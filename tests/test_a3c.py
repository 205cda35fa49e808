"""A3C alone is A2C; many of it lose no update; and a run of it counts, resumes, acts and learns."""

from __future__ import annotations

import json
import signal
from multiprocessing import get_context
from pathlib import Path

import hogwild
import numpy as np
import pytest
import torch
from gymnasium import spaces
from running import ROOT, call, latest, start, wait_for_checkpoint
from test_a2c import GAMMA, SPACE, a2c, rollout

from agentctl.agents.a2c import rmsprop
from agentctl.agents.a3c import A3C
from agentctl.core.checkpoint import read_checkpoint
from agentctl.core.config import compose
from agentctl.core.embed import load
from agentctl.core.plugins import Switches
from agentctl.core.protocols import Setup, SharedPolicy
from agentctl.core.runner import composition_of, evaluate, train
from agentctl.core.shared import Shared

QUIET = Switches(disable=frozenset(["tensorboard", "recorder", "report", "progress"]))
SMALL = {"gamma": GAMMA, "hidden": (8,)}


def a3c(seed=0, **config):
    return A3C(A3C.Config(**SMALL, **config), Setup(SPACE, spaces.Discrete(3), 4, seed))


def crew(count, **config):
    """Workers in this process, which share what the first one holds."""
    owner = a3c(**config)
    shared = Shared(owner.shared_nbytes)
    owner.share(shared)
    workers = [a3c(seed=9, **config) for _ in range(count)]
    for i, worker in enumerate(workers):
        worker.join(shared, i)
    return owner, workers


def weights(agent):
    return [weight.detach().clone() for weight in agent._actor.net.parameters()]


def test_alone_it_moves_as_a2c_does_to_the_bit():
    config = {"anneal_steps": 100, "entropy": 0.02}
    alone, (owner, (worker,)), oracle = a3c(**config), crew(1, **config), a2c(**config)
    for seed in range(4):
        batch = rollout(oracle, seed)
        expected = oracle.learn(batch)
        for agent in (alone, worker):
            found = agent.learn(batch)
            assert {name: found[name] for name in expected} == expected
            assert (found["updates"], found["staleness"]) == (seed + 1, 0)
            for ours, theirs in zip(weights(agent), weights(oracle), strict=True):
                assert torch.equal(ours, theirs)
    saved, theirs = owner.save(), oracle.save()
    for name in [name for name in theirs.arrays if "generator" not in name]:
        np.testing.assert_array_equal(saved.arrays[name], theirs.arrays[name])
    assert isinstance(owner, SharedPolicy)


def test_a_worker_learns_at_its_copy_and_moves_what_all_share():
    owner, (one, other) = crew(2)
    begin = weights(one)
    batch = rollout(other, 1)
    one.learn(rollout(one, 0))
    assert all(torch.equal(*pair) for pair in zip(weights(other), begin, strict=True))  # until its own update
    moved = [theta.clone() for theta in one._theta]
    figures = other.learn(batch)
    assert figures["staleness"] == 1 and figures["updates"] == 2
    assert other.learn(rollout(other, 2))["staleness"] == 0.5  # the mean of 1 and 0
    assert not any(torch.equal(*pair) for pair in zip(other._theta, moved, strict=True))
    assert all(torch.equal(*pair) for pair in zip(weights(other), owner._theta, strict=True))
    assert owner.save().data == {"updates": 3, "steps": 60}


@pytest.mark.parametrize("locking", [True, False], ids=["with the lock", "sabotage: without"])
def test_updates_of_many_processes_are_exactly_those_of_one(locking):
    """Each of them applies the same gradient, so that only their number counts, and not their order."""
    processes, times = 2, 1000
    owner, starter = a3c(), Shared(16)
    oracle = [theta.clone() for theta in owner._theta]
    squares = [torch.zeros_like(theta) for theta in oracle]
    for _ in range(processes * times):
        rmsprop(oracle, [torch.full_like(theta, 0.01) for theta in oracle], squares, 7e-4, owner._config)
    shared = Shared(owner.shared_nbytes)
    owner.share(shared)
    np.frombuffer(starter.buffer)[1] = processes
    arguments = (starter, shared, SMALL, times, locking)
    running = [get_context("spawn").Process(target=hogwild.learn_often, args=arguments) for _ in range(processes)]
    for process in running:
        process.start()
    for process in running:
        process.join(60)
    same = [torch.equal(*pair) for pair in zip([*oracle, *squares], [*owner._theta, *owner._g], strict=True)]
    assert all(same) is locking
    if locking:
        assert owner.save().data == {"updates": processes * times, "steps": 20 * processes * times}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_who_only_acts_sees_what_the_workers_learnt(precision):
    space = spaces.Dict({"pixels": spaces.Box(0, 255, (8, 8), np.uint8)})
    owner, worker = (
        A3C(A3C.Config(width=0.1, precision=precision), Setup(space, spaces.Discrete(3), 4)) for _ in range(2)
    )
    shared = Shared(owner.shared_nbytes)
    owner.share(shared)
    worker.join(shared, 0)
    for seed in range(3):
        batch = rollout(a2c(), seed)
        batch.state = {"pixels": np.full((5, 4, 8, 8), 200, np.uint8)}
        batch.next_state, batch.final_state = {"pixels": batch.state["pixels"][0]}, {"pixels": batch.state["pixels"][0]}
        batch.final_index, batch.ended[:], batch.cut[:] = np.zeros((0, 2), np.int64), False, False
        worker.learn(batch)
    owner.act({}, {"pixels": batch.state["pixels"][0]}, np.zeros(4, bool))
    for ours, theirs in zip(owner._actor.fast.parameters(), worker._actor.fast.parameters(), strict=True):
        assert torch.equal(ours, theirs)


RUN = (
    "configs/gym/cartpole-a3c.yaml", "-s", "game.batch=2", "-s", "run.cycle_steps=600", "-s", "evaluation.episodes=2",
    "-s", "run.keep_checkpoints=99",
)  # fmt: skip


def test_a_run_that_is_killed_goes_on_with_its_weights_and_its_counts(tmp_path: Path):
    run = tmp_path / "run"
    process = start("run", *RUN, "-s", "run.steps=100_000", "--out", run, "--json")
    wait_for_checkpoint(process, run)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    before = read_checkpoint(latest(run))
    step, data = before["loop"].data["step"], before["policy"].data
    assert data["steps"] == 10 * data["updates"] and 0 <= step - data["steps"] < 20
    again = call("run", "--resume", run, "-s", f"run.steps={step + 600}", "--force", "--json")
    assert again.returncode == 0, again.stderr
    after = read_checkpoint(latest(run))
    counted, metrics = after["policy"].data, after["loop"].data["metrics"]
    assert 58 <= counted["updates"] - data["updates"] <= 60
    assert counted["updates"] - 1 <= metrics["updates"] <= counted["updates"] and 0 <= metrics["staleness"] < 5
    squares = before["policy"].arrays["rmsprop/0"]
    assert squares.any() and not np.array_equal(after["policy"].arrays["rmsprop/0"], squares)
    bot = load(run)  # no worker is needed to act
    assert bot.act(np.zeros(4, np.float32)) in (0, 1)
    played = evaluate(composition_of(run, QUIET), latest(run), None, quiet=True)
    assert played.summary["return_mean"] == json.loads(again.stdout.splitlines()[-1])["return_mean"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_balances_the_pole(seed: int, tmp_path: Path):
    train(compose(ROOT / RUN[0], [f"run.seed={seed}"], (), QUIET), tmp_path / "run", quiet=True)
    assert (
        evaluate(composition_of(tmp_path / "run", QUIET), latest(tmp_path / "run"), None).summary["return_mean"] >= 475
    )
