"""`vqvae2`: tokens of two levels (VQ-VAE-2, Razavi et al. 2019, https://arxiv.org/abs/1906.00446), for large pictures.

The top has a token for every 8 pixels and says what goes where; the bottom, one for every 4, is told that and adds the
detail. Both are drawn together. Deviations: plain convolutions where the paper has residual blocks, and revived codes.

Shape key: N frames of H x W pixels and C channels, (h, w) tokens at the top, (2h, 2w) at the bottom, F filters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from gymnasium import spaces
from pydantic import ConfigDict, Field
from torch import Tensor, nn

from agentctl.core.nn.snapshot import load_module, module_arrays
from agentctl.core.protocols import BaseConfig, Setup
from agentctl.core.types import Array, Arrays, Batch, Belief, Carry, Imagined, Loss, Metrics, Snapshot
from agentctl.world_models.quantizers import Codebook, Quantized
from agentctl.world_models.tokenizer import MAX_CODES, Read, TokenizerLoss, cut, frame_shape, newest_frame, pixels
from agentctl.world_models.vqvae import Learner, LearnerConfig, as_shown, choices, frames_of, image_of

TOP, BOTTOM = "tokens_top", "tokens"


@dataclass(slots=True)
class Level:
    """One level of a picture: float32 maps (N, d, h, w) of codes, and what the quantiser made them of."""

    codes: Tensor
    read: Read
    loss: Tensor  # scalar


class TwoLevels(nn.Module):
    class Config(BaseConfig):
        codes: int = Field(512, ge=2, le=MAX_CODES, description="of each level")
        dim: int = Field(32, gt=0, description="numbers a code")
        width: int = Field(64, ge=2, description="filters of the convolutions; the outermost have half of it")
        commitment: float = Field(0.25, ge=0, description="how hard a code pulls what it stands for")
        decay: float = Field(0.99, ge=0, lt=1, description="of the running means that codes are")
        revive_below: float = Field(
            0.1, ge=0, lt=1, description="codes used less than this share of a mean one begin anew; 0: never"
        )
        worst_pixel: float = Field(0.01, ge=0, description="weight of each frame's worst squared error beside the mean")

    def __init__(self, config: Config, shape: tuple[int, int, int], seed: int) -> None:
        """``shape``: H, W, C of a frame. Raises ValueError for one that does not divide by 8."""
        super().__init__()
        height, width, channels = shape
        self.grid = cut(height, width, 8)
        self.config, self.dtype = config, torch.float32
        options = (config.codes, config.dim, config.decay, config.revive_below)
        self.top, self.bottom = Codebook(*options, seed), Codebook(*options, seed + 1)
        filters, half, dim = config.width, config.width // 2, config.dim
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.fine = nn.Sequential(halve(channels, half), nn.ReLU(), halve(half, filters), nn.ReLU(), look(filters))
            self.coarse = nn.Sequential(nn.ReLU(), halve(filters, filters), nn.ReLU(), look(filters))
            self.to_top = nn.Conv2d(filters, dim, 1)
            self.told = nn.Sequential(look(dim, filters), nn.ReLU(), double(filters, filters))
            self.to_bottom = nn.Conv2d(2 * filters, dim, 1)
            self.raised = double(dim, dim)
            self.draw = nn.Sequential(
                look(2 * dim, filters), nn.ReLU(), double(filters, half), nn.ReLU(), double(half, channels)
            )
            self.straight = nn.ModuleDict(
                {
                    "to_top": nn.Conv2d(channels, dim, 8, 8),
                    "to_bottom": nn.Conv2d(channels, dim, 4, 4),
                    "told": nn.ConvTranspose2d(dim, dim, 2, 2),
                    "from_top": nn.ConvTranspose2d(dim, channels, 8, 8),
                    "from_bottom": nn.ConvTranspose2d(dim, channels, 4, 4),
                }
            )  # as in tokenizer.py: what is linear is learnt at once

    def read(self, given: Tensor) -> tuple[Level, Level]:
        """The top and the bottom of frames, (N, C, H, W) in [0, 1]."""
        with self._precision(given.device):
            fine = self.fine(given)
            z = self.to_top(self.coarse(fine)) + self.straight["to_top"](given)
        top = quantized(self.top, z.float())
        with self._precision(given.device):
            seen = torch.relu(torch.cat([fine, self.told(top.codes)], dim=1))
            z = self.to_bottom(seen) + self.straight["to_bottom"](given) + self.straight["told"](top.codes)
        return top, quantized(self.bottom, z.float())

    def shown(self, top: Tensor, bottom: Tensor) -> Tensor:
        """The frames that maps of codes stand for, float32 (N, C, H, W), about 0 to 1."""
        with self._precision(top.device):
            frames: Tensor = self.draw(torch.cat([self.raised(top), bottom], dim=1))
            frames = frames + self.straight["from_top"](top) + self.straight["from_bottom"](bottom)
        return frames.float()

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        """uint8 (N, H, W, C) -> int64 (N, 5 * h * w): the top's tokens row by row, then the bottom's."""
        levels = self.read(pixels(frames))
        return torch.cat([level.read.indices.reshape(len(frames), -1) for level in levels], dim=1)

    @torch.no_grad()
    def decode(self, tokens: Tensor) -> Tensor:
        """int64 (N, 5 * h * w) -> uint8 (N, H, W, C)."""
        (h, w), count = self.grid, self.grid[0] * self.grid[1]
        top = self.top.lookup(tokens[:, :count].flatten()).reshape(-1, h, w, self.top.dim)
        bottom = self.bottom.lookup(tokens[:, count:].flatten()).reshape(-1, 2 * h, 2 * w, self.bottom.dim)
        shown = self.shown(top.permute(0, 3, 1, 2), bottom.permute(0, 3, 1, 2))
        return (255 * shown.clamp(0, 1)).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()

    def loss(self, frames: Tensor) -> TokenizerLoss:
        """Of uint8 (N, H, W, C)."""
        given = pixels(frames)
        top, bottom = self.read(given)
        squared = (self.shown(top.codes, bottom.codes) - given).square()
        reconstruction, worst, commitment = squared.mean(), squared.flatten(1).amax(1).mean(), top.loss + bottom.loss
        total = reconstruction + self.config.worst_pixel * worst + self.config.commitment * commitment
        figures = torch.stack([total, reconstruction, worst, commitment]).detach()
        return TokenizerLoss(total, figures, {"": bottom.read, "_top": top.read})

    def update(self, loss: TokenizerLoss) -> Metrics:
        """After the optimiser's step: move and revive the codes of both levels."""
        metrics: Metrics = {}
        for level, book in (("", self.bottom), ("_top", self.top)):
            read = loss.read[level]
            metrics[f"revived{level}"] = float(book.update(read.vectors, read.indices))
            metrics[f"dead{level}"] = float(book.dead())
        return metrics

    def _precision(self, device: torch.device) -> torch.autocast:
        return torch.autocast(device.type, self.dtype, enabled=self.dtype != torch.float32)


