"""Changed pictures are what a loop over their pixels would make of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from agentctl.agents import augment
from agentctl.agents.augment import Augment, augmented

SHAPES = [(5, 12, 10), (5, 4, 12, 10), (5, 12, 10, 3), (5, 4, 12, 10, 3)]


def frames(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8))


def drawn() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_a_shift_is_a_padded_crop() -> None:
    """As in the published form: pad by repeating the edge, cut out at random."""
    stacks = frames(6, 2, 3, 9, 11)
    moved = augment.shifted(stacks, 3, drawn())
    padded = np.pad(stacks.numpy(), ((0, 0), (0, 0), (0, 0), (3, 3), (3, 3)), mode="edge")
    places = set()
    for before, after in zip(padded, moved.numpy(), strict=True):
        found = [
            (y, x) for y in range(7) for x in range(7) if np.array_equal(before[..., y : y + 9, x : x + 11], after)
        ]
        assert len(found) == 1
        places.add(found[0])
    assert len(places) > 1


def test_light_changes_every_pixel_of_a_sample_alike() -> None:
    stacks = frames(8, 2, 1, 6, 6)
    relit = augment.relit(stacks, 0.3, drawn()).numpy().astype(float)
    for before, after in zip(stacks.numpy().astype(float), relit, strict=True):
        inside = (after > 0) & (after < 255)
        slope, offset = np.polyfit(before[inside], after[inside], 1)
        assert 0.7 <= slope <= 1.3
        assert np.abs(after - np.clip(slope * before + offset, 0, 255)).max() <= 1


def test_one_square_is_covered_in_all_frames_of_a_stack() -> None:
    stacks = torch.full((50, 2, 3, 8, 12), 9, dtype=torch.uint8)
    hidden = (augment.covered(stacks, 0.5, drawn()) == 0).numpy()
    assert (hidden == hidden[:, :1, :1]).all()
    rows, columns = hidden[:, 0, 0].any(axis=2), hidden[:, 0, 0].any(axis=1)
    assert (rows.sum(1) == 4).all()
    assert (columns.sum(1) == 6).all()
    assert (hidden[:, 0, 0] == rows[:, :, None] & columns[:, None, :]).all()
    assert len({tuple(row) for row in rows}) == 5  # every place


def test_a_dropped_history_leaves_the_last_frame_alone() -> None:
    stacks = frames(400, 4, 1, 3, 3)
    changed = augment.without_history(stacks, 0.25, drawn())
    dropped = (changed == stacks[:, -1:]).flatten(1).all(1)
    assert 70 <= int(dropped.sum()) <= 130
    assert torch.equal(changed[~dropped], stacks[~dropped])


@pytest.mark.parametrize("shape", SHAPES)
def test_every_layout_of_pictures_is_changed_alike(shape: tuple[int, ...]) -> None:
    """A stack of coloured frames, each layout cut out of it, gives the same pictures."""
    how = Augment.model_validate({"shift": 2, "colour": 0.2, "cutout": 0.3})
    whole = frames(5, 4, 12, 10, 3)
    picture = whole
    if len(shape) == 3 or (len(shape) == 4 and shape[-1] == 3):
        picture = picture[:, -1]
    if shape[-1] != 3:
        picture = picture[..., 0]
    changed, reference = augmented(picture, how, drawn()), augmented(whole, how, drawn())
    if shape[-1] != 3:
        reference = reference[..., 0]
    reference = reference if len(shape) == reference.ndim else reference[:, -1]
    assert changed.shape == shape
    assert torch.equal(changed, reference)


def test_nothing_asked_for_changes_nothing() -> None:
    picture = frames(5, 4, 12, 10)
    assert torch.equal(augmented(picture, Augment.model_validate({}), drawn()), picture)


def test_changes_happen_where_the_pictures_are() -> None:
    """Chance is drawn on the CPU; torch's meta device, which holds no numbers, refuses to mix as a GPU does."""
    picture = torch.empty(5, 4, 12, 10, 3, dtype=torch.uint8, device="meta")
    how = Augment.model_validate({"shift": 2, "colour": 0.2, "cutout": 0.3, "drop_history": 0.5})
    assert augmented(picture, how, drawn()).device.type == "meta"
