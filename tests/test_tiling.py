"""A frame in tiles is what its tiles are by themselves."""

from __future__ import annotations

import pytest
import torch
from pictures import shapes, train

from agentctl.world_models.tokenizer import Tokenizer, pixels

SMALL = {"codes": 64, "dim": 8, "width": 16, "downsample": 4}


def tokenizer(height: int, width: int, **config: object) -> Tokenizer:
    return Tokenizer(Tokenizer.Config.model_validate({**SMALL, **config}), (height, width, 3), seed=0)


def quarters(frames: torch.Tensor) -> list[torch.Tensor]:
    return [frames[:, y : y + 16, x : x + 16] for y in (0, 16) for x in (0, 16)]


def test_a_tile_is_read_and_drawn_as_a_frame_of_its_own() -> None:
    small, large = tokenizer(16, 16), tokenizer(32, 32, tile=16)
    train(small, shapes(200, 0, side=16), 20)
    large.load_state_dict(small.state_dict())
    frames = shapes(20, 1, side=32)
    tokens = large.encode(frames)
    assert tokens.shape == (20, 8, 8) and tokens.unique().numel() > 4
    shown = large.decode(tokens)
    own = [small.encode(quarter) for quarter in quarters(frames)]
    assert torch.equal(torch.cat([torch.cat(own[:2], 2), torch.cat(own[2:], 2)], 1), tokens)
    for ours, alone in zip(quarters(shown), own, strict=True):
        assert torch.equal(ours, small.decode(alone))


def test_it_learns_from_a_frame_what_it_does_from_its_tiles() -> None:
    """Worst pixels aside, which are those of frames."""
    small, large = tokenizer(16, 16, worst_pixel=0.0), tokenizer(32, 32, worst_pixel=0.0, tile=16)
    train(small, shapes(200, 0, side=16), 2)  # which draws the first codes
    large.load_state_dict(small.state_dict())
    frames = shapes(20, 1, side=32)
    pairs = [(large.loss(frames), large), (small.loss(torch.cat(quarters(frames))), small)]
    torch.testing.assert_close(pairs[0][0].total, pairs[1][0].total)
    ours, alone = (torch.autograd.grad(loss.total, list(made.parameters())) for loss, made in pairs)
    torch.testing.assert_close(ours, alone)


def test_a_token_depends_on_its_own_tile_alone() -> None:
    """Of a whole frame, a wide receptive field sees across the edge."""
    frames = shapes(20, 1, side=32)
    changed = frames.clone()
    changed[:, :, :16] = frames[:, :, :16].flip(0)
    moved = {}
    for tile in (None, 16):
        made = tokenizer(32, 32, tile=tile)
        before, after = (made._vectors(pixels(seen)).unflatten(0, (20, 8, 8)) for seen in (frames, changed))
        moved[tile] = bool((before != after)[:, :, 4:].any())
    assert moved == {None: True, 16: False}


@pytest.mark.parametrize(("tile", "downsample"), [(20, 4), (8, 16)])
def test_tiles_that_leave_something_over_are_refused(tile: int, downsample: int) -> None:
    with pytest.raises(ValueError, match="choose another tile, or null"):
        tokenizer(32, 32, tile=tile, downsample=downsample)
