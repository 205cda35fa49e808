"""`token_transformer` foresees what can be foreseen, and falls to chance when what it needs is taken away."""

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from pydantic import ValidationError
from token_worlds import ACTIONS, PLACES, batch_of, dots, driven, driven_to, gliding, revived, setup, trained

from agentctl.core.protocols import Setup
from agentctl.core.types import Batch, Carry
from agentctl.world_models.decoding import Sampling
from agentctl.world_models.token_metrics import TokenScore
from agentctl.world_models.token_network import Context, TokenNetwork
from agentctl.world_models.token_transformer import GENERATIONS, TokenTransformer

SMALL = {"layers": 2, "dim": 32, "heads": 2, "lr": 3e-3, "threads": 1, "precision": "fp32", "temperature": 0.0}


def network(world: TokenTransformer) -> TokenNetwork:
    return world._fit.net


def model(given: Setup | None = None, **options: Any) -> TokenTransformer:
    return TokenTransformer(TokenTransformer.Config(**{**SMALL, **options}), given or setup())


def test_without_history_the_direction_is_a_coin_flip() -> None:
    blind = trained(model(history=1, causal=False, decoding="parallel"), gliding, 90)
    seeing = trained(model(history=2, causal=False, decoding="parallel"), gliding, 90)
    assert seeing["changed_accuracy"] > 0.97 and seeing["bits"] < 0.05
    assert seeing["copy_accuracy"] == blind["copy_accuracy"] == pytest.approx(1 - 2 / PLACES)
    undecided = (2 * PLACES - 4) / (2 * PLACES - 2)  # of frames: all but those with the dot at a wall
    assert blind["bits"] == pytest.approx(2 * undecided / PLACES, abs=0.03)  # of either neighbour: a bit


def test_the_action_is_used_and_one_that_is_a_step_late_is_caught() -> None:
    right = trained(model(history=2, causal=False, decoding="parallel"), driven, 160)
    wrong = trained(model(history=2, causal=False, decoding="parallel"), driven, 160, late=1)
    assert right["changed_accuracy"] > 0.97 and wrong["changed_accuracy"] < 0.7
    assert right["reward_f1"] > 0.97 and right["ended_auc"] > 0.97


def test_tokens_that_depend_on_each_other_need_rounds_or_order() -> None:
    """Two tokens, always alike, of which nothing before tells: all at once, half of the frames are wrong."""
    world = model(setup(places=2), history=1, temperature=1.0, decoding="maskgit", rounds=2)
    rng = np.random.default_rng(0)
    for _ in range(250):
        world.learn(alike(rng))
    wrong = {decoding: disagreeing(world, decoding) for decoding in ("parallel", "maskgit", "autoregressive")}
    assert 0.4 < wrong["parallel"] < 0.6
    assert wrong["maskgit"] < 0.05 and wrong["autoregressive"] < 0.05


def alike(rng: np.random.Generator, rows: int = 64) -> Batch:
    bits = rng.integers(2, size=(2, rows, 1, 1), dtype=np.uint16)
    return batch_of(np.repeat(bits, 2, axis=3), rng.integers(1, ACTIONS + 1, (1, rows)))


@torch.no_grad()
def disagreeing(world: TokenTransformer, decoding: Any) -> float:
    frames, action = torch.zeros(1000, 1, 2, dtype=torch.long), torch.zeros(1000, dtype=torch.long)
    sampling = Sampling(1.0, torch.Generator().manual_seed(0))
    tokens = world.decode_next(network(world).context(frames, action), decoding, sampling)
    return float((tokens[:, 0] != tokens[:, 1]).float().mean())


@torch.no_grad()
def test_decoding_step_by_step_gives_the_logits_of_one_pass() -> None:
    world = model(history=3)
    context = context_of(world)
    target = torch.randint(2, (5, PLACES))
    reader = network(world).reader(context)
    reader.after(0, 1 - target[:, :-1])  # a wrong guess, which is forgotten
    pieces = [reader.after(0, target[:, :1]), reader.after(1, target[:, 1:4]), reader.after(4, target[:, 4:-1])]
    told = torch.cat([reader.first[:, None], *pieces], 1)
    torch.testing.assert_close(told, network(world).ordered(context, target), atol=1e-5, rtol=1e-5)


def context_of(world: TokenTransformer) -> Context:
    sizes, net = world.sizes, network(world)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return net.context(torch.randint(2, (5, sizes.history, PLACES)), torch.randint(ACTIONS, (5,)))


@torch.no_grad()
def test_a_slot_in_order_sees_only_what_comes_before_it() -> None:
    world = model(history=2)
    context, target = context_of(world), torch.randint(2, (5, PLACES))
    changed = target.clone()
    changed[:, 4:] = 1 - changed[:, 4:]
    before, after = (network(world).ordered(context, tokens) for tokens in (target, changed))
    assert torch.equal(before[:, :5], after[:, :5]) and not torch.equal(before[:, 5:], after[:, 5:])


