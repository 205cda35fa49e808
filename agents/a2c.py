"""Advantage actor-critic (Mnih et al. 2016, https://arxiv.org/abs/1602.01783), the synchronous form.

A few steps of all rows, one gradient of all of them, RMSProp, anew: no clipping, no second pass. With rollouts of 5
steps, ``gae_lambda: 1`` gives the paper's n-step advantages. Deviation: a step that a limit cut is bootstrapped with
the value of the state it stopped in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from agentctl.agents.on_policy import Actor, ActorConfig, Samples, annealed, explained_variance
from agentctl.core.nn.arrays import to_array
from agentctl.core.nn.memory import keep_freed_memory
from agentctl.core.nn.shards import one_core
from agentctl.core.protocols import Setup
from agentctl.core.types import Array, Batch, Metrics, Snapshot


class A2C:
    class Config(ActorConfig):
        lr: float = Field(7e-4, gt=0, description="RMSProp's learning rate")
        anneal_steps: int | None = Field(None, gt=0, description="game steps over which lr falls to 0; null: constant")
        gamma: float = Field(0.99, ge=0, le=1, description="discount of future reward")
        gae_lambda: float = Field(1.0, ge=0, le=1, description="advantages: 0 trusts the critic, 1 the returns")
        entropy: float = Field(0.01, ge=0, description="weight of the entropy bonus")
        value_coef: float = Field(0.5, ge=0, description="weight of the critic's loss, half the squared error")
        max_grad_norm: float = Field(0.5, gt=0, description="longer gradients are shortened to this")
        decay: float = Field(0.99, ge=0, lt=1, description="RMSProp: how much of its mean square stays")
        eps: float = Field(1e-5, gt=0, description="RMSProp's epsilon")

    experience: ClassVar[str] = "own"

    def __init__(self, config: Config, setup: Setup) -> None:
        self._config = config
        self._actor = Actor(config, setup)
        self.initial, self.act, self.explore = self._actor.initial, self._actor.act, self._actor.explore
        self.export_onnx, self.heatmaps = self._actor.export_onnx, self._actor.heatmaps
        self._weights = list(self._actor.net.parameters())
        self._squares = [torch.zeros_like(weight) for weight in self._weights]
        self.nbytes = 12 * sum(weight.numel() for weight in self._weights)  # weights, gradients, mean squares
        self._steps = 0  # learnt from

    @one_core()
    def learn(self, batch: Batch) -> Metrics:
        rate = annealed(self._config.lr, self._steps, self._config.anneal_steps)
        gradients, metrics = differentiate(self._actor, batch, self._config)
        rmsprop(self._weights, gradients, self._squares, rate, self._config)
        self._actor.refresh()
        self._steps += batch.reward.size
        return {**metrics, "learning_rate": rate}

    def save(self) -> Snapshot:
        squares: dict[str, Array] = {f"rmsprop/{i}": square.cpu().numpy() for i, square in enumerate(self._squares)}
        return Snapshot({**self._actor.arrays(), **squares}, {"steps": self._steps})

    def load(self, snapshot: Snapshot) -> None:
        self._actor.load(snapshot.arrays)
        for i, square in enumerate(self._squares):
            square.copy_(torch.from_numpy(snapshot.arrays[f"rmsprop/{i}"]))
        self._steps = int(snapshot.data["steps"])
        self._actor.refresh()


FIGURES = ("policy_loss", "value_loss", "entropy")


def differentiate(actor: Actor, batch: Batch, config: A2C.Config) -> tuple[list[Tensor], Metrics]:
    """The gradients of a rollout's loss, mean over its steps, in the order of the parameters; and what explains it."""
    if actor.net.sees_images:
        keep_freed_memory()
    samples = actor.samples(batch, config.gamma, config.gae_lambda)

    def loss(part: Tensor) -> tuple[Tensor, Tensor]:
        figures = _figures(actor, samples.take(part)) / samples.advantage.numel()
        policy_loss, value_loss, entropy = figures
        return policy_loss + config.value_coef * value_loss - config.entropy * entropy, figures

    parts = torch.arange(samples.count, device=actor.device).tensor_split(min(actor.shards.threads, samples.count))
    gradients, figures = actor.shards.gradients(loss, parts, list(actor.fast.parameters()))
    summed = [torch.stack([part.float() for part in parts]).sum(0) for parts in zip(*gradients, strict=True)]
    explained = explained_variance(batch.extras["value"], to_array(samples.target).reshape(batch.reward.shape))
    return summed, {**dict(zip(FIGURES, figures.tolist(), strict=True)), "explained_variance": explained}


def _figures(actor: Actor, old: Samples) -> Tensor:
    """Sums over the samples, in the order of ``FIGURES``, (3,)."""
    new = actor.fast(old.state, old.carry, old.first)
    policy_loss = -new.policy.log_prob(old.choice.flatten(0, 1)) * old.advantage.flatten()
    error = 0.5 * (new.value - old.target.flatten()) ** 2
    return torch.stack([part.sum() for part in (policy_loss, error, new.policy.entropy())])


@torch.no_grad()
def rmsprop(
    weights: Sequence[Tensor], gradients: Sequence[Tensor], squares: Sequence[Tensor], lr: float, config: A2C.Config
) -> None:
    """RMSProp (Tieleman and Hinton 2012), by the gradients shortened to ``max_grad_norm``. All three are changed."""
    length = torch.stack([gradient.norm() for gradient in gradients]).norm()
    scale = (config.max_grad_norm / (length + 1e-6)).clamp(max=1.0)
    for weight, gradient, square in zip(weights, gradients, squares, strict=True):
        gradient *= scale
        square.mul_(config.decay).addcmul_(gradient, gradient, value=1 - config.decay)
        weight.addcdiv_(gradient, square.sqrt().add_(config.eps), value=-lr)
