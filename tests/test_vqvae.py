"""The tokenizer on pictures of its own size: what it keeps, what each of its parts brings, and what must not change."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pytest
import torch
from gymnasium import spaces
from pictures import BALL, balls, batch_of, differing, shapes, train
from running import loop_of
from vector_quantize_pytorch import VectorQuantize

from agentctl.core.checkpoint import write_checkpoint
from agentctl.core.errors import ConfigError
from agentctl.core.protocols import Setup
from agentctl.core.types import Snapshot
from agentctl.testing import assert_contract
from agentctl.world_models.quantizers import Quantized, perplexity
from agentctl.world_models.tokenizer import Tokenizer, cut, frame_shape, joined, newest_frame, psnr
from agentctl.world_models.vqvae import VQVAE

SMALL = {"codes": 512, "dim": 16, "width": 32, "downsample": 4}


def tokenizer(side=16, seed=0, **config):
    return Tokenizer(Tokenizer.Config.model_validate({**SMALL, **config}), (side, side, 3), seed)


def error(made, frames):
    """Mean squared error of what comes back, pixels in [0, 1]."""
    return float(((made.decode(made.encode(frames)).float() - frames.float()) / 255).square().mean())


def vqvae(space=None, **config):
    space = space or spaces.Dict({"picture": spaces.Box(0, 255, (16, 16, 3), np.uint8)})
    options = {**SMALL, "threads": 2, "precision": "fp32", **config}
    return VQVAE(VQVAE.Config.model_validate(options), Setup(space, spaces.Discrete(3), batch=4, seed=3))


# --- what it keeps of a picture ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "downsample", "grid"),
    [((64, 64, 3), 16, (4, 4)), ((64, 64, 3), 8, (8, 8)), ((64, 84, 3), 4, (16, 21)), ((84, 64, 1), 4, (21, 16))],
)
@pytest.mark.parametrize("quantizer", ["ema", "fsq"])
def test_a_frame_becomes_a_grid_of_tokens_and_comes_back_in_its_size(shape, downsample, grid, quantizer):
    options = {"downsample": downsample, "quantizer": quantizer, "width": 8, "levels": (5, 3)}
    made = Tokenizer(Tokenizer.Config.model_validate(options), shape, seed=0)
    frames = torch.randint(0, 256, (3, *shape), dtype=torch.uint8)
    tokens = made.encode(frames)
    assert made.grid == grid and made.codes == (512 if quantizer == "ema" else 15)
    assert tokens.shape == (3, *grid) and tokens.dtype == torch.int64
    assert made.decode(tokens).shape == frames.shape and made.decode(tokens).dtype == torch.uint8


def test_sizes_that_do_not_divide_are_refused_with_one_that_does():
    with pytest.raises(ValueError, match=r"60 x 75 pixels do not divide into tokens of 8 x 8: .* e\.g\. 64 x 72"):
        cut(60, 75, 8)


def test_each_token_is_of_its_own_place():
    """Another picture in one corner changes no token in the other."""
    made, frames = tokenizer(side=64), balls(1, 0)
    train(made, balls(50, 1), 2)
    changed = frames.clone()
    changed[:, :8, :8] = 200
    differs = (made.encode(frames) != made.encode(changed))[0]
    assert differs[:2, :2].any() and not differs[8:, 8:].any()


def test_a_token_with_the_receptive_field_of_a_patch_knows_its_own_pixels_alone():
    """Its sabotage: with a wide one, a change beside a token changes what it says of its own pixels."""
    frames, picked = shapes(64, 0, side=32), torch.Generator().manual_seed(0)
    changed = frames.clone()
    changed[:, :16] = torch.randint(0, 256, (64, 16, 32, 3), dtype=torch.uint8, generator=picked)
    flipped = {}
    for receptive_field in ("wide", "patch"):
        made = tokenizer(side=32, receptive_field=receptive_field)
        train(made, frames, 20)
        flipped[receptive_field] = int((made.encode(frames) != made.encode(changed))[:, 4:].sum())
    assert flipped["patch"] == 0 < flipped["wide"]


@cache
def learnt(quantizer="ema", revive_below=0.1):
    """A tokenizer after 150 updates on shapes."""
    made = tokenizer(quantizer=quantizer, revive_below=revive_below)
    train(made, shapes(2000, 0), 150)
    return made


@pytest.mark.parametrize("quantizer", ["ema", "fsq"])
def test_pictures_come_back_better_than_their_mean(quantizer):
    held_out = shapes(500, 1)
    found, mean = error(learnt(quantizer), held_out), float((held_out / 255).var(0, correction=0).mean())
    print(f"{quantizer}: {psnr(found):.1f} dB, the mean picture {psnr(mean):.1f} dB")
    assert found < 0.45 * mean


def test_revival_keeps_codes_in_use_and_pictures_closer():
    """Its sabotage: without, codes that no vector of the first batches is nearest to are lost."""
    held_out, found = shapes(500, 1), {}
    for revive_below in (0.0, 0.1):
        made = learnt(revive_below=revive_below)
        counts = torch.bincount(made.encode(held_out).flatten(), minlength=512)
        found[revive_below] = int((counts > 0).sum()), float(perplexity(counts)), psnr(error(made, held_out))
    print(f"codes used, perplexity, dB: without revival {found[0.0]}, with {found[0.1]}")
    assert found[0.1][0] > 2 * found[0.0][0]
    assert found[0.1][2] > found[0.0][2] + 1


def test_a_ball_of_one_cell_survives():
    frames, held_out = balls(2000, 0, cells=8), balls(200, 1, cells=8)
    made = tokenizer(side=32, downsample=8, dim=32)
    train(made, frames, 150, batch=32)
    shown, given = made.decode(made.encode(held_out)).float(), held_out.float()
    ball = (held_out == torch.tensor(BALL, dtype=torch.uint8)).all(-1)
    off = float((shown[ball] - given[ball]).abs().mean() / (20 - given[ball]).abs().mean())
    print(f"{psnr(error(made, held_out)):.1f} dB; on the ball {off:.0%} of the error of showing none")
    assert off < 0.2


# --- the loss ---------------------------------------------------------------------------------------------------------


def test_the_loss_is_its_parts_weighted():
    made, frames = tokenizer(worst_pixel=0.5, commitment=0.2), shapes(5, 0)
    loss, given = made.loss(frames), frames.permute(0, 3, 1, 2).double() / 255
    z = made.encoder(given.float()).permute(0, 2, 3, 1).reshape(-1, 16)
    codes = made.quantizer.vectors[torch.cdist(z, made.quantizer.vectors).argmin(1)]
    squared = (made.decoder(codes.reshape(5, 4, 4, 16).permute(0, 3, 1, 2)) - given).square()
    worst = sum(frame.max() for frame in squared) / 5
    parts = [float(part.detach()) for part in (squared.mean(), worst, (z - codes).square().mean())]
    names = ("reconstruction", "worst_pixel", "commitment")
    assert [loss.metrics[name] for name in names] == pytest.approx(parts, rel=1e-4)
    assert loss.total.item() == pytest.approx(parts[0] + 0.5 * parts[1] + 0.2 * parts[2], rel=1e-4)
    assert loss.metrics["psnr"] == pytest.approx(10 * np.log10(255**2 / (255**2 * parts[0])), rel=1e-4)
    assert loss.metrics["unused"] == 512 - len(loss.read[""].indices.unique())


class Theirs(VectorQuantize):
    """vector-quantize-pytorch's quantiser in the place of ours, begun from the same codes."""

    def __init__(self, ours):
        super().__init__(
            dim=ours.dim, codebook_size=ours.codes, decay=0.99, commitment_weight=1.0, rotation_trick=False
        )
        for name, value in (("embed", ours.vectors), ("embed_avg", ours.sums), ("cluster_size", ours.counts)):
            getattr(self._codebook, name).copy_(value[None])

    def quantize(self, z):
        codes, indices, loss = self(z[None])
        return Quantized(codes[0], indices[0], loss.squeeze())

    def update(self, z, indices):
        return 0

    def dead(self):
        return 0


