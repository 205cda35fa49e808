"""How agents see: every layout alike, and each network as its paper draws it."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from agentctl.agents.vision import Convolutions, Pixels


def test_pixels_read_any_layout_alike():
    frames = torch.randint(0, 255, (2, 4, 40, 48, 3), dtype=torch.uint8)
    stacked = Pixels((4, 40, 48, 3), width=0.25)
    planes = Pixels((12, 40, 48), width=0.25)
    planes.load_state_dict(stacked.state_dict())
    torch.testing.assert_close(stacked(frames), planes(frames.permute(0, 1, 4, 2, 3).flatten(1, 2)))
    colour, gray = Pixels((40, 48, 3), width=0.25), Pixels((40, 48), width=0.25)
    assert colour(frames[:, 0]).shape == gray(frames[:, 0, :, :, 0]).shape
    assert Pixels((10, 7), width=0.25)(torch.zeros(3, 10, 7, dtype=torch.uint8)).shape == (3, 128)


@pytest.mark.parametrize(("vision", "count"), [("nature", 1_684_128), ("impala", 1_089_232)])
def test_each_has_as_many_weights_as_in_its_paper(vision, count):
    """On 4 gray frames of 84 x 84: 8x8x4x32 + 4x4x32x64 + 3x3x64x64 + 3136x512 for Mnih et al., with biases."""
    assert sum(parameter.numel() for parameter in Pixels((4, 84, 84), vision).parameters()) == count


def test_impala_is_the_network_of_its_paper():
    net, frames = Convolutions((3, 30, 26), "impala"), torch.randint(0, 255, (2, 3, 30, 26), dtype=torch.uint8)
    weights = iter(net.parameters())

    def convolve(x):
        return F.conv2d(x, next(weights), next(weights), padding=1)

    x = frames.float() / 255
    for _ in range(3):
        x = F.max_pool2d(convolve(x), 3, 2, 1)
        for _ in range(2):
            x = x + convolve(F.relu(convolve(F.relu(x))))
    torch.testing.assert_close(net(frames), F.relu(x).flatten(1), rtol=1e-3, atol=1e-4)


def test_iris_is_the_network_of_its_paper():
    """Four convolutions, each halved; nothing follows them. Sides that are no power of two are rounded up."""
    net, frames = Pixels((64, 64, 3), "iris"), torch.randint(0, 255, (2, 64, 64, 3), dtype=torch.uint8)
    weights = iter(net.parameters())
    x = frames.permute(0, 3, 1, 2).float() / 255
    for _ in range(4):
        x = F.relu(F.max_pool2d(F.conv2d(x, next(weights), next(weights), padding=1), 2))
    torch.testing.assert_close(net(frames), x.flatten(1), rtol=1e-3, atol=1e-4)
    assert next(weights, None) is None and net.features == 64 * 4 * 4
    assert sum(parameter.numel() for parameter in net.parameters()) == 9 * (3 * 32 + 32 * 32 + 32 * 64 + 64 * 64) + 192
    assert Pixels((10, 7), "iris")(torch.zeros(3, 10, 7, dtype=torch.uint8)).shape == (3, 64)
