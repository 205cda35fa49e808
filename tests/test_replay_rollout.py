"""The rollout hands over exactly what happened, and survives a checkpoint at any step."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium import spaces

from agentctl.core.protocols import Setup
from agentctl.core.types import Batch, Decision, Final, Transition
from agentctl.plugins.replay.rollout import Rollout

STEPS, ROWS = 5, 3
SPACE = spaces.Dict({"pixels": spaces.Box(0, 255, (4, 6), np.uint8), "hud/life": spaces.Box(0, 1, (2,))})


def rollout():
    return Rollout(Rollout.Config(steps=STEPS), Setup(SPACE, spaces.Discrete(3), ROWS))


def states(rng, rows):
    return {
        "pixels": rng.integers(0, 255, (rows, 4, 6), np.uint8),
        "hud/life": rng.random((rows, 2), np.float32),
    }


def history(count, seed=0):
    """``count`` consecutive transitions with ends and cuts."""
    rng = np.random.default_rng(seed)
    state, carry, made = states(rng, ROWS), {"h": np.zeros((ROWS, 2), np.float32)}, []
    for _ in range(count):
        ended, cut = rng.random(ROWS) < 0.3, rng.random(ROWS) < 0.3
        rows = np.flatnonzero(ended | cut)
        after = {"h": rng.random((ROWS, 2), np.float32)}
        decision = Decision(rng.integers(0, 3, ROWS), after, {"log_prob": rng.random(ROWS, np.float32)})
        reward, first, next_state = rng.random(ROWS, np.float32), rng.random(ROWS) < 0.5, states(rng, ROWS)
        final = Final(rows, states(rng, len(rows))) if len(rows) else None
        made.append(
            Transition(
                state, first, carry, decision, reward, ended, cut, ended | cut, next_state, final, {}, reward * 2
            )
        )
        state, carry = next_state, after
    return made


def by_hand(transitions) -> Batch:
    """The batch as the contract describes it, from lists."""
    stack = lambda get: np.stack([get(t) for t in transitions])  # noqa: E731
    index = [(t, b) for t, x in enumerate(transitions) for b in (x.final.rows if x.final else [])]
    final = [state for x in transitions if x.final for state in zip(*x.final.arrays.values(), strict=True)]
    return Batch(
        state={key: stack(lambda t, key=key: t.state[key]) for key in SPACE},
        first=stack(lambda t: t.first),
        action=stack(lambda t: t.decision.action),
        reward=stack(lambda t: t.total),
        ended=stack(lambda t: t.ended),
        cut=stack(lambda t: t.cut),
        extras={"log_prob": stack(lambda t: t.decision.extras["log_prob"])},
        carry=transitions[0].carry,
        next_state=transitions[-1].next_state,
        final_index=np.array(index, np.int64).reshape(-1, 2),
        final_state={key: np.stack([state[i] for state in final]) for i, key in enumerate(transitions[0].state)},
    )


def same(one: Batch, other: Batch) -> None:
    for name in ("first", "action", "reward", "ended", "cut", "final_index"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), name)
    for name in ("state", "extras", "carry", "next_state", "final_state"):
        arrays, others = getattr(one, name), getattr(other, name)
        assert set(arrays) == set(others), name
        for key in arrays:
            np.testing.assert_array_equal(arrays[key], others[key], f"{name} {key}")
            assert arrays[key].dtype == others[key].dtype


def test_hands_over_what_happened_and_starts_anew():
    made, kept = history(2 * STEPS), rollout()
    for part in (made[:STEPS], made[STEPS:]):
        for number, transition in enumerate(part):
            assert not kept.ready(), number
            kept.add(transition)
        assert kept.ready()
        same(kept.sample(), by_hand(part))


def test_keeps_its_own_copy():
    kept, expected = rollout(), by_hand(history(STEPS))
    for transition in history(STEPS):
        kept.add(transition)
        finals = transition.final.arrays.values() if transition.final else ()
        for array in (*transition.state.values(), *transition.carry.values(), *finals, transition.total):
            array[...] = 0  # as a game does that reuses its buffers
    same(kept.sample(), expected)


def test_reuses_its_memory_and_estimates_it():
    kept = rollout()
    batches = []
    for part in (history(STEPS), history(STEPS, seed=1)):
        for transition in part:
            kept.add(transition)
        batches.append(kept.sample())
    assert np.shares_memory(batches[0].state["pixels"], batches[1].state["pixels"])
    batch = batches[0]
    held = [
        *batch.state.values(),
        *batch.extras.values(),
        batch.first,
        batch.action,
        batch.reward,
        batch.ended,
        batch.cut,
    ]
    assert kept.nbytes == pytest.approx(sum(array.nbytes for array in held), rel=0.15)


@pytest.mark.parametrize("at", range(STEPS + 1))
def test_a_loaded_rollout_goes_on_where_it_was_saved(at):
    made, kept, loaded = history(STEPS), rollout(), rollout()
    for transition in made[:at]:
        kept.add(transition)
    loaded.add(made[0])  # what a load replaces
    loaded.load(kept.save())
    for transition in made[at:]:
        loaded.add(transition)
    same(loaded.sample(), by_hand(made))


def test_refuses_to_overflow_and_to_give_too_early():
    kept = rollout()
    with pytest.raises(RuntimeError, match="0 of 5 steps"):
        kept.sample()
    for transition in history(STEPS):
        kept.add(transition)
    with pytest.raises(RuntimeError, match="sample"):
        kept.add(history(1)[0])