def test_it_learns_as_with_the_quantiser_of_vector_quantize_pytorch():
    frames, losses = shapes(500, 0), []
    for peer in (False, True):
        made = tokenizer(revive_below=0.0)
        made.quantizer.begun.fill_(True)
        if peer:
            made.quantizer = Theirs(made.quantizer)
        losses.append(train(made, frames, 40))
    assert losses[0][-1] < 0.5 * losses[0][0]
    assert losses[1] == pytest.approx(losses[0], rel=0.1)


def test_what_parts_of_a_batch_give_is_what_the_whole_gives():
    made, frames = tokenizer(), shapes(9, 0)
    whole, parts = made.loss(frames), joined([made.loss(part) for part in frames.tensor_split(2)])
    assert parts.metrics == pytest.approx(whole.metrics, rel=1e-4)
    assert torch.equal(parts.read[""].indices, whole.read[""].indices)
    torch.testing.assert_close(parts.read[""].vectors, whole.read[""].vectors)


# --- the component ----------------------------------------------------------------------------------------------------


def test_it_keeps_the_contract_of_a_world_model():
    assert_contract("world_model", VQVAE)


def test_what_is_loaded_in_the_middle_of_training_goes_on_to_the_bit():
    options = {"revive_below": 0.5, "decay": 0.7}
    made, batches = vqvae(**options), [batch_of(shapes(8, k)) for k in range(12)]
    revived = sum(made.learn(batch)["revived"] for batch in batches[:6])
    snapshot = made.save()
    data = json.loads(json.dumps(snapshot.data))
    twin = vqvae(**options)
    twin.learn(batches[0])
    twin.load(Snapshot({name: array.copy() for name, array in snapshot.arrays.items()}, data))
    for batch in batches[6:]:
        mine, its = made.learn(batch), twin.learn(batch)
        assert mine == its
        revived += mine["revived"]
    assert revived > 0
    assert differing(made.save(), twin.save()) == []
    assert made.version == twin.version == 12


