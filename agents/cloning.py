"""What imitators share: a network that is moved towards the actions it is shown.

Shape key: T steps of N sequences: with an LSTM as they come in the batch, else one step of T * N.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from agentctl.agents.augment import Augment, augmented
from agentctl.agents.blocks import Choices, is_image
from agentctl.agents.on_policy import Actor, ActorConfig
from agentctl.core.nn.adam import ShardedAdam
from agentctl.core.nn.arrays import to_tensor, to_tensors
from agentctl.core.nn.memory import keep_freed_memory
from agentctl.core.nn.shards import one_core
from agentctl.core.protocols import Setup
from agentctl.core.types import Array, Arrays, Batch, Metrics

LABEL = "label"
"""Among a batch's extras: the action that should have been taken, where it is not the one that was."""


class CloningConfig(ActorConfig):
    """How an imitator learns."""

    lr: float = Field(1e-3, gt=0, description="Adam's learning rate")
    entropy: float = Field(0.0, ge=0, description="weight of the entropy bonus: above 0 keeps it from being too sure")
    max_grad_norm: float = Field(10.0, gt=0, description="longer gradients are shortened to this")
    augment: Augment = Field(
        Augment.model_construct(), description="how pictures are changed before they are learnt from"
    )
    evaluate: Literal["sample", "greedy"] = Field("greedy", description="`act`: as likely as learnt, or the likeliest")


@dataclass(slots=True)
class Shown:
    """What was seen and what should be done, as T steps of N sequences, each (T, N, ...)."""

    state: dict[str, Tensor]
    carry: dict[str, Tensor]  # before the first step, each (N, size)
    first: Tensor
    choice: Tensor

    @property
    def count(self) -> int:
        return self.first.shape[1]

    def take(self, index: Tensor) -> Shown:
        """Some of the sequences."""
        return Shown(
            state={key: tensor.index_select(1, index) for key, tensor in self.state.items()},
            carry={key: tensor.index_select(0, index) for key, tensor in self.carry.items()},
            first=self.first.index_select(1, index),
            choice=self.choice.index_select(1, index),
        )


class Cloner:
    """An actor that learns by maximum likelihood. ``habit`` is what it would do without looking."""

    def __init__(self, config: CloningConfig, setup: Setup) -> None:
        self._config = config
        self.actor = Actor(config, setup)
        weights = list(self.actor.net.parameters())
        self._adam = ShardedAdam(weights, self.actor.twins, self.actor.shards, eps=1e-8)
        self.nbytes = 16 * sum(weight.numel() for weight in weights)  # weights, gradients, Adam's two moments
        self._images = [key for key, part in setup.space.spaces.items() if is_image(part)]
        head = self.actor.net.policy
        self.sizes = head.sizes if isinstance(head, Choices) else []  # alternatives of each discrete choice
        self._seen = np.zeros(sum(self.sizes) or setup.action_space.shape[0])  # type: ignore[index]
        self._count = 0

    @one_core()
    def learn(self, batch: Batch) -> Metrics:
        """One step towards ``batch.extras["label"]``, or where there is none towards ``batch.action``."""
        if self.actor.net.sees_images:
            keep_freed_memory()
        shown = self.shown(batch)
        self._grow_used_to(shown.choice)
        for key in self._images:
            frames = shown.state[key]
            changed = augmented(frames.flatten(0, 1), self._config.augment, self.actor.generator)
            shown.state[key] = changed.reshape(frames.shape)

        def loss(part: Tensor) -> tuple[Tensor, Tensor]:
            figures = self._figures(shown.take(part)) / shown.first.numel()
            return figures[0] - self._config.entropy * figures[2], figures

        index = torch.arange(shown.count, device=self.actor.device)
        parts = index.tensor_split(min(self.actor.shards.threads, shown.count))
        gradients, figures = self.actor.shards.gradients(loss, parts, list(self.actor.fast.parameters()))
        self._adam.step(gradients, self._config.lr, self._config.max_grad_norm)
        named = ("loss", "accuracy" if self.sizes else "error", "entropy")
        return dict(zip(named, figures.tolist(), strict=True))

    def shown(self, batch: Batch) -> Shown:
        steps, rows = batch.first.shape
        sequences = (steps, rows) if self._config.lstm else (1, steps * rows)
        device = self.actor.device
        label = batch.extras.get(LABEL, batch.action)
        choice = self.actor.net.policy.choice(label.reshape(steps * rows, *label.shape[2:]))

        def lay(array: Array) -> Tensor:
            return to_tensor(array, device).reshape(*sequences, *array.shape[2:])

        carry = {key: batch.carry.get(key, zeros) for key, zeros in self.actor.initial(rows).items()}
        return Shown(
            state={key: lay(array) for key, array in batch.state.items()},
            carry=to_tensors(carry, device),
            first=lay(batch.first),
            choice=to_tensor(choice, device).reshape(*sequences, choice.shape[1]),
        )

    def habit(self) -> Array:
        """The most frequent choice so far, int64 (P,), or the mean of continuous ones, float32 (P,)."""
        if not self.sizes:
            return (self._seen / max(self._count, 1)).astype(np.float32)
        parts = np.split(self._seen, np.cumsum(self.sizes)[:-1])
        return np.array([part.argmax() for part in parts])

    def arrays(self) -> dict[str, Array]:
        known = {"seen": self._seen.copy(), "count": np.array(self._count)}
        return {**self.actor.arrays(), **self._adam.arrays("adam"), **known}

    def load(self, arrays: Arrays) -> None:
        self.actor.load(arrays)
        self._adam.load(arrays, "adam")
        self._adam.refresh()
        self._seen, self._count = arrays["seen"].copy(), int(arrays["count"])

    def _figures(self, shown: Shown) -> Tensor:
        """Sums over the samples of: loss, what is right (or the mean distance of continuous choices), entropy. (3,)"""
        policy = self.actor.fast(shown.state, shown.carry, shown.first).policy
        choice = shown.choice.flatten(0, 1)
        close = (policy.mode() == choice).all(1).float() if self.sizes else (policy.mode() - choice).abs().mean(1)
        return torch.stack([-policy.log_prob(choice).sum(), close.sum().detach(), policy.entropy().sum()])

    def _grow_used_to(self, choice: Tensor) -> None:
        """Count the choices, (T, N, P)."""
        choices = choice.flatten(0, 1).cpu().numpy()
        self._count += len(choices)
        if not self.sizes:
            self._seen += choices.sum(0)
            return
        starts = np.cumsum([0, *self.sizes[:-1]])
        self._seen += np.bincount((choices + starts).ravel(), minlength=sum(self.sizes))
