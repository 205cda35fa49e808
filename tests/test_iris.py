"""`iris` foresees each token from all before it, and what it keeps while imagining changes nothing."""

from typing import Any

import numpy as np
import pytest
import torch
from token_worlds import PLACES, dots, driven, driven_to, gliding, revived, setup, trained
from torch.nn import functional as F

from agentctl.core.types import Carry
from agentctl.world_models.iris import Iris
from agentctl.world_models.iris_network import Story, losses

SMALL = {"layers": 2, "dim": 32, "heads": 2, "lr": 2e-3, "threads": 1, "precision": "fp32", "temperature": 0.0}


def model(**options: Any) -> Iris:
    return Iris(Iris.Config(**{**SMALL, **options}), setup())


def spread(world: Iris) -> Iris:
    """With weights so large that every input matters."""
    for parameter in world._fit.net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return world


def begun(world: Iris, rows: int = 4) -> tuple[Carry, Any]:
    state: Any = {"tokens": dots(np.arange(rows)[None])[0]}
    return world.observe(world.initial(rows), state, None, np.ones(rows, bool)).carry, state


def test_it_learns_the_direction_from_two_frames_and_not_from_one() -> None:
    """Token after token, the second neighbour follows from the first: not knowing costs one bit a frame, not two."""
    blind = trained(model(history=2), gliding, 250, steps=2)
    seeing = trained(model(history=3), gliding, 600, steps=3)
    undecided = (2 * PLACES - 4) / (2 * PLACES - 2)  # of frames: all but those with the dot at a wall
    assert seeing["bits"] < 0.6 * undecided / PLACES < 0.9 * undecided / PLACES < blind["bits"]


def test_it_uses_the_action_and_knows_reward_and_end() -> None:
    right = trained(model(history=2), driven, 150)
    wrong = trained(model(history=2), driven, 150, late=1)
    assert right["changed_accuracy"] > 0.97 and wrong["changed_accuracy"] < 0.7
    assert right["reward_f1"] > 0.97 and right["ended_auc"] > 0.97


@torch.no_grad()
def test_the_loss_is_that_of_each_token_read_after_its_own_past_alone() -> None:
    """By brute force, one token after the other, in windows that hold two episodes."""
    world, rng = spread(model(history=3)), np.random.default_rng(0)
    batch = driven(rng, rows=5, steps=3)
    batch.first[1, 0] = batch.first[2, 1] = True
    passage, net = world._passage(batch), world._fit.net
    nats = 0.0
    for n in range(5):
        begins = [t for t in range(3) if t == 0 or batch.first[t, n]]
        x = net.embed(passage.frames[n : n + 1], passage.actions[n : n + 1])
        for t in range(3):
            start = max(b for b in begins if b <= t)
            for place in range(PLACES):
                at = t * (PLACES + 1) + place
                if at == start * (PLACES + 1):
                    continue
                features = net.body.read(x[:, start * (PLACES + 1) : at], sees="before").features[:, -1]
                nats += float(F.cross_entropy(net.head(features), passage.frames[n, t, place][None]))
    assert float(losses(net, passage)[0]) == pytest.approx(nats, rel=1e-4)


@torch.no_grad()
def test_a_story_told_on_gives_the_logits_of_reading_it_at_once() -> None:
    world, rng = spread(model(history=4)), np.random.default_rng(0)
    batch, net = driven(rng, rows=5, steps=4), world._fit.net
    passage = world._passage(batch)
    story = Story(net, passage.frames[:, :2], passage.actions[:, :1])
    whole = net.head(net.body.read(net.embed(passage.frames, passage.actions), sees="before").features)
    for step in (2, 3):
        frame, reader = passage.frames[:, step], story.read(passage.actions[:, step - 1])
        reader.after(0, 1 - frame[:, :-1])  # a wrong guess, which is forgotten
        told = torch.cat([reader.first[:, None], reader.after(0, frame[:, :2]), reader.after(2, frame[:, 2:-1])], 1)
        at = step * (PLACES + 1) - 1 + np.arange(PLACES)
        torch.testing.assert_close(told, whole[:, at], atol=1e-5, rtol=1e-5)
        story._newest = frame