def test_looking_and_judging_change_nothing():
    made, batch = vqvae(), batch_of(shapes(8, 0))
    made.learn(batch)
    before, tokens = made.save(), None
    for _ in range(2):
        percept = {"picture": batch.state["picture"][0]}
        belief = made.observe({}, percept, None, np.ones(4, bool))
        tokens = belief.latent["tokens"] if tokens is None else tokens
        assert (belief.latent["tokens"] == tokens).all()
        assert made.space["tokens"].contains(tokens[0])
        made.decode(belief.latent)
        imagined = made.imagine({}, {**percept, **belief.latent}, np.zeros(4, int))
        assert (imagined.state["tokens"] == tokens).all() and not imagined.reward.any() and not imagined.ended.any()
        float(made.loss(batch).total)
    assert differing(before, made.save()) == []


def test_frozen_it_learns_no_more():
    made, batch = vqvae(frozen_after=2), batch_of(shapes(8, 0))
    assert [bool(made.learn(batch)) for _ in range(3)] == [True, True, False]
    before = made.save()
    assert made.frozen and made.version == 2
    made.learn(batch)
    assert differing(before, made.save()) == []


def test_threads_share_the_work_and_change_nothing_but_rounding():
    one, two = vqvae(threads=1), vqvae(threads=2)
    for k in range(5):
        metrics = [made.learn(batch_of(shapes(8, k))) for made in (one, two)]
        assert metrics[0] == pytest.approx(metrics[1], rel=0.05)


def test_bf16_sees_nearly_the_same_tokens():
    made, low = vqvae(), vqvae(precision="bf16")
    for model in (made, low):
        model.tokenizer.load_state_dict(learnt().state_dict())
    percept = {"picture": shapes(100, 999).numpy()}
    tokens = [model.observe({}, percept, None, np.ones(100, bool)).latent["tokens"] for model in (made, low)]
    agree = float((tokens[0] == tokens[1]).mean())
    print(f"equal tokens in bf16: {agree:.3f}")
    losses = [model.loss(batch_of(shapes(100, 998))).total.item() for model in (made, low)]
    assert agree > 0.9
    assert losses[0] != losses[1], "it was bf16"
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    assert low.learn(batch_of(shapes(100, 998)))["loss"] == pytest.approx(losses[1], rel=1e-3)


LANTERN = {
    "game": {"name": "toy/lantern", "batch": 8, "maze": ["########", "#a....b#", "#.####.#", "#.#..#.#", "#......#",
                                                         "###S####", "###*####", "########"]},
    "world_model": {"name": "vqvae", **SMALL, "width": 16, "lr": 3e-3},
    "policy": "random",
    "replay": {"name": "rollout", "steps": 1},
    "run": {"steps": 2_000, "cycle_steps": 2_000},
    "evaluation": {"episodes": 1, "max_steps": 5},
}  # fmt: skip


