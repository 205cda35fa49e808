"""IRIS's world model (Micheli et al. 2023, https://arxiv.org/abs/2209.00588): one sequence of frames and actions.

A frame's tokens, then the action after it, 20 times: every token is foreseen from all before it, reward and end at the
action. While imagining, what was read is kept; when the sequence is full, it begins anew with the newest frame.

Deviations: no dropout and no weight decay; tokens of an earlier episode in the same window are not seen, instead of
being left out; the tokenizer is this project's own, with running means and without a perceptual loss, and is frozen
before the transformer learns.

Shape key: B rows, N samples, T steps of context, P tokens of a frame, K codes, D width, L = T * (P + 1) positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from gymnasium import spaces
from pydantic import ConfigDict, Field
from torch import Tensor
from torch.nn import functional as F

from agentctl.core.nn.arrays import to_array, to_tensor
from agentctl.core.nn.fit import Fit, FitConfig
from agentctl.core.nn.shards import one_core
from agentctl.core.nn.snapshot import generator_array, load_generator
from agentctl.core.protocols import Setup
from agentctl.core.types import Array, Arrays, Batch, Belief, Carry, Imagined, Loss, Metrics, Snapshot
from agentctl.world_models.decoding import Sampling
from agentctl.world_models.iris_network import Passage, SequenceNetwork, Stories, losses
from agentctl.world_models.sight import PREFIX, Sight, begun
from agentctl.world_models.token_metrics import TokenScore
from agentctl.world_models.token_network import SIGNS, Sizes
from agentctl.world_models.token_transformer import pushed
from agentctl.world_models.vqvae import VQVAE

FOUR_BY_FOUR = VQVAE.Config.model_validate({"frozen_after": 2_000, "downsample": 16})
"""IRIS's tokens of a frame of 64 x 64 pixels."""


