"""IRIS's actor-critic (Micheli et al. 2023, https://arxiv.org/abs/2209.00588): it learns in imagination alone.

From each sampled sequence of real steps on, the world model imagines what this policy would do. The imagined steps are
learnt from by REINFORCE with the value as baseline, towards lambda-returns. Whatever it sees, in imagination and in
the real game, is what the world model draws from its own latent. An LSTM remembers: before it imagines, its state is
burnt in on the real steps, without a gradient. Any world model will do whose ``decode`` draws something.

As in IRIS's code, the last of ``horizon`` imagined states is only valued, and a lambda-return is the value and the
generalised advantage. Deviations: what is imagined after an end is left out instead of learnt from; one update for
each batch of the replay, whose T steps are all burnt in on; the LSTM is orthogonal at first.

Shape key: T real steps of N sequences, H = horizon.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from gymnasium import spaces
from pydantic import ConfigDict, Field
from torch import Tensor

from agentctl.agents.blocks import MASK, Vision
from agentctl.agents.on_policy import Actor, ActorConfig, Samples, explained_variance
from agentctl.core.evaluate import random_actions
from agentctl.core.nn.adam import ShardedAdam
from agentctl.core.nn.arrays import to_array, to_arrays, to_tensor
from agentctl.core.nn.memory import keep_freed_memory
from agentctl.core.nn.shards import one_core
from agentctl.core.protocols import Setup, WorldModel
from agentctl.core.types import Array, Arrays, Batch, Carry, Decision, Imagined, Metrics, Snapshot


class ImaginedActorCritic:
    class Config(ActorConfig):
        model_config = ConfigDict(
            json_schema_extra={"examples": [{"width": 0.1, "lstm": 8, "horizon": 3, "warmup": 0}]}
        )

        horizon: int = Field(20, gt=1, description="imagined states, the real one that they begin with among them")
        warmup: int = Field(5_000, ge=0, description="batches that the world model learns from before this policy does")
        gamma: float = Field(0.995, ge=0, le=1, description="discount of future reward")
        gae_lambda: float = Field(0.95, ge=0, le=1, description="returns: 0 trusts the critic, 1 the imagined rewards")
        entropy: float = Field(0.001, ge=0, description="weight of the entropy bonus")
        lr: float = Field(1e-4, gt=0, description="Adam's learning rate")
        max_grad_norm: float = Field(10.0, gt=0, description="longer gradients are shortened to this")
        epsilon: float = Field(0.01, ge=0, le=1, description="chance of a random action while it explores the game")
        temperature: float = Field(0.5, gt=0, description="of the actions that it samples when it does not train")
        vision: Vision = Field("iris", description="what reads images: IRIS's, or any other that agents have")
        lstm: int = Field(512, ge=0, description="size of the recurrent layer; 0: none")

    experience: ClassVar[str] = "own"

    def __init__(self, config: Config, setup: Setup) -> None:
        """Raises ValueError without a world model, or with one that draws nothing."""
        if setup.world_model is None:
            raise ValueError("it learns in what a world model imagines, and there is none: add e.g. world_model: iris")
        self._config, self._action_space = config, setup.action_space
        self._world_model = setup.world_model
        self._actor = Actor(config, setup.after(drawn_space(setup.world_model, setup.space)))
        self.initial = self._actor.initial
        weights = list(self._actor.net.parameters())
        self._adam = ShardedAdam(weights, self._actor.twins, self._actor.shards, eps=1e-8)
        self._rng = np.random.default_rng(setup.seed)
        self.nbytes = 16 * sum(weight.numel() for weight in weights)  # weights, gradients, Adam's two moments
        self._version: int | None = None  # of the world model when it was last looked at
        self._settled = 0  # batches since that changed

    def act(self, carry: Carry, state: Arrays, first: Array) -> Decision:
        return self._actor.act(carry, self._seen(state), first, self._config.temperature)

    def explore(self, carry: Carry, state: Arrays, first: Array) -> Decision:
        decision = self._actor.explore(carry, self._seen(state), first)
        action, by_chance = decision.action, self._rng.random(len(first)) < self._config.epsilon
        if by_chance.any():
            action[by_chance] = random_actions(self._action_space, len(first), self._rng, state.get(MASK))[by_chance]
        return Decision(action, decision.carry)

    @one_core()
    def learn(self, batch: Batch) -> Metrics:
        """One update; none before the world model's latents have long kept their meaning (see ``warmup``)."""
        if not self._ready():
            return {}
        keep_freed_memory()
        imagined = self._imagine(self._burn_in(batch))
        going = before_ends(imagined.ended)
        samples = self._actor.samples(imagined, self._config.gamma, self._config.gae_lambda)
        figures = self._update(samples, to_tensor(going, self._actor.device).reshape(samples.first.shape))
        target = to_array(samples.target).reshape(going.shape)
        return {
            **dict(zip(FIGURES, figures.tolist(), strict=True)),
            "explained_variance": explained_variance(imagined.extras["value"][going], target[going]),
            "imagined_return": float((imagined.reward * going).sum(0).mean()),
            "imagined_ends": float(imagined.ended[going].mean()),
        }

    def save(self) -> Snapshot:
        data = {"rng": self._rng.bit_generator.state, "version": self._version, "settled": self._settled}
        return Snapshot({**self._actor.arrays(), **self._adam.arrays("adam")}, data)

    def load(self, snapshot: Snapshot) -> None:
        self._actor.load(snapshot.arrays)
        self._adam.load(snapshot.arrays, "adam")
        self._adam.refresh()
        self._rng.bit_generator.state = snapshot.data["rng"]
        self._version, self._settled = snapshot.data["version"], int(snapshot.data["settled"])

    def _ready(self) -> bool:
        """Whether the world model has learnt from enough batches since its ``version`` last changed."""
        version = int(getattr(self._world_model, "version", 0))  # one that never says so never changes
        self._settled = self._settled + 1 if version == self._version else 0
        self._version = version
        return self._settled > self._config.warmup

    def _seen(self, state: Arrays) -> dict[str, Array]:
        """What it sees of a state, real or imagined: what its latent looks like, and which actions are legal."""
        drawn = self._world_model.decode({name: state[name] for name in self._world_model.space.spaces})
        return {**drawn, **({MASK: state[MASK]} if MASK in state else {})}

    @torch.inference_mode()
    def _burn_in(self, batch: Batch) -> Situations:
        """Where the steps of ``batch`` lead: the LSTM begins with nothing, and so does what the world model carries."""
        rows, stopped = batch.reward.shape[1], batch.ended | batch.cut
        world, carry = self._world_model.initial(rows), self.initial(rows)
        action, first = None, np.ones(rows, bool)
        for t, led_on in enumerate(batch.action):
            world, state = self._observed(world, {key: array[t] for key, array in batch.state.items()}, action, first)
            carry = to_arrays(self._actor.opinion(carry, self._seen(state), first).carry)
            action, first = led_on, stopped[t]
        world, state = self._observed(world, batch.next_state, action, first)
        state.pop(MASK, None)  # of this state alone: what will be legal only a model knows that imagines it
        return Situations(world, state, carry, first)

    def _observed(
        self, world: Carry, state: Arrays, action: Array | None, first: Array
    ) -> tuple[Carry, dict[str, Array]]:
        """What the world model carries after ``state``, and the state with the latent that it now has."""
        percept = {name: array for name, array in state.items() if name not in self._world_model.space.spaces}
        belief = self._world_model.observe(world, percept, action, first)
        return belief.carry, {**percept, **belief.latent}

    def _imagine(self, start: Situations) -> Batch:
        """H - 1 steps of this policy, and what it sees after them."""
        world, state, carry, first = start.world, start.state, start.carry, start.first
        firsts, seen, decisions, outcomes = list[Array](), list[Arrays](), list[Decision](), list[Imagined]()
        for _ in range(self._config.horizon - 1):
            firsts.append(first)
            seen.append(self._seen(state))
            decisions.append(self._actor.explore(carry, seen[-1], first))
            outcomes.append(self._world_model.imagine(world, state, decisions[-1].action))
            world, state, carry = outcomes[-1].carry, outcomes[-1].state, decisions[-1].carry
            first = np.zeros_like(first)
        ended = np.stack([outcome.ended for outcome in outcomes])
        return Batch(
            state=stacked(seen),
            first=np.stack(firsts),
            action=np.stack([decision.action for decision in decisions]),
            reward=np.stack([outcome.reward for outcome in outcomes]),
            ended=ended,
            cut=np.zeros_like(ended),
            extras=stacked([decision.extras for decision in decisions]),
            carry=start.carry,
            next_state=self._seen(state),
            final_index=np.zeros((0, 2), np.int64),
            final_state={},
        )

    def _update(self, samples: Samples, counts: Tensor) -> Tensor:
        """One step of Adam by the samples that count, bool (T, N); the means of ``FIGURES`` over them, (3,)."""
        config, shards, total = self._config, self._actor.shards, counts.sum()

        def loss(part: Tensor) -> tuple[Tensor, Tensor]:
            figures = self._figures(samples.take(part), counts[:, part]) / total
            policy_loss, value_loss, entropy = figures
            return policy_loss + value_loss - config.entropy * entropy, figures

        every = torch.arange(samples.count, device=self._actor.device)
        parts = every.tensor_split(min(shards.threads, samples.count))
        gradients, figures = shards.gradients(loss, parts, list(self._actor.fast.parameters()))
        self._adam.step(gradients, config.lr, config.max_grad_norm)
        return figures

    def _figures(self, old: Samples, counts: Tensor) -> Tensor:
        """Sums over the samples that count, in the order of ``FIGURES``, (3,)."""
        new = self._actor.fast(old.state, old.carry, old.first)
        policy_loss = -new.policy.log_prob(old.choice.flatten(0, 1)) * old.advantage.flatten()
        error = (new.value - old.target.flatten()) ** 2
        return torch.stack([(part * counts.flatten()).sum() for part in (policy_loss, error, new.policy.entropy())])


