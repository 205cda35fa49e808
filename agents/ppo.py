"""Proximal policy optimisation (Schulman et al. 2017, https://arxiv.org/abs/1707.06347), clipped objective.

Collect T steps of B rows with the current policy, estimate advantages (GAE, Schulman et al. 2016), then climb the
clipped objective for a few epochs of minibatches. "The 37 Implementation Details of PPO" (Huang et al. 2022) are here,
except those that belong to the game (frame skip, stack ...) or to the reward (clip, scale). Deviations:

- A step stopped by a limit (``cut``) is bootstrapped with the value of the state it stopped in, as ``ended`` is not.
- Bounded real actions are rescaled from [-1, 1] before they are clipped.
- Convolutions may run in bfloat16 (``precision``) on a copy of the float32 weights that Adam updates; heads and losses
  stay float32. Each minibatch is differentiated in parts, by ``threads`` threads at once: only rounding differs.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from agentctl.agents.on_policy import Actor, ActorConfig, Samples, annealed, explained_variance
from agentctl.core.nn.adam import ShardedAdam
from agentctl.core.nn.arrays import to_array
from agentctl.core.nn.memory import keep_freed_memory
from agentctl.core.nn.shards import one_core
from agentctl.core.protocols import Setup
from agentctl.core.types import Batch, Metrics, Snapshot


class PPO:
    class Config(ActorConfig):
        lr: float = Field(2.5e-4, gt=0, description="Adam's learning rate")
        anneal_steps: int | None = Field(None, gt=0, description="game steps over which lr falls to 0; null: constant")
        gamma: float = Field(0.99, ge=0, le=1, description="discount of future reward")
        gae_lambda: float = Field(0.95, ge=0, le=1, description="advantages: 0 trusts the critic, 1 the returns")
        epochs: int = Field(4, gt=0, description="passes over each rollout")
        minibatches: int = Field(4, gt=0, description="updates per pass; at most one per step (per row with an lstm)")
        clip: float = Field(0.2, gt=0, description="how far the probability ratio may leave 1")
        value_clip: float | None = Field(0.2, gt=0, description="how far a value may move per rollout; null: unlimited")
        entropy: float = Field(0.01, ge=0, description="weight of the entropy bonus")
        value_coef: float = Field(0.5, ge=0, description="weight of the critic's loss")
        max_grad_norm: float = Field(0.5, gt=0, description="longer gradients are shortened to this")
        normalise_advantage: bool = Field(True, description="zero mean and unit spread within each minibatch")
        target_kl: float | None = Field(None, gt=0, description="no further passes once approx_kl is above; null: all")

    experience: ClassVar[str] = "own"

    def __init__(self, config: Config, setup: Setup) -> None:
        self._config = config
        self._actor = Actor(config, setup)
        self.initial, self.act, self.explore = self._actor.initial, self._actor.act, self._actor.explore
        self.export_onnx, self.heatmaps = self._actor.export_onnx, self._actor.heatmaps
        weights = list(self._actor.net.parameters())
        self._adam = ShardedAdam(weights, self._actor.twins, self._actor.shards)
        self.nbytes = 16 * sum(p.numel() for p in weights)  # weights, gradients, Adam's two moments
        self._steps = 0  # learnt from

    @one_core()
    def learn(self, batch: Batch) -> Metrics:
        config = self._config
        if self._actor.net.sees_images:
            keep_freed_memory()
        rate = annealed(config.lr, self._steps, config.anneal_steps)
        samples = self._actor.samples(batch, config.gamma, config.gae_lambda)
        figures: list[Tensor] = []
        for _ in range(config.epochs):
            figures += self._epoch(samples, rate)
            if config.target_kl is not None and figures[-1][FIGURES.index("approx_kl")] > config.target_kl:
                break
        self._steps += batch.reward.size
        means = torch.stack(figures).mean(0).tolist()
        explained = explained_variance(batch.extras["value"], to_array(samples.target).reshape(batch.reward.shape))
        return {**dict(zip(FIGURES, means, strict=True)), "explained_variance": explained, "learning_rate": rate}

    def save(self) -> Snapshot:
        return Snapshot({**self._actor.arrays(), **self._adam.arrays("adam")}, {"steps": self._steps})

    def load(self, snapshot: Snapshot) -> None:
        self._actor.load(snapshot.arrays)
        self._adam.load(snapshot.arrays, "adam")
        self._steps = int(snapshot.data["steps"])
        self._adam.refresh()

    def _epoch(self, samples: Samples, lr: float) -> list[Tensor]:
        """One pass in random order; the figures of each update."""
        order = torch.randperm(samples.count, generator=self._actor.generator).to(self._actor.device)
        minibatches = order.tensor_split(min(self._config.minibatches, samples.count))
        return [self._update(samples, chosen, lr) for chosen in minibatches]

    def _update(self, samples: Samples, chosen: Tensor, lr: float) -> Tensor:
        advantage = samples.advantage[:, chosen]
        mean, std = advantage.mean(), advantage.std(correction=0) + 1e-8
        normalise = self._config.normalise_advantage and advantage.numel() > 1

        def loss(part: Tensor) -> tuple[Tensor, Tensor]:
            taken = samples.take(part)
            if normalise:  # by the whole minibatch, so that parts change nothing
                taken.advantage = (taken.advantage - mean) / std
            figures = self._figures(taken) / advantage.numel()
            policy_loss, value_loss, entropy = figures[:3]
            total = policy_loss + self._config.value_coef * value_loss - self._config.entropy * entropy
            return total, figures

        parts = chosen.tensor_split(min(self._actor.shards.threads, len(chosen)))
        gradients, figures = self._actor.shards.gradients(loss, parts, list(self._actor.fast.parameters()))
        self._adam.step(gradients, lr, self._config.max_grad_norm)
        return figures

    def _figures(self, old: Samples) -> Tensor:
        """Sums over the samples, in the order of ``FIGURES``, (5,)."""
        new = self._actor.fast(old.state, old.carry, old.first)
        log_ratio = new.policy.log_prob(old.choice.flatten(0, 1)) - old.log_prob.flatten()
        objective = clipped_objective(log_ratio, old.advantage.flatten(), self._config.clip)
        error = value_error(new.value, old.value.flatten(), old.target.flatten(), self._config.value_clip)
        with torch.no_grad():
            ratio = log_ratio.exp()
            kl = (ratio - 1) - log_ratio  # http://joschu.net/blog/kl-approx.html, k3
            clipped = ((ratio - 1).abs() > self._config.clip).float()
        return torch.stack([part.sum() for part in (-objective, error, new.policy.entropy(), kl, clipped)])


FIGURES = ("policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction")


def clipped_objective(log_ratio: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """Equation 7 of the paper, per sample: no gain from moving the ratio further than ``clip`` from 1."""
    ratio = log_ratio.exp()
    return torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)


def value_error(value: Tensor, old: Tensor, target: Tensor, clip: float | None) -> Tensor:
    """Half the squared error, per sample; with ``clip`` the worse of this and the one of a value held near ``old``."""
    error = (value - target) ** 2
    if clip is not None:
        held = old + (value - old).clamp(-clip, clip)
        error = torch.maximum(error, (held - target) ** 2)
    return 0.5 * error
