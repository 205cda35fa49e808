"""`vqvae`: names a picture by a grid of tokens, as it learns to draw it from them. See tokenizer.py.

It predicts nothing: in its imagination nothing changes. What predicts is built on its tokens, and wants to know when
they mean something else: ``version`` counts the updates, and stays once ``frozen``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from gymnasium import spaces
from pydantic import ConfigDict, Field, field_validator
from torch import Tensor, nn

from agentctl.core.checkpoint import latest_checkpoint
from agentctl.core.nn.adam import ShardedAdam
from agentctl.core.nn.arrays import to_array, to_tensor
from agentctl.core.nn.memory import keep_freed_memory
from agentctl.core.nn.precision import Device, Precision, device_of, dtype_of, usable_cores
from agentctl.core.nn.shards import Shards
from agentctl.core.protocols import BaseConfig, Setup
from agentctl.core.types import Array, Arrays, Batch, Belief, Carry, Imagined, Loss, Metrics, Snapshot
from agentctl.world_models.rehearsal import PREFIX as REHEARSED
from agentctl.world_models.rehearsal import Rehearsal
from agentctl.world_models.tokenizer import (
    Tokenizer,
    TokenizerLoss,
    frame_shape,
    is_image,
    joined,
    newest_frame,
    tokenizer_in,
)

TOKENS = "tokens"


class LearnerConfig(BaseConfig):
    """What every model that makes tokens of pictures can be told."""

    image: str | None = Field(None, description="which of the percept's images; null: the only one")
    frozen_after: int | None = Field(None, ge=0, description="updates after which it learns no more; null: never")
    lr: float = Field(1e-3, gt=0, description="Adam's learning rate")
    max_grad_norm: float = Field(1.0, gt=0, description="longer gradients are shortened to this")
    precision: Precision = Field("auto", description="of convolutions; auto: bf16 where the hardware has it")
    device: Device = Field("auto", description="auto: the GPU if there is one")
    threads: int | None = Field(None, gt=0, description="CPU cores to use; null: all")


class VQVAE:
    class Config(LearnerConfig, Tokenizer.Config):
        model_config = ConfigDict(
            populate_by_name=True,  # `from` is a word of Python's
            serialize_by_alias=True,
            json_schema_extra={"examples": [{"codes": 16, "dim": 4, "width": 8}]},  # what checks run
        )
        from_: Path | None = Field(None, alias="from", description="a run's folder, whose tokenizer it begins with")
        rehearsal: Rehearsal.Config | None = Field(
            None, description="keeps frames for later runs, and learns from those of the run that it begins with"
        )

        @field_validator("from_")
        @classmethod
        def _absolute(cls, value: Path | None) -> Path | None:
            return value and value.absolute()  # what begins with it may be resumed from another folder

    def __init__(self, config: Config, setup: Setup) -> None:
        self.image = image_of(setup.space, config.image)
        self._shown = setup.space[self.image]
        self.tokenizer = Tokenizer(config, frame_shape(self._shown), setup.seed)
        if config.from_ is not None:
            self.tokenizer.take_over(config.from_)
        self._learner = Learner(self.tokenizer, config)
        self.nbytes = self._learner.nbytes
        self._rehearsal: Rehearsal | None = None
        if config.rehearsal is not None:
            self._rehearsal = Rehearsal(config.rehearsal, self.tokenizer.shape, setup.seed)
            if config.from_ is not None:
                self._rehearsal.take_over(tokenizer_in(latest_checkpoint(config.from_)), self._quantised)
            self.nbytes += self._rehearsal.nbytes
        self.space = spaces.Dict({TOKENS: choices(self.tokenizer.grid, self.tokenizer.codes)})

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
        """``tokens``: uint16 (B, h, w), of the newest frame where the picture is a stack."""
        frames = newest_frame(percept[self.image], self._shown)
        return Belief({}, {TOKENS: self._learner.map(self.tokenizer.encode, frames).astype(np.uint16)})

    def imagine(self, carry: Carry, state: Arrays, action: Array) -> Imagined:
        """Nothing changes, no reward, no end: a tokenizer foresees nothing."""
        return Imagined({}, state, np.zeros(len(action), np.float32), np.zeros(len(action), bool))

    def decode(self, latent: Arrays) -> Arrays:
        """The picture of tokens (B, h, w), under its name and in the shape of the percept: a stack shows it S times."""
        frames = self._learner.map(self.tokenizer.decode, latent[TOKENS].astype(np.int64))
        return {self.image: as_shown(frames, self._shown)}

    def loss(self, batch: Batch) -> Loss:
        """Of all the batch's frames, beside ``mean_error``: the error of always showing the mean of these frames."""
        return self._learner.loss(frames_of(batch, self.image, self._shown))

    def learn(self, batch: Batch) -> Metrics:
        """One update on all the batch's frames, T * B of them, and on rehearsed ones; nothing once frozen."""
        if self.frozen:
            return {}
        frames = frames_of(batch, self.image, self._shown)
        return self._learner.learn(frames if self._rehearsal is None else self._rehearsal.joined(frames))

    def save(self) -> Snapshot:
        kept = self.tokenizer.snapshot()
        rehearsed = Snapshot() if self._rehearsal is None else self._rehearsal.save()
        arrays = {**kept.arrays, **self._learner.arrays(), **rehearsed.arrays}
        return Snapshot(arrays, {**kept.data, **rehearsed.data, "updates": self._learner.updates})

    def load(self, snapshot: Snapshot) -> None:
        self.tokenizer.restore(snapshot)
        self._learner.load(snapshot.arrays, int(snapshot.data["updates"]))
        if self._rehearsal is not None and REHEARSED in snapshot.data:  # else it was switched on later
            self._rehearsal.load(snapshot)

    def _quantised(self, frames: Array) -> Array:
        """The codes that stand for frames (N, H, W, C): float32 (N, h * w * d)."""
        tokens = self._learner.map(self.tokenizer.encode, frames)
        return self._learner.map(self.tokenizer.quantizer.lookup, tokens.reshape(-1)).reshape(len(frames), -1)