class Iris:
    class Config(FitConfig):
        model_config = ConfigDict(json_schema_extra={"examples": [{"history": 2, "layers": 1, "dim": 16, "heads": 2}]})

        history: int = Field(20, gt=1, description="steps of context (T); the replay's `length` must be as long")
        layers: int = Field(10, gt=0, description="of the transformer")
        dim: int = Field(256, gt=0, description="width of a token's embedding")
        heads: int = Field(4, gt=0, description="of attention")
        context: int = Field(1, gt=0, description="real frames that imagining begins with")
        temperature: float = Field(1.0, ge=0, description="of imagined tokens and ends; 0: the likeliest")
        lr: float = Field(1e-4, gt=0, description="Adam's learning rate")
        max_grad_norm: float = Field(10.0, gt=0, description="longer gradients are shortened to this")
        tokenizer: VQVAE.Config = Field(FOUR_BY_FOUR, description="what makes tokens of pictures")

    def __init__(self, config: Config, setup: Setup) -> None:
        if not isinstance(setup.action_space, spaces.Discrete):
            raise ValueError(f"iris takes one of n actions, not {setup.action_space}; use another model")
        if config.context >= config.history:
            raise ValueError(f"context {config.context} must be below history {config.history}: some steps to imagine")
        self._config, self._first_action = config, int(setup.action_space.start)
        self._sight = Sight(config.tokenizer, setup)
        self.space = self._sight.space
        self.sizes = Sizes(self._sight.grid, self._sight.codes, int(setup.action_space.n), config.history)
        sizes, shape = self.sizes, (config.layers, config.dim, config.heads)
        self._fit = Fit(lambda: SequenceNetwork(sizes, *shape), config, setup.seed)
        self._sampling = Sampling(config.temperature, torch.Generator().manual_seed(setup.seed))
        self._told: Told | None = None
        self.nbytes = self._fit.nbytes + self._sight.nbytes

    @property
    def version(self) -> int:
        """Changes whenever tokens come to mean something else."""
        return self._sight.version

    def initial(self, batch: int) -> Carry:
        """``age``: how many of the newest frames are context, int64 (B,)."""
        frames = np.zeros((batch, self.sizes.history, self.sizes.places), np.int64)
        actions = np.zeros((batch, self.sizes.history), np.int64)
        return {"frames": frames, "actions": actions, "age": np.zeros(batch, np.int64)}

    def observe(self, carry: Carry, percept: Arrays, action: Array | None, first: Array) -> Belief:
        latent = self._sight.latent(percept)
        actions = carry["actions"] if action is None else self._acted(carry, action)
        frames = pushed(carry["frames"], self._sight.tokens({**percept, **latent}))
        age = np.where(first, 1, np.minimum(carry["age"] + 1, self._config.context))
        return Belief({"frames": frames, "actions": pushed(actions, 0), "age": age}, latent)

    @one_core()
    @torch.inference_mode()
    def imagine(self, carry: Carry, state: Arrays, action: Array) -> Imagined:
        """The next frame drawn in the order of its tokens, the mean reward, and an end as likely as it is held to be.

        Rows of equal age are imagined together. Where what was imagined last goes on, nothing is read again.
        """
        actions, frames = self._acted(carry, action), carry["frames"]
        age = np.where(carry["age"] >= self.sizes.history, 1, carry["age"])
        tokens = np.zeros((len(action), self.sizes.places), np.int64)
        outcome = torch.zeros(len(action), SIGNS + 1)
        told = self._told_of(frames, actions, age)
        for group in told:
            ahead = group.story.go_on(self._tensor(actions[group.rows, -1]), self._sampling)
            tokens[group.rows], outcome[group.rows] = to_array(ahead.tokens), ahead.outcome.cpu()
        frames = pushed(frames, tokens)
        self._told = Told(frames, told)
        carry = {"frames": frames, "actions": pushed(actions, 0), "age": age + 1}
        reward = outcome[:, :SIGNS].softmax(1)
        ended = self._drawn_ends(outcome[:, SIGNS])
        return Imagined(carry, self._sight.shown(state, tokens), to_array(reward[:, 2] - reward[:, 0]), ended)

    def decode(self, latent: Arrays) -> Arrays:
        """The picture of tokens (B, h, w), under its name in the percept; ``{}`` where the percept is tokens."""
        return self._sight.decode(latent)

    def loss(self, batch: Batch) -> Loss:
        """Bits per token, each foreseen from the true ones before it, with what `TokenScore` tells."""
        score = TokenScore(self.sizes.codes)
        self.measure(batch, score)
        metrics = score.metrics()
        return Loss(metrics["bits"], metrics)

    @one_core()
    @torch.inference_mode()
    def measure(self, batch: Batch, score: TokenScore) -> None:
        """Foresee each sample's last frame without chance from its episode's steps before; add that to ``score``."""
        steps = self.sizes.history - 1
        tokens, actions = self._sight.sequence(batch, steps), batch.action[-steps:] - self._first_action
        began = begun(batch.first[-steps:])
        greedy = Sampling(0.0, self._sampling.generator)
        for start in np.unique(began):
            rows = np.flatnonzero(began == start)
            frames, acted = tokens[start:, rows].swapaxes(0, 1), actions[start:, rows].T
            ahead = self._story(frames[:, :-1], acted[:, :-1]).go_on(self._tensor(acted[:, -1]), greedy)
            score.add_tokens(to_array(ahead.tokens), frames[:, -1], frames[:, -2])
            score.add_nats(self._nats(frames, acted))
            sign, ends = to_array(ahead.outcome[:, :SIGNS].argmax(1)) - 1, to_array(ahead.outcome[:, SIGNS])
            score.add_outcomes(sign, batch.reward[-1, rows], ends, batch.ended[-1, rows])

    @one_core()
    def learn(self, batch: Batch) -> Metrics:
        """One update: of the tokenizer until it is settled, then of the transformer."""
        if not self._sight.settled:
            return self._sight.learn(batch)
        passage = self._passage(batch)
        counts = [int(passage.foreseeable.sum()), passage.sign.numel(), passage.sign.numel()]
        weight = 1 / torch.tensor(counts, device=self._fit.device)
        found = self._fit.update(lambda part: losses(self._fit.fast, passage.take(part)) * weight, len(passage.frames))
        names = ("token_nats", "reward_loss", "ended_loss")
        return {"loss": float(found.sum()), **dict(zip(names, found.tolist(), strict=True))}

    def save(self) -> Snapshot:
        sight = self._sight.save()
        chance = {"chance": generator_array(self._sampling.generator)}
        return Snapshot({**self._fit.arrays(), **chance, **sight.arrays}, {PREFIX: sight.data})

    def load(self, snapshot: Snapshot) -> None:
        self._fit.load(snapshot.arrays)
        load_generator(self._sampling.generator, snapshot.arrays["chance"])
        self._sight.load(Snapshot(snapshot.arrays, snapshot.data[PREFIX]))
        self._told = None

    def _tensor(self, array: Array) -> Tensor:
        return to_tensor(array.astype(np.int64), self._fit.device)

    def _acted(self, carry: Carry, action: Array) -> Array:
        """The actions (B, T) with the one that was taken last."""
        actions = carry["actions"].copy()
        actions[:, -1] = action - self._first_action
        return actions

    def _told_of(self, frames: Array, actions: Array, age: Array) -> list[Group]:
        """What leads up to each row, read anew unless it is just what was imagined last."""
        last = self._told
        if (
            last is not None
            and last.frames is frames
            and all((age[g.rows] == g.story.steps).all() for g in last.groups)
        ):
            return last.groups
        groups = []
        for steps in np.unique(age):
            rows = np.flatnonzero(age == steps)
            groups.append(Group(rows, self._story(frames[rows, -steps:], actions[rows, -steps:-1])))
        return groups

    def _story(self, frames: Array, actions: Array) -> Stories:
        """Of ``frames`` (N, T, P) and the ``actions`` (N, T - 1) between them."""
        return Stories(self._fit.fast, self._fit.shards, self._tensor(frames), self._tensor(actions))

    def _nats(self, frames: Array, actions: Array) -> float:
        """Of the last frame's tokens, each after the true ones before it; ``frames`` (N, T + 1, P)."""
        net, given = self._fit.fast, self._tensor(frames)
        x = net.embed(given, torch.cat([self._tensor(actions), given.new_zeros(len(given), 1)], 1))
        features = net.body.read(x, sees="before").features[:, -self.sizes.places - 2 : -2]
        logits = net.head(features).float()
        return float(F.cross_entropy(logits.flatten(0, 1), given[:, -1].flatten(), reduction="sum"))

    def _drawn_ends(self, logits: Tensor) -> Array:
        """bool (N,)"""
        if self._config.temperature == 0:
            return to_array(logits > 0)
        return to_array(torch.rand(logits.shape, generator=self._sampling.generator) < logits.sigmoid())

    def _passage(self, batch: Batch) -> Passage:
        """The last T steps of each sample."""
        history = self.sizes.history
        tokens = self._sight.sequence(batch, history)[:-1]
        return Passage(
            self._tensor(tokens.swapaxes(0, 1)),
            self._tensor(batch.action[-history:].T - self._first_action),
            self._tensor(np.sign(batch.reward[-history:].T) + 1),
            to_tensor(batch.ended[-history:].T.astype(np.float32), self._fit.device),
            self._tensor(batch.first[-history:].cumsum(0).T),
        )


@dataclass(frozen=True, slots=True)
class Group:
    """Rows of equal age: they are imagined together."""

    rows: Array  # int64 (K,)
    story: Stories

    @property
    def steps(self) -> int:
        return self.story.steps


@dataclass(frozen=True, slots=True)
class Told:
    """What was imagined last: asked to go on from just that, nothing need be read again."""

    frames: Array  # the carry's, the very object
    groups: list[Group]