def test_a_run_learns_to_draw_its_game_and_another_begins_with_what_it_learnt(tmp_path):
    loop = loop_of(LANTERN, tmp_path / "first")
    loop.train()
    eyes = loop.assembly.pipeline.world_model
    observation = loop.assembly.another_game(8).reset(0)
    shown = eyes.decode(eyes.observe({}, observation, None, np.ones(8, bool)).latent)["picture"]
    found = float(np.square((shown / 255.0) - observation["picture"] / 255.0).mean())
    assert psnr(found) > 20, found
    taken = {**LANTERN["world_model"], "from": str(tmp_path / "first"), "frozen_after": 0}
    second = loop_of({**LANTERN, "world_model": taken}).assembly.pipeline.world_model
    assert second.frozen
    mine, theirs = (model.observe({}, observation, None, np.ones(8, bool)).latent["tokens"] for model in (eyes, second))
    assert (mine == theirs).all()
    with pytest.raises(ConfigError, match=r"has codes 512 \(here 64\), width 16 \(here 8\): give this one the same"):
        loop_of({**LANTERN, "world_model": {**taken, "codes": 64, "width": 8}})
    loop_of({key: part for key, part in LANTERN.items() if key != "world_model"}, tmp_path / "blind").train()
    with pytest.raises(ConfigError, match="holds no tokenizer: name a run whose world_model is vqvae"):
        loop_of({**LANTERN, "world_model": {**taken, "from": str(tmp_path / "blind")}})


def test_a_tokenizer_from_before_receptive_fields_is_taken_over_as_a_wide_one(tmp_path):
    kept = vqvae().save()
    assert kept.data["tokenizer"].pop("receptive_field") == "wide"
    write_checkpoint(tmp_path / "checkpoints", 0, {"world_model": kept}, keep=1)
    vqvae(**{"from": str(tmp_path)})
    with pytest.raises(ValueError, match=r"has receptive_field wide \(here patch\)"):
        vqvae(**{"from": str(tmp_path), "receptive_field": "patch"})


def test_a_tokenizer_inside_another_model_is_found_too(tmp_path):
    """As `sight.py` names what a model's own tokenizer saves."""
    made = vqvae()
    made.learn(batch_of(shapes(8, 0)))
    kept = made.save()
    arrays = {f"tokenizer/{name}": array for name, array in kept.arrays.items()}
    write_checkpoint(tmp_path / "checkpoints", 0, {"world_model": Snapshot(arrays, {"tokenizer/": kept.data})}, keep=1)
    taken = vqvae(**{"from": str(tmp_path)})
    one, other = made.tokenizer.state_dict(), taken.tokenizer.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert taken.version == 0


# --- what it reads ----------------------------------------------------------------------------------------------------


def image(*shape):
    return spaces.Box(0, 255, shape, np.uint8)


@pytest.mark.parametrize(
    ("space", "frame", "pick"),
    [
        (image(16, 12, 3), (16, 12, 3), lambda x: x),
        (image(16, 12, 1), (16, 12, 1), lambda x: x),
        (image(16, 12), (16, 12, 1), lambda x: x[..., None]),
        (image(4, 16, 12), (16, 12, 1), lambda x: x[:, 3, :, :, None]),
        (image(4, 16, 12, 3), (16, 12, 3), lambda x: x[:, 3]),
    ],
    ids=str,
)
def test_the_newest_frame_is_read_and_shown_in_the_percepts_shape(space, frame, pick):
    images = np.random.default_rng(0).integers(0, 256, (5, *space.shape), np.uint8)
    assert frame_shape(space) == frame
    assert (newest_frame(images, space) == pick(images)).all()
    assert (newest_frame(torch.from_numpy(images), space).numpy() == pick(images)).all()
    made = vqvae(spaces.Dict({"x": space}))
    latent = made.observe({}, {"x": images}, None, np.ones(5, bool)).latent
    shown = made.decode(latent)["x"]
    assert shown.shape == images.shape and shown.dtype == np.uint8
    assert (
        newest_frame(shown, space) == made.tokenizer.decode(torch.from_numpy(latent["tokens"].astype(int))).numpy()
    ).all()


@pytest.mark.parametrize(
    ("space", "options", "told"),
    [
        ({"a": image(16, 16), "b": image(16, 16)}, {}, r"has \['a', 'b'\]: say which by `image: NAME`"),
        ({"hp": spaces.Discrete(3)}, {}, r"the percept \['hp'\] has \[\]: switch on a perception"),
        ({"a": image(16, 16)}, {"image": "b"}, r"image 'b' is not among the percept's images \['a'\]"),
        ({"a": image(16, 15)}, {}, "do not divide into tokens of 4 x 4"),
    ],
)
def test_what_cannot_be_read_is_told(space, options, told):
    with pytest.raises(ValueError, match=told):
        vqvae(spaces.Dict(space), **options)


def test_codes_that_tokens_have_no_number_for_are_refused():
    with pytest.raises(ValueError, match=r"make 65,536 codes; at most 65,535 fit"):
        tokenizer(quantizer="fsq", levels=(16, 16, 16, 16))
