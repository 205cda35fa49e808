"""Frames into a small grid of whole numbers and back: the tokenizer that token world models read and write.

A convolutional autoencoder whose middle is quantised (VQ-VAE, van den Oord et al. 2017,
https://arxiv.org/abs/1711.00937). It learns squared errors of pixels in [0, 1], and beside them each frame's worst
pixel (as Delta-IRIS, https://arxiv.org/abs/2406.19320): a ball of a few pixels hardly counts in a mean. IRIS has a
perceptual loss (LPIPS) too: that needs the weights of another network, which would have to be fetched, made for photos.

Shape key: N frames of H x W pixels and C channels, h x w tokens each, M = N * h * w, d numbers a code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import torch
from gymnasium import spaces
from pydantic import Field
from torch import Tensor, nn

from agentctl.core.checkpoint import latest_checkpoint, read_checkpoint
from agentctl.core.nn.snapshot import load_module, module_arrays
from agentctl.core.protocols import BaseConfig
from agentctl.core.types import Array, Metrics, Snapshot
from agentctl.world_models.quantizers import FSQ, Codebook, perplexity
from agentctl.world_models.tiling import tiling

LAYERS = 4
"""Of the encoder and of the decoder, beside the one that makes codes and the one that reads them."""

MAX_CODES = 65_535
"""What a space of uint16 can say."""

INNER = "tokenizer/"
"""Before the names of what a model's own `vqvae` saves."""

UNSAID = {"receptive_field": "wide", "tile": None}
"""Of the layout of checkpoints that are older than these options."""

KERNELS = {"wide": ((4, 2, 1), (3, 1, 1)), "patch": ((2, 2, 0), (1, 1, 0))}
"""Size, stride and padding by the receptive field: of the encoder's layers that halve the sides, and of the others."""

Frames = TypeVar("Frames", Array, Tensor)