class Learnable(Protocol):
    """A network that makes tokens of frames."""

    dtype: torch.dtype

    def loss(self, frames: Tensor) -> TokenizerLoss: ...

    def update(self, loss: TokenizerLoss) -> Metrics: ...


class Learner:
    """Puts a tokenizer to work in threads: each takes some of the frames."""

    def __init__(self, tokenizer: nn.Module, config: LearnerConfig) -> None:
        self._config = config
        self._device = device_of(config.device)
        self._tokenizer: Learnable = tokenizer.to(self._device)  # type: ignore[assignment]
        self._tokenizer.dtype = dtype_of(config.precision, self._device)
        self._shards = Shards((config.threads or usable_cores()) if self._device.type == "cpu" else 1)
        self._weights = list(tokenizer.parameters())
        self._adam = ShardedAdam(self._weights, [], self._shards, eps=1e-8)  # errors of pixels have small gradients
        self.updates = 0
        self.nbytes = 16 * sum(weight.numel() for weight in self._weights)  # weights, gradients, Adam's two moments

    @property
    def frozen(self) -> bool:
        return self._config.frozen_after is not None and self.updates >= self._config.frozen_after

    def map(self, function: Callable[[Tensor], Tensor], rows: Array) -> Array:
        """``function`` of all rows (N, ...)."""
        return to_array(torch.cat(self._shards.map(function, self._parts(to_tensor(rows, self._device)))))

    def loss(self, frames: Array) -> Loss:
        given = to_tensor(frames, self._device)
        found, mean_error = self._tokenizer.loss(given), (given / 255).var(0, correction=0).mean()
        return Loss(found.total, {**found.metrics, "mean_error": float(mean_error)})

    def learn(self, frames: Array) -> Metrics:
        """One update on uint8 (N, H, W, C)."""
        keep_freed_memory()
        parts = self._parts(to_tensor(frames, self._device))
        found: dict[int, TokenizerLoss] = {}

        def loss(k: int) -> tuple[Tensor, Tensor]:
            found[k] = self._tokenizer.loss(parts[k])
            share = found[k].total * (len(parts[k]) / len(frames))
            return share, share

        gradients, _ = self._shards.gradients(loss, range(len(parts)), self._weights)
        self._adam.step(gradients, self._config.lr, self._config.max_grad_norm)
        whole = joined([found[k] for k in range(len(parts))])
        self.updates += 1
        return whole.metrics | self._tokenizer.update(whole)

    def arrays(self) -> dict[str, Array]:
        return self._adam.arrays("adam")

    def load(self, arrays: Arrays, updates: int) -> None:
        self._adam.load(arrays, "adam")
        self.updates = updates

    def _parts(self, rows: Tensor) -> list[Tensor]:
        """Nearly equal ones, one for each thread."""
        return list(rows.tensor_split(min(self._shards.threads, len(rows))))


def frames_of(batch: Batch, image: str, space: spaces.Space[object]) -> Array:
    """The newest frame of every step, uint8 (T * B, H, W, C)."""
    images = batch.state[image]
    return newest_frame(images.reshape(-1, *images.shape[2:]), space)


def choices(grid: tuple[int, int], codes: int) -> spaces.MultiDiscrete:
    """A grid of tokens."""
    return spaces.MultiDiscrete(np.full(grid, codes), dtype=np.uint16)  # type: ignore[arg-type]  # any integer will do


def image_of(space: spaces.Dict, name: str | None) -> str:
    """The image to read: ``name``, or the only one. Raises ValueError naming the choices."""
    images = [key for key, part in space.spaces.items() if is_image(part)]
    if name in images:
        return name
    if name is not None:
        raise ValueError(f"image {name!r} is not among the percept's images {images}: name one of them")
    if len(images) != 1:
        remedy = "say which by `image: NAME`" if images else "switch on a perception that shows one, such as pixels"
        raise ValueError(f"a tokenizer reads one image, and the percept {sorted(space.spaces)} has {images}: {remedy}")
    return images[0]


def as_shown(frames: Array, space: spaces.Space[object]) -> Array:
    """Frames (N, H, W, C) in the shape of images of ``space``; all frames of a stack are alike."""
    shape = space.shape or ()
    plain = frames.reshape(len(frames), *shape[-2:]) if shape[-1] not in (1, 3) or len(shape) == 2 else frames
    if plain.ndim == len(shape) + 1:
        return plain
    return np.repeat(plain[:, None], shape[0], axis=1)
