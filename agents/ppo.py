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

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from agentctl.agents.actor_critic import ActorCritic, Opinion, lowered
from agentctl.core.nn.adam import ShardedAdam
from agentctl.core.nn.arrays import to_array, to_arrays, to_tensor, to_tensors
from agentctl.core.nn.memory import keep_freed_memory
from agentctl.core.nn.precision import Device, Precision, device_of, dtype_of, usable_cores
from agentctl.core.nn.shards import Shards, one_core
from agentctl.core.nn.snapshot import generator_array, load_generator, load_module, module_arrays
from agentctl.core.protocols import BaseConfig, Setup
from agentctl.core.types import Array, Arrays, Batch, Carry, Decision, Metrics, Snapshot


class PPO:
    class Config(BaseConfig):
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
        hidden: tuple[PositiveInt, ...] = Field((64, 64), min_length=1, description="layers that read numbers")
        width: float = Field(1.0, gt=0, description="multiplies the filters and features of the image network")
        lstm: int = Field(0, ge=0, description="size of the recurrent layer; 0: none")
        precision: Precision = Field("auto", description="of convolutions; auto: bf16 where the hardware has it")
        device: Device = Field("auto", description="auto: the GPU if there is one")
        threads: int | None = Field(None, gt=0, description="CPU cores to use; null: all for images, else one")
        evaluate: Literal["sample", "greedy"] = Field("sample", description="`act`: as trained, or the likeliest")

    def __init__(self, config: Config, setup: Setup) -> None:
        self._config = config
        self._device = device_of(config.device)
        with one_core(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(setup.seed)
            self.net = ActorCritic(setup, config.hidden, config.width, config.lstm).to(self._device)
        self._fast = lowered(self.net, dtype_of(config.precision, self._device))
        self._shards = Shards(self._threads())
        twins = [] if self._fast is self.net else list(self._fast.parameters())
        self._adam = ShardedAdam(list(self.net.parameters()), twins, self._shards)
        self._generator = torch.Generator().manual_seed(setup.seed)
        self._act_generator = torch.Generator().manual_seed(setup.seed + 1)  # evaluating does not disturb training
        self.nbytes = 16 * sum(p.numel() for p in self.net.parameters())  # weights, gradients, Adam's two moments
        self._steps = 0  # learnt from

    def initial(self, batch: int) -> Carry:
        size = self._config.lstm
        return {key: np.zeros((batch, size), np.float32) for key in ("h", "c")} if size else {}

    @one_core()
    @torch.inference_mode()
    def act(self, carry: Carry, state: Arrays, first: Array) -> Decision:
        opinion = self._opinion(carry, state, first)
        greedy = self._config.evaluate == "greedy"
        choice = opinion.policy.mode() if greedy else opinion.policy.sample(self._act_generator)
        return Decision(self.net.policy.action(to_array(choice)), to_arrays(opinion.carry))

    @one_core()
    @torch.inference_mode()
    def explore(self, carry: Carry, state: Arrays, first: Array) -> Decision:
        """Extras: ``choice`` (B, n), before it became ``action``, ``log_prob`` and ``value`` (B,), the new carry."""
        opinion = self._opinion(carry, state, first)
        choice = opinion.policy.sample(self._generator)
        after = to_arrays(opinion.carry)
        judged = {"choice": choice, "log_prob": opinion.policy.log_prob(choice), "value": opinion.value}
        extras = {**to_arrays(judged), **after}
        return Decision(self.net.policy.action(extras["choice"]), after, extras)

    @one_core()
    def learn(self, batch: Batch) -> Metrics:
        config = self._config
        if self.net.sees_images:
            keep_freed_memory()
        rate = config.lr * (max(0.0, 1 - self._steps / config.anneal_steps) if config.anneal_steps else 1.0)
        samples = self._samples(batch)
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
        generators = {"generator": self._generator, "act_generator": self._act_generator}
        arrays = {
            **module_arrays(self.net, "net"),
            **self._adam.arrays("adam"),
            **{name: generator_array(generator) for name, generator in generators.items()},
        }
        return Snapshot(arrays, {"steps": self._steps})

    def load(self, snapshot: Snapshot) -> None:
        load_module(self.net, snapshot.arrays, "net")
        self._adam.load(snapshot.arrays, "adam")
        load_generator(self._generator, snapshot.arrays["generator"])
        load_generator(self._act_generator, snapshot.arrays["act_generator"])
        self._steps = int(snapshot.data["steps"])
        self._adam.refresh()

    def _threads(self) -> int:
        if self._device.type != "cpu":
            return 1
        return self._config.threads or (usable_cores() if self.net.sees_images else 1)

    def _opinion(self, carry: Carry, state: Arrays, first: Array) -> Opinion:
        """What the network makes of B states."""
        sequence = {key: to_tensor(array, self._device).unsqueeze(0) for key, array in state.items()}
        begins = to_tensor(first, self._device).unsqueeze(0)
        opinion: Opinion = self._fast(sequence, to_tensors(carry, self._device), begins)
        return opinion

    def _samples(self, batch: Batch) -> Samples:
        """The batch as sequences: B of T steps with an LSTM, else T * B of one step."""
        steps, rows = batch.reward.shape
        sequences = (steps, rows) if self._config.lstm else (1, steps * rows)

        def lay(array: Array) -> Tensor:
            return to_tensor(array, self._device).reshape(*sequences, *array.shape[2:])

        advantage = gae(batch, self._following_values(batch), self._config.gamma, self._config.gae_lambda)
        return Samples(
            state={key: lay(array) for key, array in batch.state.items()},
            carry=to_tensors(batch.carry, self._device),
            first=lay(batch.first),
            choice=lay(batch.extras["choice"]),
            log_prob=lay(batch.extras["log_prob"]),
            value=lay(batch.extras["value"]),
            advantage=lay(advantage),
            target=lay(advantage + batch.extras["value"]),
        )

    @torch.inference_mode()
    def _following_values(self, batch: Batch) -> Array:
        """The value of the state after each step, float32 (T, B); where an episode was cut, the one it stopped in."""
        rows = batch.reward.shape[1]
        after = {key: batch.extras[key] for key in batch.carry}  # the policy's carry after each step
        last = self._opinion({key: array[-1] for key, array in after.items()}, batch.next_state, np.zeros(rows, bool))
        following = np.concatenate([batch.extras["value"][1:], to_array(last.value)[None]])
        cut = batch.cut[tuple(batch.final_index.T)]
        t, b = batch.final_index[cut].T
        if len(t):
            final_state = {key: array[cut] for key, array in batch.final_state.items()}
            final = self._opinion(
                {key: array[t, b] for key, array in after.items()}, final_state, np.zeros(len(t), bool)
            )
            following[t, b] = to_array(final.value)
        return following

    def _epoch(self, samples: Samples, lr: float) -> list[Tensor]:
        """One pass in random order; the figures of each update."""
        order = torch.randperm(samples.count, generator=self._generator).to(self._device)
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

        parts = chosen.tensor_split(min(self._shards.threads, len(chosen)))
        gradients, figures = self._shards.gradients(loss, parts, list(self._fast.parameters()))
        self._adam.step(gradients, lr, self._config.max_grad_norm)
        return figures

    def _figures(self, old: Samples) -> Tensor:
        """Sums over the samples, in the order of ``FIGURES``, (5,)."""
        new = self._fast(old.state, old.carry, old.first)
        log_ratio = new.policy.log_prob(old.choice.flatten(0, 1)) - old.log_prob.flatten()
        objective = clipped_objective(log_ratio, old.advantage.flatten(), self._config.clip)
        error = value_error(new.value, old.value.flatten(), old.target.flatten(), self._config.value_clip)
        with torch.no_grad():
            ratio = log_ratio.exp()
            kl = (ratio - 1) - log_ratio  # http://joschu.net/blog/kl-approx.html, k3
            clipped = ((ratio - 1).abs() > self._config.clip).float()
        return torch.stack([part.sum() for part in (-objective, error, new.policy.entropy(), kl, clipped)])


FIGURES = ("policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction")


@dataclass(slots=True)
class Samples:
    """What was seen and done, as T steps of N sequences, each (T, N, ...)."""

    state: dict[str, Tensor]
    carry: dict[str, Tensor]  # before the first step, each (N, size)
    first: Tensor
    choice: Tensor
    log_prob: Tensor
    value: Tensor
    advantage: Tensor
    target: Tensor

    @property
    def count(self) -> int:
        return self.first.shape[1]

    def take(self, index: Tensor) -> Samples:
        """Some of the sequences."""

        def some(tensor: Tensor) -> Tensor:
            return tensor.index_select(1, index)

        return Samples(
            state={key: some(tensor) for key, tensor in self.state.items()},
            carry={key: tensor.index_select(0, index) for key, tensor in self.carry.items()},
            first=some(self.first),
            choice=some(self.choice),
            log_prob=some(self.log_prob),
            value=some(self.value),
            advantage=some(self.advantage),
            target=some(self.target),
        )


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


def gae(batch: Batch, following: Array, gamma: float, lam: float) -> Array:
    """Generalised advantage estimates, float32 (T, B). ``following`` (T, B): the value of the state after each step.

    What ``ended`` has no future; what was ``cut`` has the one that ``following`` says, but no further steps.
    """
    delta = batch.reward + gamma * following * ~batch.ended - batch.extras["value"]
    carried = (gamma * lam * ~(batch.ended | batch.cut)).astype(np.float32)
    advantage = np.empty_like(delta)
    running = np.zeros_like(delta[0])
    for t in reversed(range(len(delta))):
        running = advantage[t] = delta[t] + carried[t] * running
    return advantage


def explained_variance(value: Array, target: Array) -> float:
    """1: the critic foresaw the returns, 0: no better than their mean, below: worse. 0 when they do not vary."""
    spread = target.var()
    return float(1 - (target - value).var() / spread) if spread > 0 else 0.0