class VQVAE2:
    class Config(LearnerConfig, TwoLevels.Config):
        model_config = ConfigDict(json_schema_extra={"examples": [{"codes": 16, "dim": 4, "width": 8}]})

    def __init__(self, config: Config, setup: Setup) -> None:
        self.image = image_of(setup.space, config.image)
        self._shown = setup.space[self.image]
        self.tokenizer = TwoLevels(config, frame_shape(self._shown), setup.seed)
        self._learner = Learner(self.tokenizer, config)
        self.nbytes = self._learner.nbytes
        h, w = self.tokenizer.grid
        self.space = spaces.Dict({TOP: choices((h, w), config.codes), BOTTOM: choices((2 * h, 2 * w), config.codes)})

    @classmethod
    def example_setup(cls) -> Setup:
        """What checks build it on: pictures that are quickly read."""
        return Setup(spaces.Dict({"picture": spaces.Box(0, 255, (16, 24, 3), np.uint8)}), spaces.Discrete(4))

    @property
    def version(self) -> int:
        """Updates of what a token stands for."""
        return self._learner.updates

    @property
    def frozen(self) -> bool:
        """Whether it learns no more."""
        return self._learner.frozen

    def initial(self, batch: int) -> Carry:
        return {}

    def observe(self, carry: Carry, percept: Arrays, action: Array | None, first: Array) -> Belief:
        """``tokens_top`` uint16 (B, h, w) and ``tokens`` uint16 (B, 2h, 2w)."""
        found = self._learner.map(self.tokenizer.encode, newest_frame(percept[self.image], self._shown))
        (h, w), tokens = self.tokenizer.grid, found.astype(np.uint16)
        top, bottom = np.split(tokens, [h * w], axis=1)
        return Belief({}, {TOP: top.reshape(-1, h, w), BOTTOM: bottom.reshape(-1, 2 * h, 2 * w)})

    def imagine(self, carry: Carry, state: Arrays, action: Array) -> Imagined:
        """Nothing changes, no reward, no end: a tokenizer foresees nothing."""
        return Imagined({}, state, np.zeros(len(action), np.float32), np.zeros(len(action), bool))

    def decode(self, latent: Arrays) -> Arrays:
        """The picture of both levels' tokens, as `vqvae` gives it."""
        tokens = [latent[name].reshape(len(latent[name]), -1).astype(np.int64) for name in (TOP, BOTTOM)]
        return {self.image: as_shown(self._learner.map(self.tokenizer.decode, np.hstack(tokens)), self._shown)}

    def loss(self, batch: Batch) -> Loss:
        """As of `vqvae`."""
        return self._learner.loss(frames_of(batch, self.image, self._shown))

    def learn(self, batch: Batch) -> Metrics:
        """One update on all the batch's frames, T * B of them; nothing once frozen."""
        return {} if self.frozen else self._learner.learn(frames_of(batch, self.image, self._shown))

    def save(self) -> Snapshot:
        arrays = {**module_arrays(self.tokenizer, "two_levels"), **self._learner.arrays()}
        return Snapshot(arrays, {"updates": self._learner.updates})

    def load(self, snapshot: Snapshot) -> None:
        load_module(self.tokenizer, snapshot.arrays, "two_levels")
        self._learner.load(snapshot.arrays, int(snapshot.data["updates"]))


def quantized(book: Codebook, z: Tensor) -> Level:
    """Of maps (N, d, h, w)."""
    vectors = z.permute(0, 2, 3, 1).reshape(-1, book.dim)
    found: Quantized = book.quantize(vectors)
    codes = found.codes.reshape(len(z), *z.shape[2:], book.dim).permute(0, 3, 1, 2)
    return Level(codes, Read(vectors.detach(), found.indices, book.codes), found.loss)


def halve(inside: int, outside: int) -> nn.Conv2d:
    return nn.Conv2d(inside, outside, 4, 2, 1)


def double(inside: int, outside: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(inside, outside, 4, 2, 1)


def look(inside: int, outside: int | None = None) -> nn.Conv2d:
    """At the neighbours."""
    return nn.Conv2d(inside, outside or inside, 3, 1, 1)
