"""The replay of tokens hands over what happened and what was carried, and nothing that another tokenizer named.

What happened is a plain list: of every step, each row's frames as a frame stack of the episode would show them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
from gymnasium import spaces

from agentctl.core.guard import Guard
from agentctl.core.protocols import Setup
from agentctl.core.types import Decision, Final, Transition
from agentctl.plugins.replay.tokens import Tokens

ROWS, GRID, CODES, CAPACITY = 3, (3, 2), 512, 90
TOKENS = spaces.MultiDiscrete(np.full(GRID, CODES), dtype=np.uint16)
SPACE = spaces.Dict(
    {"tokens": TOKENS, "action_mask": spaces.MultiBinary(4), "pixels": spaces.Box(0, 255, (8, 8), np.uint8)}
)
SETUP = Setup(SPACE, spaces.Discrete(4), ROWS, save_every=60)


@dataclass
class Episode:
    """One row's frames since its episode began."""

    frames: list

    def before(self, count):
        """The last frames before the next one, (count, ...); before the first one stands the first one."""
        padded = [self.frames[0]] * count + self.frames
        return np.stack(padded[len(padded) - count :]) if count else np.zeros((0, *GRID), np.uint16)


def play(count, seed=0, episode=12, history=4, draw=None):
    """Steps of three rows whose episodes end, are cut or lose a life, with the frames that a policy carries."""
    rng = np.random.default_rng(seed)
    draw = draw or (lambda: rng.integers(0, CODES, (ROWS, *GRID), np.uint16))
    mask = lambda: rng.integers(0, 2, (ROWS, 4)).astype(np.int8)  # noqa: E731
    state, first = {"tokens": draw(), "action_mask": mask()}, np.ones(ROWS, bool)
    rows = [Episode([]) for _ in range(ROWS)]
    carry = np.zeros((ROWS, history - 1, *GRID), np.uint16)
    for t in range(count):
        for row, frame in enumerate(state["tokens"]):
            rows[row] = Episode([frame]) if first[row] else Episode([*rows[row].frames, frame])
        stops = rng.random(ROWS) < 1 / episode
        cut, lost = stops & (rng.random(ROWS) < 0.5), ~stops & (rng.random(ROWS) < 1 / episode)
        after = {"tokens": draw(), "action_mask": mask()}
        stopped = np.flatnonzero(stops)
        final = None
        if len(stopped):
            final = Final(stopped, {key: array[stopped].copy() for key, array in after.items()})
            begun = {"tokens": draw(), "action_mask": mask()}
            after = {key: np.where(stops.reshape(-1, *[1] * (a.ndim - 1)), begun[key], a) for key, a in after.items()}
        carries = {"tokens": carry, "mood": rng.random((ROWS, 2), np.float32)}
        reward = (t * ROWS + np.arange(ROWS)).astype(np.float32)  # says which step it is
        decision = Decision(rng.integers(0, 4, ROWS), {}, {"value": rng.random(ROWS)})
        shown = {**state, "pixels": np.zeros((ROWS, 8, 8), np.uint8)}
        following = {**after, "pixels": np.zeros((ROWS, 8, 8), np.uint8)}
        if final is not None:
            final.arrays = {**final.arrays, "pixels": np.zeros((len(stopped), 8, 8), np.uint8)}
        ended = (stops & ~cut) | lost
        yield Transition(shown, first, carries, decision, reward, ended, cut, stops, following, final, total=reward)
        carry = np.stack([row.before(history - 1) for row in rows])
        state, first = after, ended | cut


def tokens(setup=SETUP, **config):
    config = {"capacity": CAPACITY, "warmup": 30, "every": 3, "batch_size": 16, **config}
    return Tokens(Tokens.Config(**config), setup)


def histories(steps, count):
    """The last frames that a stack shows before each step, by step and row: the oracle."""
    found, rows = [], [Episode([]) for _ in range(ROWS)]
    for step in steps:
        for row, frame in enumerate(step.state["tokens"]):
            rows[row] = Episode([frame]) if step.first[row] else Episode([*rows[row].frames, frame])
        found.append(np.stack([row.before(count) for row in rows]))
    return found