FIGURES = ("policy_loss", "value_loss", "entropy")


@dataclass(frozen=True, slots=True)
class Situations:
    """Where N imagined episodes begin."""

    world: Carry  # the world model's
    state: Arrays
    carry: Carry  # the policy's, before it sees ``state``
    first: Array  # bool (N,): nothing came before


def drawn_space(model: WorldModel, space: spaces.Dict) -> spaces.Dict:
    """The part of a state's ``space`` that ``model`` draws from its latent. Raises ValueError when there is none."""
    names = model.decode({name: np.asarray(part.sample())[None] for name, part in model.space.items()}).keys()
    if not names:
        raise ValueError(
            f"it sees what the world model draws, and this one draws nothing from its latent {sorted(model.space)}: "
            "use one with a tokenizer of its own, such as iris or token_transformer, on a percept with a picture"
        )
    return spaces.Dict({name: space[name] for name in names})


def before_ends(ended: Array) -> Array:
    """Which steps of ``ended`` (T, N) come before their row's first end or are it, bool (T, N)."""
    over = np.logical_or.accumulate(ended)
    return np.concatenate([np.ones_like(over[:1]), ~over[:-1]])


def stacked(steps: Sequence[Arrays]) -> dict[str, Array]:
    """Arrays of T steps by name, each (T, ...)."""
    return {name: np.stack([step[name] for step in steps]) for name in steps[0]}