def test_before_its_first_frame_an_episode_has_only_that() -> None:
    """Whatever was played before changes nothing: not while learning, not while playing."""
    world, rng = model(history=3), np.random.default_rng(0)
    frames = np.concatenate([gliding(rng, steps=3).state["tokens"], gliding(rng, rows=64).state["tokens"][:1]])
    first = np.zeros((3, 64), bool)
    first[1] = True
    other = np.concatenate([gliding(rng).state["tokens"][:1], frames[1:]])
    action = rng.integers(1, ACTIONS + 1, (3, 64))
    one, two = (world.loss(batch_of(seen, action, first=first)).total for seen in (frames, other))
    assert one == two != world.loss(batch_of(frames, action)).total


def test_playing_sees_what_learning_sees() -> None:
    """The carry that observing builds up is the window that a batch of the same steps gives."""
    world, batch = model(history=3), gliding(np.random.default_rng(0), rows=4, steps=5)
    batch.first[0], batch.first[3, :2] = True, True
    carry = world.initial(4)
    for percept, first in zip(batch.state["tokens"], batch.first, strict=True):
        carry = world.observe(carry, {"tokens": percept}, None, first).carry
    assert (carry["frames"] == world._sight.window(batch, 3).frames).all()
    assert (carry["frames"][:2, 0] == batch.state["tokens"][3, :2, 0]).all()


def test_frames_that_the_policy_carried_count_as_history() -> None:
    world, batch = model(history=3), gliding(np.random.default_rng(0), rows=6, steps=3)
    batch.first[2, 1:3] = True
    whole, last = batch.state["tokens"], batch.next_state["tokens"]
    lean = batch_of(np.stack([whole[2], last]), batch.action[-1:], first=batch.first[-1:])
    lean.carry = {"tokens": whole[:2].swapaxes(0, 1)}
    plain, found = (world._sight.window(seen, 3) for seen in (batch, lean))
    assert (found.frames == plain.frames).all() and (found.target == plain.target).all()
    with pytest.raises(ValueError, match="3 frames are carried and sampled, 4 are needed"):
        model(history=4).learn(lean)


def test_what_it_learnt_it_imagines_for_many_steps_however_it_decodes() -> None:
    world, rng = model(history=2, rounds=3), np.random.default_rng(0)
    for _ in range(100):
        world.learn(driven(rng))
    for decoding in ("parallel", "maskgit", "autoregressive"):
        run_time = model(history=2, rounds=3, decoding=decoding)
        run_time.load(world.save())
        carry, state, place = *begun(run_time), np.arange(4)
        for step in range(8):
            action = rng.integers(1, ACTIONS, 4)  # 3 would end it
            place = driven_to(place, action)
            imagined = run_time.imagine(carry, state, action)
            carry, state = imagined.carry, imagined.state
            assert (state["tokens"] == dots(place[None])[0]).all(), (decoding, step)
            assert not imagined.ended.any() and imagined.reward == pytest.approx(action - 2, abs=0.1)
        assert run_time.imagine(carry, state, np.full(4, 3)).ended.all()


def begun(world: TokenTransformer) -> tuple[Carry, Any]:
    state: Any = {"tokens": dots(np.arange(4)[None])[0]}
    return world.observe(world.initial(4), state, None, np.ones(4, bool)).carry, state


def test_a_run_that_is_resumed_learns_and_dreams_on_to_the_bit() -> None:
    rng = np.random.default_rng(0)
    batches = [driven(rng) for _ in range(6)]
    one, two = model(temperature=1.0, history=2), model(temperature=1.0, history=2)
    for batch in batches[:3]:
        one.learn(batch)
    two.load(revived(one.save()))
    carry, state = one.initial(64), {"tokens": batches[0].state["tokens"][0]}
    for batch in batches[3:]:
        assert one.learn(batch) == two.learn(batch)
        ahead = [world.imagine(carry, state, batch.action[0]) for world in (one, two)]
        assert (ahead[0].state["tokens"] == ahead[1].state["tokens"]).all()


def test_threads_share_an_update_without_changing_it() -> None:
    rng = np.random.default_rng(0)
    batches = [driven(rng) for _ in range(3)]
    one, two = model(history=2, threads=1), model(history=2, threads=2)
    for batch in batches:
        assert two.learn(batch) == pytest.approx(one.learn(batch), rel=1e-3)


def test_a_generation_is_a_set_of_defaults() -> None:
    for generation, given in GENERATIONS.items():
        config = TokenTransformer.Config(generation=generation)  # type: ignore[arg-type]
        assert {name: getattr(config, name) for name in given} == given
    assert TokenTransformer.Config(generation="v1.0", history=2).history == 2


def test_errors_name_the_remedy() -> None:
    with pytest.raises(ValidationError, match="needs causal: true"):
        TokenTransformer.Config(generation="v1.1", decoding="maskgit")
    with pytest.raises(ValueError, match="set replay.length to that"):
        model(history=4).learn(gliding(np.random.default_rng(0), steps=2))
    with pytest.raises(ValueError, match="one of n actions"):
        model(Setup(space=setup().space, action_space=spaces.Box(-1, 1, (2,))))


def test_measuring_takes_nothing_from_the_chances_of_later_dreams() -> None:
    world, score = model(temperature=1.0, history=2), TokenScore(2)
    before = world.save().arrays["chance"]
    world.measure(gliding(np.random.default_rng(0)), score, "autoregressive")
    assert (world.save().arrays["chance"] == before).all() and score.tokens == 64 * PLACES
