"""Replays hand over what happened, step for step, however often their room was filled anew."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from gymnasium import spaces

from agentctl.core.protocols import Setup
from agentctl.core.types import Decision, Final, Transition
from agentctl.plugins.replay.prioritized import Prioritized
from agentctl.plugins.replay.sum_tree import SumTree
from agentctl.plugins.replay.uniform import Uniform

ROWS, DEPTH, NEVER = 3, 4, 10**9
SPACE = spaces.Dict({"pixels": spaces.Box(0, 255, (DEPTH, 6, 5), np.uint8), "hud/life": spaces.Box(0, 1, (2,))})
SETUP = Setup(SPACE, spaces.Discrete(5), ROWS, save_every=60)


def play(count, seed=0, episode=12):
    """Games of three rows with stacked pictures, which end, are cut, or lose a life that ends nothing."""
    rng = np.random.default_rng(seed)
    picture = lambda: rng.integers(0, 255, (6, 5), np.uint8)  # noqa: E731
    fresh = lambda: np.stack([np.zeros((6, 5), np.uint8)] * (DEPTH - 1) + [picture()])  # noqa: E731
    state = {"pixels": np.stack([fresh() for _ in range(ROWS)]), "hud/life": rng.random((ROWS, 2), np.float32)}
    first, carry = np.ones(ROWS, bool), {"h": np.zeros((ROWS, 2), np.float32)}
    for t in range(count):
        over, lost = rng.random(ROWS) < 1 / episode, rng.random(ROWS) < 0.1
        cut = over & (rng.random(ROWS) < 0.5)
        moved = np.concatenate([state["pixels"][:, 1:], np.stack([picture() for _ in range(ROWS)])[:, None]], axis=1)
        after = {"pixels": moved.copy(), "hud/life": rng.random((ROWS, 2), np.float32)}
        rows = np.flatnonzero(over)
        final = Final(rows, {key: array[rows].copy() for key, array in after.items()}) if len(rows) else None
        for row in rows:
            after["pixels"][row] = fresh()
        decision = Decision(
            rng.integers(0, 5, ROWS), {"h": rng.random((ROWS, 2), np.float32)}, {"value": rng.random(ROWS)}
        )
        reward = (t * ROWS + np.arange(ROWS)).astype(np.float32)  # says which step it is
        ended = (over & ~cut) | lost
        yield Transition(state, first, carry, decision, reward, ended, cut, over, after, final, total=reward)
        state, first, carry = after, over, decision.carry


def uniform(setup=SETUP, **config):
    return Uniform(Uniform.Config(**{"capacity": 90, "warmup": 30, "every": 3, "batch_size": 16, **config}), setup)


def prioritized(setup=SETUP, **config):
    config = {"capacity": 90, "warmup": 30, "every": 3, "batch_size": 16, **config}
    return Prioritized(Prioritized.Config(**config), setup)


@pytest.mark.parametrize("where", ["memory", "files", "compressed"])
@pytest.mark.parametrize("make", [uniform, prioritized])
@pytest.mark.parametrize("length", [1, 3])
def test_every_sample_is_what_happened(make, length, where, tmp_path):
    setup = replace(SETUP, folder=tmp_path) if where == "files" else SETUP
    replay, steps = make(setup, length=length, compress=where == "compressed"), []
    for step in play(200):
        steps.append(step)
        replay.add(step)
        while replay.ready():
            check(replay.sample(), steps, length)
    assert len(steps) == 200


def check(batch, steps, length, oldest=0):
    assert batch.reward.shape == (length, 16)
    after = batch.successors()
    for t, b in np.ndindex(batch.reward.shape):
        number = int(batch.reward[t, b])
        step, row = steps[number // ROWS], number % ROWS
        assert number == batch.reward[0, b] + t * ROWS, "steps of a sample follow each other"
        assert number >= max(oldest, len(steps) * ROWS - 90), "what is older than the capacity is gone"
        for key in SPACE:
            np.testing.assert_array_equal(batch.state[key][t, b], step.state[key][row])
            np.testing.assert_array_equal(after[key][t, b], stopped_in(step, row, key))
        assert (batch.ended[t, b], batch.cut[t, b], batch.first[t, b]) == (
            step.ended[row],
            step.cut[row],
            step.first[row],
        )
        assert batch.action[t, b] == step.decision.action[row]
        assert batch.extras["value"][t, b] == step.decision.extras["value"][row]
        if t == 0:
            np.testing.assert_array_equal(batch.carry["h"][b], step.carry["h"][row])


def stopped_in(step, row, key):
    if step.final is not None and row in step.final.rows:
        return step.final.arrays[key][list(step.final.rows).index(row)]
    return step.next_state[key][row]


def test_batches_come_once_every_so_many_steps_after_the_warm_up():
    replay, batches = uniform(warmup=31, every=4), []
    for step in play(40):
        replay.add(step)
        count = 0
        while replay.ready():
            replay.sample()
            count += 1
        batches.append(count)
    assert sum(batches[:10]) == 0, "30 steps of 31"
    assert sum(batches[10:]) == (30 * ROWS) // 4
    with pytest.raises(RuntimeError, match="only when ready"):
        replay.sample()


def test_uniform_draws_all_steps_equally_often():
    replay = uniform(every=1, batch_size=64, length=2)
    for step in play(60, episode=NEVER):
        replay.add(step)
    drawn = np.concatenate([replay.sample().reward[0] for _ in range(120)]).astype(int)
    held = np.arange(180 - 90, 180 - ROWS)  # those with a step after them
    counts = np.bincount(drawn - held[0], minlength=len(held))
    assert len(counts) == len(held)
    assert chi_square(counts, np.full(len(held), 1 / len(held))) < 5


def test_prioritized_draws_by_error_and_weighs_it_back():
    replay = prioritized(every=1, warmup=1, batch_size=256, alpha=0.7, beta=0.5, beta_steps=10**9)
    for step in play(40, episode=NEVER):
        replay.add(step)
    held = np.arange(30, 120)
    errors = np.random.default_rng(1).gamma(1.0, size=len(held)).astype(np.float32)
    batch = replay.sample()
    batch.number, batch.error = held, errors
    replay.reprioritise(batch)
    chance = (errors + 1e-6) ** 0.7 / ((errors + 1e-6) ** 0.7).sum()
    counts = np.zeros(len(held))
    while replay.ready():
        batch = replay.sample()
        numbers = batch.reward[0].astype(int)
        np.testing.assert_array_equal(numbers, batch.number)
        weights = (len(held) * chance[numbers - 30]) ** -0.5
        np.testing.assert_allclose(batch.weight, weights / weights.max(), rtol=1e-4)
        counts += np.bincount(numbers - 30, minlength=len(held))
    assert chi_square(counts, chance) < 5


def test_a_new_step_has_the_highest_priority_that_ever_was():
    replay = prioritized(every=1, batch_size=8)
    for index, step in enumerate(play(40)):
        replay.add(step)
        if index == 20:
            batch = replay.sample()
            batch.error = np.full(8, 9.0, np.float32)
            replay.reprioritise(batch)
    values = replay._tree.values
    assert values.max() == pytest.approx(3.0, rel=1e-5)
    assert (values[np.arange(117, 120) % 90] == values.max()).all()


def test_the_tree_finds_what_a_search_among_running_sums_finds():
    rng = np.random.default_rng(0)
    for slots in (1, 15, 16, 17, 300, 5000):
        tree, values = SumTree(slots), np.zeros(slots)
        for _ in range(5):
            changed = rng.integers(0, slots, 40)
            new = rng.integers(0, 50, 40).astype(float)  # sums of whole numbers are exact
            tree.set(changed, new)
            for slot, value in zip(changed, new, strict=True):
                values[slot] = value
            if values.sum() == 0:
                continue
            chances = rng.random(200)
            points = (np.arange(200) + chances) * (values.sum() / 200)
            assert tree.total == values.sum()
            np.testing.assert_array_equal(tree.draw(chances), np.searchsorted(np.cumsum(values), points, side="right"))


@pytest.mark.parametrize("where", ["memory", "files", "compressed"])
@pytest.mark.parametrize("make", [uniform, prioritized])
def test_what_was_saved_goes_on_as_if_nothing_had_happened(make, where, tmp_path):
    """Also where steps came after the save that a kill then made undone."""
    setup = replace(SETUP, folder=tmp_path) if where == "files" else SETUP
    replay, steps = make(setup, compress=where == "compressed", length=2), list(play(150))
    for step in steps[:80]:
        replay.add(step)
        drain(replay)
    saved = replay.save()
    for step in steps[80:100]:  # 60 steps, as many as fit between two checkpoints
        replay.add(step)
    again = make(setup, compress=where == "compressed", length=2)
    again.load(saved)
    other = make(SETUP, compress=where == "compressed", length=2)
    for step in steps[:80]:
        other.add(step)
        drain(other)
    for step in steps[80:150]:
        again.add(step)
        other.add(step)
        assert drain(again) == drain(other)


def drain(replay):
    drawn = []
    while replay.ready():
        batch = replay.sample()
        if batch.number is not None:
            batch.error = batch.reward[0] % 7
            replay.reprioritise(batch)
        drawn.append((batch.reward.tolist(), batch.state["pixels"].sum(), batch.successors()["hud/life"].sum()))
    return drawn


@pytest.mark.parametrize("make", [uniform, prioritized])
def test_going_back_further_than_files_reach_loses_only_what_was_overwritten(make, tmp_path, caplog):
    setup, steps = replace(SETUP, folder=tmp_path), list(play(150, episode=NEVER))
    replay = make(setup, warmup=1, every=1)
    for step in steps[:60]:
        replay.add(step)
    saved = replay.save()  # holds the steps 90 to 180
    for step in steps[60 : 60 + 42 + 20]:  # 60 more than the 126 of which two checkpoints may be apart
        replay.add(step)
    again = make(setup, warmup=1, every=1)
    again.load(saved)
    assert "60 old steps were overwritten" in caplog.text
    drawn = np.concatenate([again.sample().reward[0] for _ in range(11)])
    assert drawn.min() >= 150
    assert drawn.max() < 180
    for end in range(61, 150):
        again.add(steps[end - 1])
        check(again.sample(), steps[:end], 1, oldest=150)


@pytest.mark.parametrize("where", ["memory", "files"])
def test_one_that_was_emptied_begins_anew_and_harms_no_earlier_checkpoint(where, tmp_path):
    setup, steps = replace(SETUP, folder=tmp_path) if where == "files" else SETUP, list(play(60))
    replay = prioritized(setup, warmup=1, every=1)
    empty = replay.save()
    for step in steps[:30]:
        replay.add(step)
    saved = replay.save()
    replay.load(empty)
    for step in steps[30:40]:
        replay.add(step)
    drawn = np.concatenate([replay.sample().reward[0] for _ in range(9)])
    assert drawn.min() >= 90
    assert drawn.max() < 120
    again = prioritized(setup, warmup=1, every=1)
    again.load(saved)
    check(again.sample(), steps[:30], 1)


def test_files_that_are_gone_or_of_another_size_are_refused(tmp_path):
    setup = replace(SETUP, folder=tmp_path)
    replay = uniform(setup)
    for step in play(40):
        replay.add(step)
    saved = replay.save()
    with pytest.raises(ValueError, match="gone"):
        uniform(replace(SETUP, folder=tmp_path / "elsewhere")).load(saved)
    with pytest.raises(ValueError, match="set the replay's capacity"):
        uniform(setup, capacity=120).load(saved)
    with pytest.raises(ValueError, match="resume it there"):
        uniform(capacity=90 + 126).load(saved)


def test_a_checkpoint_does_not_copy_what_lies_in_files(tmp_path):
    replay = uniform(replace(SETUP, folder=tmp_path))
    for step in play(50):
        replay.add(step)
    assert sum(array.nbytes for array in replay.save().arrays.values()) < 100
    assert (tmp_path / "replay" / "steps" / "reward.bin").exists()


def test_each_picture_is_kept_once_however_it_is_stacked():
    replay = uniform(length=3)
    for step in play(30, episode=NEVER):
        replay.add(step)
    saved = replay.save()
    assert saved.arrays["frames.pixels:frame"].shape == (ROWS * (30 + 2), 30), (
        "a black one and the first, then one a step"
    )


def test_a_restarted_game_and_very_short_episodes_lose_nothing_but_age():
    replay, steps = uniform(length=2), []
    for seed in range(6):  # each time other games, as after a checkpoint of games that cannot save
        for step in play(10, seed, episode=1.5):
            shift = np.float32(len(steps) * ROWS) - step.reward[0]
            step.reward = step.total = step.reward + shift
            step.cut = step.cut | (len(steps) % 10 == 9)
            steps.append(step)
            replay.add(step)
            while replay.ready():
                batch = replay.sample()
                for b, number in enumerate(batch.reward[0].astype(int)):
                    told = steps[number // ROWS].state["pixels"][number % ROWS]
                    np.testing.assert_array_equal(batch.state["pixels"][0, b], told)


def chi_square(counts, chance):
    """By how many standard deviations counts differ more than draws by ``chance`` do; stratified ones differ less."""
    expected = counts.sum() * chance
    statistic, freedom = ((counts - expected) ** 2 / expected).sum(), len(counts) - 1
    return (statistic - freedom) / np.sqrt(2 * freedom)