class Tokenizer(nn.Module):
    class Config(BaseConfig):
        quantizer: Literal["ema", "fsq"] = Field("ema", description="ema: codes that are learnt; fsq: a fixed grid")
        codes: int = Field(512, ge=2, le=MAX_CODES, description="ema: how many")
        dim: int = Field(32, gt=0, description="ema: numbers a code")
        levels: list[Annotated[int, Field(ge=2)]] = Field(
            [8, 8, 8], min_length=1, description="fsq: values of each number of a code; their product is the codes"
        )
        downsample: Literal[4, 8, 16] = Field(8, description="pixels from one token to the next, in both directions")
        receptive_field: Literal["wide", "patch"] = Field("wide", description="patch: a token tells of its own pixels")
        tile: int | None = Field(None, gt=0, description="pixels: squares of so many are each read and drawn alone")
        width: int = Field(64, ge=2, description="filters of the convolutions; the outermost have half of it")
        commitment: float = Field(0.25, ge=0, description="ema: how hard a code pulls what it stands for")
        decay: float = Field(0.99, ge=0, lt=1, description="ema: of the running means that codes are")
        revive_below: float = Field(
            0.1, ge=0, lt=1, description="ema: codes used less than this share of a mean one begin anew; 0: never"
        )
        worst_pixel: float = Field(0.01, ge=0, description="weight of each frame's worst squared error beside the mean")

    def __init__(self, config: Config, shape: tuple[int, int, int], seed: int) -> None:
        """``shape``: H, W, C of a frame. Raises ValueError for one that does not divide into tokens."""
        super().__init__()
        height, width, channels = shape
        self.grid = cut(height, width, config.downsample)
        self.tiling = tiling(shape, config.tile, config.downsample)
        self.config, self.shape = config, shape
        self.dtype = torch.float32  # that convolutions compute in; the owner may choose bfloat16
        self.quantizer: Codebook | FSQ
        if config.quantizer == "fsq":
            self.quantizer = FSQ(config.levels)
        else:
            self.quantizer = Codebook(config.codes, config.dim, config.decay, config.revive_below, seed)
        self.codes = self.quantizer.codes
        if self.codes > MAX_CODES:
            raise ValueError(f"tokenizer: levels {config.levels} make {self.codes:,} codes; at most {MAX_CODES:,} fit")
        sizes = (channels, config.width, self.quantizer.dim, config.downsample)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.encoder, self.decoder = Encoder(*sizes, config.receptive_field), Decoder(*sizes)

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        """uint8 (N, H, W, C) -> int64 (N, h, w)."""
        return self.quantizer.quantize(self._vectors(pixels(frames))).indices.reshape(-1, *self.grid)

    @torch.no_grad()
    def decode(self, tokens: Tensor) -> Tensor:
        """int64 (N, h, w) -> uint8 (N, H, W, C)."""
        shown = self._shown(self.quantizer.lookup(tokens.flatten()))
        return (255 * shown.clamp(0, 1)).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()

    def loss(self, frames: Tensor) -> TokenizerLoss:
        """Of uint8 (N, H, W, C)."""
        given = pixels(frames)
        vectors = self._vectors(given)
        quantized = self.quantizer.quantize(vectors)
        squared = (self._shown(quantized.codes) - given).square()
        reconstruction, worst = squared.mean(), squared.flatten(1).amax(1).mean()
        total = reconstruction + self.config.worst_pixel * worst + self.config.commitment * quantized.loss
        figures = torch.stack([total, reconstruction, worst, quantized.loss]).detach()
        return TokenizerLoss(total, figures, {"": Read(vectors.detach(), quantized.indices, self.codes)})

    def update(self, loss: TokenizerLoss) -> Metrics:
        """After the optimiser's step: move and revive codes. With FSQ nothing happens."""
        read = loss.read[""]
        revived = self.quantizer.update(read.vectors, read.indices)
        return {"revived": float(revived), "dead": float(self.quantizer.dead())}

    def snapshot(self) -> Snapshot:
        """All it knows, under names that begin with ``tokenizer``: a part of its owner's snapshot."""
        return Snapshot(module_arrays(self, "tokenizer"), {"tokenizer": self._layout()})

    def restore(self, snapshot: Snapshot) -> None:
        """Back to what ``snapshot`` (or its owner's) held."""
        load_module(self, snapshot.arrays, "tokenizer")

    def take_over(self, run: Path) -> None:
        """Become the tokenizer of an earlier run. Raises ValueError unless it is laid out as this one."""
        checkpoint = latest_checkpoint(run)
        found = tokenizer_in(checkpoint)
        there, here = {**UNSAID, **found.data["tokenizer"]}, self._layout()
        if changed := [name for name in here if there.get(name) != here[name]]:
            told = ", ".join(f"{name} {there.get(name)} (here {here[name]})" for name in changed)
            raise ValueError(f"from: the tokenizer of {checkpoint} has {told}: give this one the same")
        self.restore(found)

    def _layout(self) -> dict[str, Any]:
        """What the weights of one must have in common with those of another."""
        own = {"levels"} if self.config.quantizer == "fsq" else {"codes", "dim"}
        told = {"quantizer", "downsample", "receptive_field", "tile", "width"} | own
        return {"shape": list(self.shape), **self.config.model_dump(mode="json", include=told)}

    def _vectors(self, given: Tensor) -> Tensor:
        """What frames (N, C, H, W) are before they are quantised: float32 (M, d)."""
        with self._precision(given.device):
            z: Tensor = self.encoder(self.tiling.apart(given))
        return self.tiling.together(z).permute(0, 2, 3, 1).reshape(-1, self.quantizer.dim).float()

    def _shown(self, codes: Tensor) -> Tensor:
        """The frames that codes (M, d) stand for, float32 (N, C, H, W), about 0 to 1."""
        z = codes.reshape(-1, *self.grid, self.quantizer.dim).permute(0, 3, 1, 2)
        with self._precision(codes.device):
            frames: Tensor = self.decoder(self.tiling.apart(z))
        return self.tiling.together(frames).float()

    def _precision(self, device: torch.device) -> torch.autocast:
        return torch.autocast(device.type, self.dtype, enabled=self.dtype != torch.float32)


@dataclass(slots=True)
class Read:
    """What one quantiser was given, and what it made of it."""

    vectors: Tensor  # float32 (M, d)
    indices: Tensor  # int64 (M,)
    codes: int

    def metrics(self) -> Metrics:
        """Of these vectors alone, which cannot be of more codes than they are many."""
        counts = torch.bincount(self.indices, minlength=self.codes)
        return {"perplexity": float(perplexity(counts)), "unused": float((counts == 0).sum())}


@dataclass(slots=True)
class TokenizerLoss:
    """What a tokenizer minimises, and what its ``update`` learns from."""

    total: Tensor  # scalar, to differentiate
    figures: Tensor  # (4,): total, reconstruction, worst pixel, commitment; means over the frames
    read: dict[str, Read]  # by what is added to the names of its metrics

    @property
    def metrics(self) -> Metrics:
        """``reconstruction``: mean squared error of pixels in [0, 1]; ``psnr``: the same in dB, at most 100."""
        total, reconstruction, worst, commitment = self.figures.tolist()
        return {
            "loss": total,
            "reconstruction": reconstruction,
            "psnr": psnr(reconstruction),
            "worst_pixel": worst,
            "commitment": commitment,
            **{name + level: value for level, read in self.read.items() for name, value in read.metrics().items()},
        }


def joined(parts: Sequence[TokenizerLoss]) -> TokenizerLoss:
    """The loss of all frames from those of parts of them, as threads compute them. (No gradient.)"""
    first = parts[0]
    shares = torch.tensor([len(next(iter(part.read.values())).indices) for part in parts], device=first.figures.device)
    figures = (torch.stack([part.figures for part in parts]) * (shares / shares.sum())[:, None]).sum(0)
    read = {}
    for level in first.read:
        several = [part.read[level] for part in parts]
        vectors, indices = (torch.cat([getattr(read, name) for read in several]) for name in ("vectors", "indices"))
        read[level] = Read(vectors, indices, several[0].codes)
    return TokenizerLoss(figures[0], figures, read)