def check(batch, steps, stacks, length, oldest=0):
    assert batch.reward.shape == (length, 16)
    assert batch.state.keys() == {"tokens", "action_mask"}, "pictures are not kept"
    assert batch.state["tokens"].dtype == np.uint16
    after = batch.successors()
    for t, b in np.ndindex(batch.reward.shape):
        number = int(batch.reward[t, b])
        step, row = steps[number // ROWS], number % ROWS
        assert number == batch.reward[0, b] + t * ROWS, "steps of a sample follow each other"
        assert number >= max(oldest, len(steps) * ROWS - CAPACITY), "what is older than the capacity is gone"
        for key in batch.state:
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
            np.testing.assert_array_equal(batch.carry["mood"][b], step.carry["mood"][row])
            seen = np.concatenate([batch.carry["tokens"][b], batch.state["tokens"][0, b][None]])
            np.testing.assert_array_equal(seen, stacks[number // ROWS][row])
            if not step.first[row]:
                np.testing.assert_array_equal(batch.carry["tokens"][b], step.carry["tokens"][row])


def stopped_in(step, row, key):
    if step.final is not None and row in step.final.rows:
        return step.final.arrays[key][list(step.final.rows).index(row)]
    return step.next_state[key][row]


@pytest.mark.parametrize("where", ["memory", "files"])
@pytest.mark.parametrize("priority", [False, True])
@pytest.mark.parametrize(("length", "history"), [(1, 4), (3, 4), (2, 1), (1, 9)])
def test_every_sample_is_what_happened_and_was_carried(priority, length, history, where, tmp_path):
    setup = replace(SETUP, folder=tmp_path) if where == "files" else SETUP
    replay = tokens(setup, length=length, history=history, priority=priority, every=9)
    steps, batches = list(play(150, history=history)), 0
    stacks = histories(steps, history)
    for count, step in enumerate(steps, 1):
        replay.add(step)
        while replay.ready():
            batch = replay.sample()
            check(batch, steps[:count], stacks, length)
            batch.error = batch.reward[0] % 7
            replay.reprioritise(batch)
            batches += 1
    assert batches > 40
    assert replay.stale == 0


def test_games_that_begin_anew_between_two_checkpoints_mix_no_frames():
    replay, steps = tokens(), []
    for seed in range(6):
        for step in play(10, seed, episode=4):
            shift = np.float32(len(steps) * ROWS) - step.reward[0]
            step.reward = step.total = step.reward + shift
            if len(steps) % 10 == 9:
                step.cut = ~step.ended
                last = {key: array.copy() for key, array in step.next_state.items()}
                for key, array in step.final.arrays.items() if step.final else ():
                    last[key][step.final.rows] = array
                step.final = Final(np.arange(ROWS), last)
            steps.append(step)
            replay.add(step)
            stacks = histories(steps, 4)
            while replay.ready():
                check(replay.sample(), steps, stacks, 1)
    assert len(steps) == 60


def test_batches_come_once_every_so_many_steps_after_the_warm_up():
    replay, batches = tokens(warmup=31, every=4), []
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


def test_priorities_draw_by_error_and_their_absence_draws_all_alike():
    for priority in (True, False):
        replay = tokens(priority=priority, warmup=1, every=1, batch_size=16, alpha=1.0)
        for step in play(60, episode=10**9):
            replay.add(step)
        for _ in range(20):  # all are drawn at least once by then, and told: only some are wrong
            batch = replay.sample()
            batch.error = (batch.reward[0] % 5 == 0).astype(np.float32)
            replay.reprioritise(batch)
        drawn = np.concatenate([replay.sample().reward[0] for _ in range(60)])
        share = (drawn % 5 == 0).mean()
        assert share > 0.9 if priority else 0.1 < share < 0.3


# --- what another tokenizer named -------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["memory", "files"])
@pytest.mark.parametrize("priority", [False, True])
def test_a_batch_never_holds_what_another_tokenizer_named(priority, where, tmp_path, caplog):
    """Tokens say which version named them; it changes at random, between two steps or between two batches."""
    model, rng = SimpleNamespace(version=0), np.random.default_rng(1)
    setup = replace(SETUP, world_model=model, folder=tmp_path if where == "files" else None)
    replay, versions, clean = tokens(setup, priority=priority, length=2, every=1), set(), 0

    def look(batch):
        kept = [batch.state["tokens"], batch.next_state["tokens"], batch.final_state["tokens"], batch.carry["tokens"]]
        assert all((array == model.version).all() for array in kept)
        return batch.state["tokens"].shape[1]

    for step in play(350, draw=lambda: np.full((ROWS, *GRID), model.version, np.uint16)):
        replay.add(step)
        while replay.ready():
            clean += look(replay.sample())
            versions.add(model.version)
            if rng.random() < 0.01:
                model.version += 1  # learnt from this batch
                assert not replay.ready()
                with pytest.raises(RuntimeError, match="the tokenizer changed"):
                    replay.sample()
        if rng.random() < 0.02:
            model.version += 1  # between two steps
        if rng.random() < 0.1:
            saved = replay.save()
            replay = tokens(setup, priority=priority, length=2, every=1)
            replay.load(saved)
    assert len(versions) > 5
    assert clean > 500
    assert "steps are stale and forgotten" in caplog.text
    told = sum(int(record.args[2]) for record in caplog.records if "stale" in record.getMessage())
    assert replay.stale == told > 100


def test_after_a_change_it_warms_up_again():
    model = SimpleNamespace(version=0)
    replay, ready = tokens(replace(SETUP, world_model=model), warmup=30, every=1), []
    for index, step in enumerate(play(60)):
        model.version = int(index >= 30)
        replay.add(step)
        ready.append(replay.ready())
        while replay.ready():
            replay.sample()
    assert ready == [index >= 9 and not 30 <= index < 40 for index in range(60)], "10 steps of 3 rows, twice"


def test_a_tokenizer_with_a_fallback_is_refused():
    guard = Guard.__new__(Guard)
    with pytest.raises(ValueError, match="remove `fallback`"):
        tokens(replace(SETUP, world_model=guard))


# --- room, and what stays ---------------------------------------------------------------------------------------------


def test_a_million_steps_of_336_tokens_are_three_quarters_of_a_gigabyte(tmp_path):
    grid = spaces.MultiDiscrete(np.full((21, 16), 512), dtype=np.uint16)
    setup = Setup(spaces.Dict({"tokens": grid}), spaces.Discrete(9), batch=8, folder=tmp_path)
    replay = Tokens(Tokens.Config(), setup)
    assert 0.67e9 < replay.nbytes < 0.77e9
    frame = {"tokens": np.zeros((8, 21, 16), np.uint16)}
    flags, zeros = np.zeros(8, bool), np.zeros(8, np.float32)
    carry = {"tokens": np.zeros((8, 3, 21, 16), np.uint16)}
    decision = Decision(np.zeros(8, int))
    replay.add(Transition(frame, flags, carry, decision, zeros, flags, flags, flags, frame, None, total=zeros))
    files = sum(path.stat().st_size for path in tmp_path.rglob("*.bin"))
    assert 0.67e9 < files < replay.nbytes, "what it will take on disk is what it says"


@pytest.mark.parametrize("where", ["memory", "files"])
@pytest.mark.parametrize("priority", [False, True])
def test_what_was_saved_goes_on_as_if_nothing_had_happened(priority, where, tmp_path):
    """Also where steps came after the save that a kill then made undone."""
    setup = replace(SETUP, folder=tmp_path) if where == "files" else SETUP
    replay, other = tokens(setup, priority=priority, length=2), tokens(SETUP, priority=priority, length=2)
    steps = list(play(150))
    for step in steps[:80]:
        replay.add(step)
        other.add(step)
        assert drain(replay) == drain(other)
    saved = replay.save()
    for step in steps[80:100]:  # 60 steps, as many as fit between two checkpoints
        replay.add(step)
        drain(replay)
    again = tokens(setup, priority=priority, length=2)
    again.load(saved)
    for step in steps[80:150]:
        again.add(step)
        other.add(step)
        assert drain(again) == drain(other)


def drain(replay):
    drawn = []
    while replay.ready():
        batch = replay.sample()
        batch.error = batch.reward[0] % 7
        replay.reprioritise(batch)
        drawn.append((batch.reward.tolist(), batch.carry["tokens"].tolist(), batch.successors()["tokens"].tolist()))
    return drawn


def test_files_that_are_gone_are_refused(tmp_path):
    replay = tokens(replace(SETUP, folder=tmp_path))
    for step in play(40):
        replay.add(step)
    with pytest.raises(ValueError, match="gone"):
        tokens(replace(SETUP, folder=tmp_path / "elsewhere")).load(replay.save())


def test_tokens_are_stored_in_as_few_bytes_as_they_need_and_come_out_as_they_were():
    wide = spaces.Dict({"tokens": spaces.MultiDiscrete(np.full(GRID, 200), start=np.full(GRID, 5))})
    replay = tokens(replace(SETUP, space=wide), warmup=1, every=1, history=1)
    frame = np.random.default_rng(0).integers(5, 205, (ROWS, *GRID))
    flags = np.zeros(ROWS, bool)
    for _ in range(3):
        step = Transition(
            {"tokens": frame}, flags, {}, Decision(np.zeros(ROWS, int)), np.zeros(ROWS, np.float32), flags, flags,
            flags, {"tokens": frame}, None, total=np.arange(ROWS, dtype=np.float32),
        )  # fmt: skip
        replay.add(step)
    batch = replay.sample()
    assert replay.save().arrays["states:tokens"].dtype == np.uint8
    assert batch.state["tokens"].dtype == frame.dtype
    assert batch.carry == {}
    np.testing.assert_array_equal(batch.state["tokens"][0], frame[batch.reward[0].astype(int)])


def test_what_cannot_work_is_refused_with_the_remedy():
    with pytest.raises(ValueError, match="no tokens among them.*world_model: vqvae"):
        tokens(replace(SETUP, space=spaces.Dict({"pixels": SPACE["pixels"]})))
    replay = tokens(history=3)
    with pytest.raises(ValueError, match=r"sees 4 frames of 'tokens'.*set replay\.history to 4"):
        replay.add(next(play(1, history=4)))
