"""Changes to pictures that leave the right action what it was: shifted, otherwise lit, partly covered, without history.

The changes take and give uint8 (N, S, C, H, W): N samples of S stacked frames of C colours. All frames of a stack
change alike, so that motion stays what it was. What chance decides comes from ``generator``.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from agentctl.core.protocols import BaseConfig


class Augment(BaseConfig):
    """How samples are changed before they are learnt from; 0 leaves a change out."""

    shift: int = Field(0, ge=0, description="pixels that a picture moves by at most (DrQ: 4 of 84)")
    colour: float = Field(0.0, ge=0, le=1, description="how far brightness and contrast change at most")
    cutout: float = Field(0.0, ge=0, lt=1, description="side of the square that is covered, as a share of the picture")
    drop_history: float = Field(
        0.0, ge=0, le=1, description="chance that a stack shows its last frame alone: against imitating one's own past"
    )


def augmented(frames: Tensor, how: Augment, generator: torch.Generator) -> Tensor:
    """``frames``, uint8 (N, H, W), (N, S, H, W), (N, H, W, 3) or (N, S, H, W, 3), with all the changes asked for."""
    coloured = frames.ndim > 3 and frames.shape[-1] in (1, 3)
    stacks = frames.movedim(-1, 1) if coloured else frames.unsqueeze(1)  # (N, C, H, W) or (N, C, S, H, W)
    stacks = stacks.unsqueeze(2) if stacks.ndim == 4 else stacks
    stacks = stacks.transpose(1, 2)
    if how.shift:
        stacks = shifted(stacks, how.shift, generator)
    if how.colour:
        stacks = relit(stacks, how.colour, generator)
    if how.cutout:
        stacks = covered(stacks, how.cutout, generator)
    if how.drop_history:
        stacks = without_history(stacks, how.drop_history, generator)
    planes = stacks.movedim(2, -1) if coloured else stacks.squeeze(2)  # (N, S, H, W, C) or (N, S, H, W)
    return planes.reshape(frames.shape)


def shifted(frames: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Moved by up to ``most`` pixels each way, the edge repeated (Kostrikov et al. 2021, DrQ)."""
    count, *_, height, width = frames.shape
    by = torch.randint(-most, most + 1, (2, count, 1), generator=generator).to(frames.device)
    rows = (torch.arange(height, device=frames.device) + by[0]).clamp(0, height - 1)
    columns = (torch.arange(width, device=frames.device) + by[1]).clamp(0, width - 1)
    index = torch.arange(count, device=frames.device)[:, None, None]
    moved = frames.movedim((1, 2), (3, 4))[index, rows[:, :, None], columns[:, None, :]]  # (N, H, W, S, C)
    return moved.movedim((3, 4), (1, 2))


def relit(frames: Tensor, most: float, generator: torch.Generator) -> Tensor:
    """Contrast by a factor of 1 - ``most`` to 1 + ``most``, and brightness by up to that share of 255."""
    drawn = (torch.rand((2, len(frames), 1, 1, 1, 1), generator=generator) * 2 - 1).to(frames.device)
    grey = frames.float()
    return ((grey - 128) * (1 + most * drawn[0]) + 128 + 128 * most * drawn[1]).round().clamp(0, 255).to(torch.uint8)


def covered(frames: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """A square somewhere made black (DeVries and Taylor 2017, cutout)."""
    count, *_, height, width = frames.shape
    tall, wide = max(1, round(share * height)), max(1, round(share * width))
    top = torch.randint(height - tall + 1, (count, 1), generator=generator)
    left = torch.randint(width - wide + 1, (count, 1), generator=generator)
    rows, columns = torch.arange(height), torch.arange(width)
    in_rows = (rows >= top) & (rows < top + tall)
    in_columns = (columns >= left) & (columns < left + wide)
    hidden = in_rows[:, :, None] & in_columns[:, None, :]
    return frames.masked_fill(hidden[:, None, None].to(frames.device), 0)


def without_history(frames: Tensor, chance: float, generator: torch.Generator) -> Tensor:
    """Some stacks made of their last frame alone: what an action did before can then not be copied."""
    dropped = (torch.rand(len(frames), generator=generator) < chance).to(frames.device)
    return torch.where(dropped[:, None, None, None, None], frames[:, -1:].expand_as(frames), frames)