def tokenizer_in(checkpoint: Path) -> Snapshot:
    """What a checkpoint's world model keeps of its tokenizer. Raises ValueError when it has none."""
    found = read_checkpoint(checkpoint, only=("world_model",)).get("world_model", Snapshot())
    if inner := found.data.get(INNER):  # a model that has a whole `vqvae` inside
        arrays = {name.removeprefix(INNER): array for name, array in found.arrays.items() if name.startswith(INNER)}
        found = Snapshot(arrays, inner)
    if "tokenizer" not in found.data:
        raise ValueError(f"from: {checkpoint} holds no tokenizer: name a run whose world_model is vqvae, or has one")
    return found


class Encoder(nn.Module):
    """(N, C, H, W) -> (N, d, h, w): the first layers halve the sides; those that are wide look around as well."""

    def __init__(self, channels: int, width: int, dim: int, downsample: int, receptive_field: str) -> None:
        super().__init__()
        halving, keeping = KERNELS[receptive_field]
        layers: list[nn.Module] = []
        for place, (inside, outside) in enumerate(pairwise(widths(channels, width))):
            halves = 2 << place <= downsample
            layers += [nn.Conv2d(inside, outside, *(halving if halves else keeping)), nn.ReLU()]
        self.deep = nn.Sequential(*layers, nn.Conv2d(width, dim, 1))
        self.flat = nn.Conv2d(channels, dim, downsample, downsample)  # straight from a token's pixels

    def forward(self, frames: Tensor) -> Tensor:
        z: Tensor = self.deep(frames) + self.flat(frames)
        return z


class Decoder(nn.Module):
    """(N, d, h, w) -> (N, C, H, W): the encoder's layers backwards."""

    def __init__(self, channels: int, width: int, dim: int, downsample: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(dim, width, 1)]
        for place, (outside, inside) in reversed(list(enumerate(pairwise(widths(channels, width))))):
            doubles = 2 << place <= downsample
            layer = nn.ConvTranspose2d(inside, outside, 4, 2, 1) if doubles else nn.Conv2d(inside, outside, 3, 1, 1)
            layers += [nn.ReLU(), layer]
        self.deep = nn.Sequential(*layers)
        self.flat = nn.ConvTranspose2d(dim, channels, downsample, downsample)

    def forward(self, codes: Tensor) -> Tensor:
        frames: Tensor = self.deep(codes) + self.flat(codes)
        return frames


def widths(channels: int, width: int) -> list[int]:
    """Filters before and after each layer of the encoder."""
    return [channels, width // 2, *[width] * (LAYERS - 1)]


def cut(height: int, width: int, downsample: int) -> tuple[int, int]:
    """How many tokens a frame has: rows and columns. Raises ValueError where pixels would be left over."""
    if height % downsample or width % downsample:
        near = " x ".join(str(max(1, round(side / downsample)) * downsample) for side in (height, width))
        raise ValueError(
            f"tokenizer: frames of {height} x {width} pixels do not divide into tokens of {downsample} x {downsample}: "
            f"have the game show e.g. {near}, or choose another downsample"
        )
    return height // downsample, width // downsample


def pixels(frames: Tensor) -> Tensor:
    """uint8 (N, H, W, C) as float32 (N, C, H, W) in [0, 1]."""
    return frames.permute(0, 3, 1, 2).float() / 255


def psnr(error: float) -> float:
    """A mean squared error of values in [0, 1] in dB; without any error 100."""
    return float(-10 * np.log10(max(error, 1e-10)))


def is_image(space: spaces.Space[Any]) -> bool:
    """uint8 (H, W), (S, H, W), (H, W, C) or (S, H, W, C) with C of 1 or 3."""
    if not isinstance(space, spaces.Box) or space.dtype != np.uint8:
        return False
    return len(space.shape) in (2, 3) or (len(space.shape) == 4 and space.shape[-1] in (1, 3))


def frame_shape(space: spaces.Space[Any]) -> tuple[int, int, int]:
    """H, W, C of an image's newest frame."""
    shape = newest_frame(np.zeros((0, *(space.shape or ())), np.uint8), space).shape
    return shape[1], shape[2], shape[3]


def newest_frame(frames: Frames, space: spaces.Space[Any]) -> Frames:
    """Of images (N, ...) that lie in ``space`` the newest frame, (N, H, W, C), uncopied. The last of a stack is newest.

    A third axis of 1 or 3 is of colours, any other third axis is of pixels, behind a stack's.
    """
    shape = space.shape or ()
    coloured = len(shape) > 2 and shape[-1] in (1, 3)
    if len(shape) - coloured > 2:
        frames = frames[:, -1]
    return frames if coloured else frames[..., None]
