"""Tokens of two levels: what each of them holds of a picture, and that nothing is lost on the way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces
from pictures import batch_of, differing, scenes, shapes, train
from torch.nn import functional as F

from agentctl.core.protocols import Setup
from agentctl.world_models.tokenizer import Tokenizer, pixels
from agentctl.world_models.vqvae2 import VQVAE2, TwoLevels

SMALL = {"codes": 128, "dim": 16, "width": 16}


def two_levels(side=32, **config):
    return TwoLevels(TwoLevels.Config.model_validate({**SMALL, **config}), (side, side, 3), seed=0)


def low(frames):
    """What is left of frames (N, C, H, W) when every 8 x 8 pixels become their mean."""
    return F.interpolate(F.avg_pool2d(frames, 8), scale_factor=8)


@pytest.fixture(scope="module")
def learnt():
    made = two_levels()
    train(made, scenes(1500, 0), 150, batch=32)
    return made


def test_the_top_holds_low_frequencies_and_the_bottom_the_high_ones(learnt):
    """The codes of a level are replaced by their mean, which says nothing of the picture."""
    held_out, low_error, high_error = pixels(scenes(200, 1)), {}, {}
    with torch.no_grad():
        top, bottom = (level.codes for level in learnt.read(held_out))
        for name, codes in {
            "both": (top, bottom),
            "no top": (top.mean((0, 2, 3), keepdim=True).expand_as(top), bottom),
            "no bottom": (top, bottom.mean((0, 2, 3), keepdim=True).expand_as(bottom)),
        }.items():
            off = learnt.shown(*codes) - held_out
            low_error[name] = float(low(off).square().mean())
            high_error[name] = float(off.square().mean()) - low_error[name]
            print(f"{name}: error in low frequencies {low_error[name]:.4f}, in high ones {high_error[name]:.4f}")
    assert low_error["no top"] > 5 * low_error["both"]
    assert high_error["no bottom"] - high_error["both"] > 3 * (high_error["no top"] - high_error["both"]) > 0


def test_two_levels_draw_better_than_the_top_alone(learnt):
    frames, held_out, errors = scenes(1500, 0), scenes(200, 1), []
    alone = Tokenizer(Tokenizer.Config.model_validate({**SMALL, "downsample": 8}), (32, 32, 3), seed=0)
    train(alone, frames, 150, batch=32)
    for made in (learnt, alone):
        shown = made.decode(made.encode(held_out))
        errors.append(float(((shown.float() - held_out.float()) / 255).square().mean()))
    print(f"error with two levels {errors[0]:.4f}, with 4 x 4 tokens alone {errors[1]:.4f}")
    assert errors[0] < 0.7 * errors[1]


def test_levels_come_apart_and_together_as_they_were():
    space = spaces.Dict({"picture": spaces.Box(0, 255, (16, 24, 3), np.uint8)})
    made = VQVAE2(VQVAE2.Config.model_validate({**SMALL, "threads": 1}), Setup(space, seed=1))
    frames = torch.randint(0, 256, (6, 16, 24, 3), dtype=torch.uint8)
    for k in range(3):
        made.learn(batch_of(shapes(8, k, side=24)[:, :16]))
    latent = made.observe({}, {"picture": frames.numpy()}, None, np.ones(6, bool)).latent
    assert latent["tokens_top"].shape == (6, 2, 3) and latent["tokens"].shape == (6, 4, 6)
    with torch.no_grad():
        top, bottom = made.tokenizer.read(pixels(frames))
        shown = made.tokenizer.shown(top.codes, bottom.codes)
    assert (latent["tokens_top"].ravel() == top.read.indices.numpy()).all()
    assert (latent["tokens"].ravel() == bottom.read.indices.numpy()).all()
    expected = (255 * shown.clamp(0, 1)).permute(0, 2, 3, 1).numpy()
    assert np.abs(made.decode(latent)["picture"] - expected).max() <= 0.51


def test_what_is_loaded_goes_on_to_the_bit():
    space = spaces.Dict({"picture": spaces.Box(0, 255, (16, 16, 3), np.uint8)})
    options = VQVAE2.Config.model_validate({**SMALL, "revive_below": 0.9, "threads": 2})
    made, twin = (VQVAE2(options, Setup(space, seed=seed)) for seed in (1, 2))
    for k in range(4):
        made.learn(batch_of(shapes(8, k)))
    twin.load(made.save())
    for k in range(4, 10):
        assert made.learn(batch_of(shapes(8, k))) == twin.learn(batch_of(shapes(8, k)))
    assert differing(made.save(), twin.save()) == []


def test_sizes_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="36 x 36 pixels do not divide into tokens of 8 x 8"):
        two_levels(side=36)
