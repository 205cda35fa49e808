"""Pictures for tests of what makes tokens of them, and how they are learnt from."""

from __future__ import annotations

import numpy as np
import torch

from agentctl.core.types import Batch, Snapshot

BALL = (250, 220, 60)
COLOURS = np.random.default_rng(0).integers(64, 256, (8, 3))


def shapes(count, seed, side=16):
    """Pictures of one to three squares, discs and crosses in one of eight colours, uint8 (N, side, side, 3)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    frames = np.full((count, side, side, 3), 24, np.uint8)
    for frame in frames:
        for _ in range(rng.integers(1, 4)):
            top, left, size = (*rng.integers(0, side - 4, 2), rng.integers(3, 7))
            dy, dx = np.abs(y - top - size / 2), np.abs(x - left - size / 2)
            kind = rng.integers(3)
            inside = [np.maximum(dy, dx) < size / 2, np.hypot(dy, dx) < size / 2, np.minimum(dy, dx) < 1][kind]
            frame[inside & (np.maximum(dy, dx) < size)] = COLOURS[rng.integers(8)]
    return torch.from_numpy(frames)


def balls(count, seed, cells=16):
    """A ball of one cell and a paddle of four on a board of cells of 4 pixels, uint8 (N, 4 cells, 4 cells, 3)."""
    rng = np.random.default_rng(seed)
    boards = np.full((count, cells, cells, 3), 20, np.uint8)
    rows = np.arange(count)
    boards[rows, rng.integers(0, cells - 1, count), rng.integers(0, cells, count)] = BALL
    paddle = rng.integers(0, cells - 3, count)
    for cell in range(4):
        boards[rows, cells - 1, paddle + cell] = (60, 160, 250)
    return torch.from_numpy(boards.repeat(4, axis=1).repeat(4, axis=2))


def scenes(count, seed):
    """Shapes on a background that runs from one colour to another, uint8 (N, 32, 32, 3)."""
    rng = np.random.default_rng(seed)
    ends, across = rng.integers(0, 200, (2, count, 1, 1, 3)), np.linspace(0, 1, 32)[:, None, None]
    ground = ends[0] * across + ends[1] * (1 - across)
    drawn = shapes(count, seed, side=32).numpy()
    return torch.from_numpy(np.where((drawn == 24).all(-1, keepdims=True), ground, drawn).astype(np.uint8))


def train(made, frames, steps, batch=64, lr=3e-3):
    """Plain Adam; returns the losses."""
    optimiser, draw, losses = torch.optim.Adam(made.parameters(), lr), torch.Generator().manual_seed(1), []
    for _ in range(steps):
        loss = made.loss(frames[torch.randint(len(frames), (batch,), generator=draw)])
        optimiser.zero_grad()
        loss.total.backward()
        optimiser.step()
        made.update(loss)
        losses.append(loss.metrics["reconstruction"])
    return losses


def batch_of(frames, name="picture"):
    """T = 2 steps of as many rows as there are."""
    images = frames.numpy().reshape(2, -1, *frames.shape[1:])
    zeros = np.zeros(images.shape[:2])
    return Batch(
        state={name: images}, first=zeros > 0, action=zeros.astype(int), reward=zeros.astype(np.float32),
        ended=zeros > 0, cut=zeros > 0, extras={}, carry={}, next_state={name: images[-1]},
        final_index=np.zeros((0, 2), np.int64), final_state={name: images[0, :0]},
    )  # fmt: skip


def differing(one: Snapshot, other: Snapshot):
    assert one.data == other.data
    return [name for name in one.arrays if one.arrays[name].tobytes() != other.arrays[name].tobytes()]