@pytest.mark.parametrize("ages", [[1, 1, 1, 1], [1, 2, 1, 2]])
def test_what_is_kept_between_steps_changes_nothing(ages: list[int]) -> None:
    """Through the end of the sequence and its new beginning, against a model that always reads anew."""
    keeping, reading = spread(model(history=3)), spread(model(history=3))
    reading.load(keeping.save())
    carries, states = map(list, zip(begun(keeping), begun(reading), strict=True))
    for carry in carries:
        carry["age"] = np.array(ages)
    for step in range(7):
        action = np.array([1, 2, 3, 1 + step % 3])
        copied = {key: array.copy() for key, array in carries[1].items()}
        ahead = [keeping.imagine(carries[0], states[0], action), reading.imagine(copied, states[1], action)]
        carries, states = [one.carry for one in ahead], [one.state for one in ahead]
        assert (states[0]["tokens"] == states[1]["tokens"]).all()
        assert ahead[0].reward == pytest.approx(ahead[1].reward, abs=1e-5)


def test_rows_of_different_ages_are_imagined_as_if_alone() -> None:
    world = spread(model(history=4))
    carry, state = begun(world)
    for _ in range(2):
        imagined = world.imagine(carry, state, np.array([1, 2, 3, 1]))
        carry, state = imagined.carry, imagined.state
    fresh, _ = begun(world)
    mixed = {key: np.concatenate([carry[key][:2], fresh[key][2:]]) for key in carry}
    state = {"tokens": mixed["frames"][:, -1].reshape(4, 1, PLACES).astype(np.uint16)}
    together = world.imagine(mixed, state, np.array([1, 2, 3, 1])).state["tokens"]
    for rows in (slice(0, 2), slice(2, 4)):
        alone = world.imagine(
            {k: v[rows] for k, v in mixed.items()}, {"tokens": state["tokens"][rows]}, np.array([1, 2, 3, 1])[rows]
        )
        assert (alone.state["tokens"] == together[rows]).all()


def test_what_it_learnt_it_imagines_beyond_its_own_context() -> None:
    world, rng = model(history=4), np.random.default_rng(0)
    for _ in range(200):
        world.learn(driven(rng, steps=4))
    carry, state = begun(world)
    place = np.arange(4)
    for step in range(12):
        action = rng.integers(1, 3, 4)  # 3 would end it
        place = driven_to(place, action)
        imagined = world.imagine(carry, state, action)
        carry, state = imagined.carry, imagined.state
        assert (state["tokens"] == dots(place[None])[0]).all(), step
        assert not imagined.ended.any() and imagined.reward == pytest.approx(action - 2, abs=0.1)
    assert world.imagine(carry, state, np.full(4, 3)).ended.all()


def test_a_run_that_is_resumed_learns_and_dreams_on_to_the_bit() -> None:
    rng = np.random.default_rng(0)
    batches = [driven(rng) for _ in range(6)]
    one, two = (model(history=2, temperature=1.0) for _ in range(2))
    for batch in batches[:3]:
        one.learn(batch)
    two.load(revived(one.save()))
    for batch in batches[3:]:
        assert one.learn(batch) == two.learn(batch)
        ahead = [world.imagine(*begun(world), np.array([1, 2, 3, 1])) for world in (one, two)]
        assert (ahead[0].state["tokens"] == ahead[1].state["tokens"]).all()


def test_errors_name_the_remedy() -> None:
    with pytest.raises(ValueError, match="set replay.length to that"):
        model(history=4).learn(gliding(np.random.default_rng(0)))
    with pytest.raises(ValueError, match="context 4 must be below history 4"):
        model(history=4, context=4)
