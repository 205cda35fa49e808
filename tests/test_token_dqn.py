"""Token DQN: what it learns from is what acting saw, its target is double Q-learning's, and past frames count."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import recall
import torch
from gymnasium import spaces
from running import QUIET, composed, differing, kill_and_resume, latest, loop_of, written

from agentctl.agents.token_dqn import TokenDQN, stacked
from agentctl.agents.token_network import TokenEye, TokenVision
from agentctl.core.assembly import assemble
from agentctl.core.config import compose
from agentctl.core.contracts.samples import Script, gather
from agentctl.core.errors import ConfigError
from agentctl.core.plugins import Switches
from agentctl.core.protocols import Setup
from agentctl.core.runner import train
from agentctl.core.types import Batch

GRID, CODES = (3, 2), 6
TOKENS = spaces.MultiDiscrete(np.full(GRID, CODES), dtype=np.uint16)
SPACE = spaces.Dict({"tokens": TOKENS})
MASKED = spaces.Dict({"tokens": TOKENS, "action_mask": spaces.MultiBinary(3)})
SMALL = {"block": (1, 1, 1), "embedding": 8, "dim": 16, "layers": 1, "heads": 2}


def agent(space=SPACE, actions=3, vision=SMALL, **config):
    config = {"hidden": 16, "precision": "fp32", "threads": 1, **config}
    return TokenDQN(TokenDQN.Config(vision=vision, **config), Setup(space, spaces.Discrete(actions), batch=5, seed=3))


def values(policy, frames):
    """Of histories (N, S, h, w), float32 (N, A)."""
    with torch.no_grad():
        return policy._dqn.net({"tokens": torch.from_numpy(np.asarray(frames, np.int32))}).squeeze(-1).numpy()


# --- histories --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("history", [1, 2, 4])
def test_learning_sees_the_histories_that_acting_saw_and_both_see_a_frame_stack(history):
    policy, seen = agent(MASKED, history=history), []
    script, explore = Script(policy_setup(MASKED), 5), policy._dqn.explore
    policy._dqn.explore = lambda carry, state, first: seen.append(state) or explore(carry, state, first)
    carry, steps = policy.initial(5), []
    for t in range(41):
        decision = policy.explore(carry, script.state(t), script.first(t))
        steps.append(script.transition(t, decision, carry))
        carry = decision.carry
    batch = policy.with_histories(gather(steps[20:40]))
    after, shown = batch.successors(), stacks(script, 41, history)
    for t, b in np.ndindex(20, 5):
        np.testing.assert_array_equal(seen[20 + t]["tokens"][b], shown[20 + t][b])
        np.testing.assert_array_equal(batch.state["tokens"][t, b], shown[20 + t][b])
        np.testing.assert_array_equal(batch.state["action_mask"][t, b], script.state(20 + t)["action_mask"][b])
        stopped, expected = script.final(20 + t), shown[21 + t][b]
        if stopped is not None and b in stopped.rows:
            last = stopped.arrays["tokens"][list(stopped.rows).index(b)]
            expected = np.concatenate([shown[20 + t][b][1:], last[None]])
        np.testing.assert_array_equal(after["tokens"][t, b], expected)
    assert len(batch.final_index) > 5


def policy_setup(space):
    return Setup(space, spaces.Discrete(3), batch=5)


def stacks(script, count, history):
    """What a frame stack shows at each step and row, from plain lists: the oracle."""
    rows, shown = [[] for _ in range(script.rows)], []
    for t in range(count):
        frames, first = script.state(t)["tokens"], script.first(t)
        rows = [[frames[b]] if first[b] else [*row, frames[b]] for b, row in enumerate(rows)]
        shown.append([np.stack(([row[0]] * history + row)[-history:]) for row in rows])
    return shown


def test_a_batch_without_what_was_before_it_is_refused():
    policy, script = agent(), Script(policy_setup(SPACE), 5)
    carry = policy.initial(5)
    step = script.transition(0, policy.explore(carry, script.state(0), script.first(0)), {})
    with pytest.raises(ValueError, match="use replay: tokens"):
        policy.learn(gather([step]))


def test_a_row_of_tokens_is_read_as_a_grid_of_one_row():
    row = spaces.Dict({"tokens": spaces.MultiDiscrete(np.full(5, CODES), dtype=np.uint16)})
    policy, script = agent(row, history=3), Script(policy_setup(row), 5)
    _, steps = advance(policy, policy.initial(5), script, 0, 8)
    policy.learn(gather(steps))
    assert policy.with_histories(gather(steps)).state["tokens"].shape == (8, 5, 3, 1, 5)


# --- the target -------------------------------------------------------------------------------------------------------


def three(rng):
    """Two steps of three samples: one goes on, one ends after its first step, one is cut in its second."""
    frame = lambda *lead: rng.integers(0, CODES, (*lead, *GRID), np.uint16)  # noqa: E731
    ended, cut = np.zeros((2, 3), bool), np.zeros((2, 3), bool)
    ended[0, 1] = cut[1, 2] = True
    return Batch(
        state={"tokens": frame(2, 3)}, first=np.array([[False, False, True], [False, True, False]]),
        action=rng.integers(0, 3, (2, 3)), reward=rng.random((2, 3), np.float32), ended=ended, cut=cut, extras={},
        carry={"tokens": frame(3, 1)}, next_state={"tokens": frame(3)}, final_index=np.array([[0, 1], [1, 2]]),
        final_state={"tokens": frame(2)}, weight=np.array([1.0, 0.5, 0.25], np.float32),
    )  # fmt: skip


@pytest.mark.parametrize("double", [True, False])
def test_the_target_is_double_q_learnings_by_hand(double):
    policy, gamma = agent(history=2, gamma=0.9, double=double, lr=1e-9), 0.9
    with torch.no_grad():
        for weight in policy._dqn.target.parameters():
            weight.add_(0.3 * torch.randn(weight.shape))
    batch = three(np.random.default_rng(0))
    x, final, last = batch.state["tokens"], batch.final_state["tokens"], batch.next_state["tokens"]
    before = np.stack([[batch.carry["tokens"][0, 0], x[0, 0]], [batch.carry["tokens"][1, 0], x[0, 1]], [x[0, 2]] * 2])
    after = np.stack([[x[1, 0], last[0]], [x[0, 1], final[0]], [x[1, 2], final[1]]])
    ours = values(policy, after)
    policy._dqn.net, kept = policy._dqn.target, policy._dqn.net
    slow = values(policy, after)
    policy._dqn.net = kept
    best = (ours if double else slow).argmax(1)
    reward = batch.reward[0] + gamma * batch.reward[1] * [1, 0, 1]
    target = reward + [gamma**2, 0, gamma**2] * slow[np.arange(3), best]
    miss = np.abs(values(policy, before)[np.arange(3), batch.action[0]] - target)
    expected = np.where(miss <= 1, 0.5 * miss**2, miss - 0.5)
    metrics = policy.learn(batch)
    np.testing.assert_allclose(batch.error, expected, rtol=1e-4)
    assert metrics["loss"] == pytest.approx(expected.mean(), rel=1e-4)


def test_the_slower_copy_follows_at_every_update():
    policy = agent(history=2, tau=0.25)
    for _ in range(3):
        before = [weight.clone() for weight in policy._dqn.target.parameters()]
        policy.learn(three(np.random.default_rng(0)))
        pairs = zip(before, policy._dqn.target.parameters(), policy._dqn.net.parameters(), strict=True)
        for old, slow, weight in pairs:
            torch.testing.assert_close(slow, old + 0.25 * (weight - old))


# --- the eye ----------------------------------------------------------------------------------------------------------


def eye(shape=(4, 3, 2), **options):
    torch.manual_seed(0)
    return TokenEye(shape, CODES, TokenVision(**{**SMALL, **options}))


def test_places_and_times_are_told_apart_and_only_by_what_is_learnt_of_them():
    made, tokens = eye(), torch.from_numpy(np.random.default_rng(0).integers(0, CODES, (1, 4, 3, 2)))
    elsewhere, earlier = tokens.flip(2), tokens.flip(1)
    with torch.no_grad():
        for moved in (elsewhere, earlier):
            assert (made(tokens) - made(moved)).abs().max() > 0.01
        made.time.zero_()
        torch.testing.assert_close(made(tokens), made(earlier), msg="without times, frames are a set")
        assert (made(tokens) - made(elsewhere)).abs().max() > 0.01
        made.place.zero_()
        torch.testing.assert_close(made(tokens), made(elsewhere), msg="without places, tokens are a set")


@pytest.mark.parametrize("block", [(1, 1, 1), (4, 1, 1), (1, 2, 2), (2, 2, 3), (4, 3, 2)])
def test_every_token_counts_whatever_the_blocks(block):
    shape = (4, 3, 5)  # blocks jut out
    made, rng = eye(shape, block=block), np.random.default_rng(0)
    tokens = torch.from_numpy(rng.integers(0, CODES, (1, *shape)))
    changed = tokens.repeat(60, 1, 1, 1).flatten(1)
    changed[range(60), range(60)] = (changed[range(60), range(60)] + 1) % CODES
    with torch.no_grad():
        far = (made(changed.reshape(60, *shape)) - made(tokens)).abs().amax(1)
    assert far.min() > 1e-4


def test_blocks_hold_the_tokens_of_their_place():
    made = eye((2, 3, 5), block=(2, 2, 2))
    tokens = torch.arange(30).reshape(1, 2, 3, 5)
    made.embedding = torch.nn.Embedding.from_pretrained(torch.arange(31.0)[:, None])
    made._edge = 30
    found = made._blocks(tokens).reshape(6, 8).int()
    padded = torch.full((2, 4, 6), 30)
    padded[:, :3, :5] = tokens[0]
    expected = [padded[:, r : r + 2, c : c + 2].flatten() for r in (0, 2) for c in (0, 2, 4)]
    assert torch.equal(found, torch.stack(expected).int())


def test_the_question_is_attention_as_written_in_the_paper():
    question = eye().question
    x = torch.randn(5, 7, 16)
    key, value = question.key_value(question.norm(x)).reshape(5, 7, 2, 2, 8).unbind(2)  # (N, L, H, D / H)
    chance = torch.einsum("hd,nlhd->nlh", question.query[0, :, 0], key).div(8**0.5).softmax(1)
    answer = question.out(torch.einsum("nlh,nlhd->nhd", chance, value).flatten(1))
    torch.testing.assert_close(question(x), answer + question.mlp(answer))


# --- learning ---------------------------------------------------------------------------------------------------------


def bandit(rng, count):
    """The second step of two: the cue was in the frame before, and the action that is the cue pays 1."""
    cue = rng.integers(0, 2, count)
    before, now = np.zeros((count, 1, *GRID), np.uint16), np.full((1, count, *GRID), 5, np.uint16)
    before[np.arange(count), 0, rng.integers(0, 3, count), rng.integers(0, 2, count)] = 1 + cue
    action, over = rng.integers(0, 2, (1, count)), np.ones((1, count), bool)
    return Batch(
        state={"tokens": now}, first=np.zeros((1, count), bool), action=action,
        reward=(action == cue).astype(np.float32), ended=over, cut=~over, extras={}, carry={"tokens": before},
        next_state={"tokens": now[0]}, final_index=np.zeros((0, 2), np.int64), final_state={"tokens": now[0, :0]},
    )  # fmt: skip


@pytest.mark.parametrize("history", [1, 2])
def test_what_only_the_frame_before_tells_is_learnt_with_a_history_and_not_without(history):
    policy, rng = agent(actions=2, history=history, lr=3e-3, adam_eps=1e-8), np.random.default_rng(0)
    for _ in range(150):
        policy.learn(bandit(rng, 64))
    batch = bandit(rng, 200)
    policy.learn(batch)
    if history == 2:
        assert batch.error.max() < 0.02, "Q is 1 where the action is the cue, else 0"
    else:
        np.testing.assert_allclose(batch.error, 0.5 * 0.5**2, atol=0.04)  # Q is 1/2, whatever it does


def chain(places, rng):
    """Each place and action of a chain, right and left; right of the last place pays 1. The place is where the 1 is."""
    place, action = (x.ravel() for x in np.meshgrid(np.arange(places), np.arange(2), indexing="ij"))
    after = np.clip(place + np.where(action == 1, 1, -1), 0, places - 1)
    frames = np.eye(places, dtype=np.uint16).reshape(places, *GRID)
    ended = ((place == places - 1) & (action == 1))[None]
    return Batch(
        state={"tokens": frames[place][None]}, first=np.zeros((1, len(place)), bool), action=action[None],
        reward=ended.astype(np.float32), ended=ended, cut=np.zeros_like(ended), extras={},
        carry={"tokens": frames[rng.integers(0, places, len(place))][:, None]}, next_state={"tokens": frames[after]},
        final_index=np.zeros((0, 2), np.int64), final_state={"tokens": frames[:0]},
    )  # fmt: skip


def test_a_chain_is_valued_as_its_closed_form_says():
    """Q* of right at place s of 6 is gamma^(5 - s); of left one step further away. What was before does not matter."""
    gamma, rng = 0.8, np.random.default_rng(0)
    policy = agent(actions=2, history=2, gamma=gamma, tau=0.1, adam_eps=1e-8)
    for step in range(600):
        policy._dqn._config = policy._dqn._config.model_copy(update={"lr": 3e-3 * 0.994**step})
        policy.learn(chain(6, rng))
    frames = np.eye(6, dtype=np.uint16).reshape(6, 1, *GRID)
    found = values(policy, np.concatenate([frames[rng.integers(0, 6, 6)], frames], axis=1))
    right = gamma ** (5.0 - np.arange(6))
    left = gamma * right[np.maximum(np.arange(6) - 1, 0)]
    np.testing.assert_allclose(found, np.stack([left, right], axis=1), atol=0.03)


def run_of(history, **settings):
    policy = {"name": "token_dqn", "history": history, "vision": {**SMALL, "block": [1, 1, 1]}, "hidden": 32}
    policy |= {"lr": 3e-3, "adam_eps": 1e-8, "epsilon_steps": 1_500, "epsilon_act": 0.0, "tau": 0.05, "threads": 1}
    replay = {"name": "tokens", "history": history, "capacity": 2_000, "warmup": 200, "every": 16}
    run = {"steps": 3_000, "cycle_steps": 3_000, "seed": 1, **settings}
    return {
        "game": {"name": "recall", "batch": 8}, "policy": policy, "replay": replay, "run": run,
        "evaluation": {"episodes": 64}, "plugins": [str(recall.FILE)],
    }  # fmt: skip


def test_a_game_of_recall_is_played_perfectly():
    """The cue is two frames before the choice that it decides; chance wins half of the games."""
    loop = loop_of(run_of(3))
    loop.train()
    last = loop.run.evaluations[-1]
    assert last.return_mean == 1.0
    assert 0.3 < np.mean(last.random_returns) < 0.7


def test_a_run_that_is_killed_ends_as_one_that_never_was(tmp_path):
    path = written(run_of(3, steps=1_200, cycle_steps=240), tmp_path)
    train(compose(path, switches=Switches(disable=frozenset(QUIET))), tmp_path / "whole", quiet=True)
    run = tmp_path / "killed"
    assert kill_and_resume(["run", path, "--out", run, "--json"], run, kills=1, within=0.1) == 1
    assert differing(latest(tmp_path / "whole"), latest(run)) == []


# --- acting, saving, exporting ----------------------------------------------------------------------------------------


def test_masked_actions_are_never_taken_nor_bootstrapped_from():
    policy, rng = agent(MASKED, history=1, epsilon_act=0.5), np.random.default_rng(0)
    mask = np.eye(3, dtype=np.int8)[rng.integers(0, 3, 64)]
    state = {"tokens": rng.integers(0, CODES, (64, *GRID), np.uint16), "action_mask": mask}
    for decide in (policy.act, policy.explore):
        np.testing.assert_array_equal(decide({}, state, np.zeros(64, bool)).action, mask.argmax(1))


def test_what_is_saved_goes_on_to_the_bit():
    script = Script(policy_setup(SPACE), 5)
    ours = agent()
    carry, steps = advance(ours, ours.initial(5), script, 0, 20)
    ours.learn(gather(steps))
    theirs = agent()
    theirs.load(ours.save())
    results = [advance(policy, carry, script, 20, 40) for policy in (ours, theirs)]
    for one, other in zip(results[0][1], results[1][1], strict=True):
        np.testing.assert_array_equal(one.decision.action, other.decision.action)
    batches = [gather(steps) for _, steps in results]
    for policy, batch in zip((ours, theirs), batches, strict=True):
        policy.learn(batch)
    np.testing.assert_array_equal(batches[0].error, batches[1].error)
    ours, theirs = ours.save(), theirs.save()
    assert ours.data == theirs.data
    for key, array in ours.arrays.items():
        np.testing.assert_array_equal(array, theirs.arrays[key])


def advance(policy, carry, script, begin, end):
    steps = []
    for t in range(begin, end):
        decision = policy.explore(carry, script.state(t), script.first(t))
        steps.append(script.transition(t, decision, carry))
        carry = decision.carry
    return carry, steps


def test_what_is_learnt_in_bf16_is_close_to_what_is_learnt_in_fp32():
    policies = [agent(actions=2, history=2, lr=3e-3, adam_eps=1e-8, precision=p) for p in ("fp32", "bf16")]
    for policy in policies:
        rng = np.random.default_rng(0)
        for _ in range(80):
            policy.learn(bandit(rng, 64))
    batch = bandit(np.random.default_rng(1), 200)
    errors = []
    for policy in policies:
        policy.learn(batch)
        errors.append(batch.error)
    assert errors[0].mean() < 0.005 and errors[1].mean() < 0.01


def test_an_exported_one_decides_as_it_does_here(tmp_path):
    policy = agent(MASKED, epsilon_act=0.0)
    policy.export_onnx(tmp_path / "policy.onnx", {"agentctl.policy": "a test"})
    runtime = onnxruntime.InferenceSession(str(tmp_path / "policy.onnx"), providers=["CPUExecutionProvider"])
    script, carry = Script(policy_setup(MASKED), 5), policy.initial(5)
    for t in range(12):
        state, first = script.state(t), script.first(t)
        history = stacked(carry["tokens"], state["tokens"], first)
        decision = policy.act(carry, state, first)
        given = {"tokens": history.astype(np.int32), "action_mask": state["action_mask"]}
        (action,) = runtime.run(["action"], given)
        np.testing.assert_array_equal(action, decision.action)
        carry = decision.carry


def test_what_cannot_work_is_refused_with_the_remedy():
    with pytest.raises(ValueError, match="put a tokenizer before it"):
        agent(spaces.Dict({"pixels": spaces.Box(0, 255, (8, 8), np.uint8)}))
    with pytest.raises(ValueError, match="history 3 must be a multiple of vision.block's 2 frames"):
        agent(history=3, vision={**SMALL, "block": (2, 1, 1)})
    with pytest.raises(ValueError, match="dim 16 must be a multiple of heads 3"):
        agent(vision={**SMALL, "heads": 3})
    data = run_of(3)
    data["replay"]["history"] = 2
    with pytest.raises(Exception, match=r"set replay\.history to 3"):
        loop_of(data).train()
    data["replay"] = {"name": "rollout", "steps": 4}
    assemble(composed(data))  # a rollout hands carries back, too
    data["replay"] = {"name": "tokens", "keep": ["picture"]}
    with pytest.raises(ConfigError, match="has no tokens among them"):
        assemble(composed(data))
