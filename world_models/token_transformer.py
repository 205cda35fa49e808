"""A transformer that foresees a frame's tokens from the last frames and the action, in four generations side by side.

- ``v1.0``: one frame of history; all tokens of the next at once.
- ``v1.1``: four frames of history, told apart by embeddings of time beside those of place.
- ``v1.2``: learns as well to go on from any part of the next frame (as MaskGIT, Chang et al. 2022,
  https://arxiv.org/abs/2202.04200) and from its first tokens on: how it decodes is chosen at run time.
- ``v3``: the same, smaller, decoding token after token.

One code path; a generation is a set of defaults. All learn the reward, as its sign, and whether the episode ends.
Frames come as tokens: from its own tokenizer (a `vqvae`), or from the percept where that has a field ``tokens``. The
transformer learns once the tokenizer is frozen, so that what a token stands for does not change under it.

Shape key: B rows, T steps, N samples, H frames of history, P tokens of a frame, (h, w) its grid, K codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from gymnasium import spaces
from pydantic import ConfigDict, Field, field_validator, model_validator
from torch import Tensor
from torch.nn import functional as F

from agentctl.core.checkpoint import latest_checkpoint
from agentctl.core.nn.arrays import to_array, to_tensor
from agentctl.core.nn.fit import Fit, FitConfig
from agentctl.core.nn.shards import one_core, slices
from agentctl.core.nn.snapshot import generator_array, load_generator
from agentctl.core.protocols import Setup
from agentctl.core.types import Array, Arrays, Batch, Belief, Carry, Imagined, Loss, Metrics, Snapshot
from agentctl.world_models.decoding import Sampling, autoregressive, maskgit, masks, parallel
from agentctl.world_models.sight import PREFIX, Sight
from agentctl.world_models.sparse import Attention, scope_of
from agentctl.world_models.token_metrics import TokenScore
from agentctl.world_models.token_network import Context, Lesson, Sizes, TokenNetwork, losses
from agentctl.world_models.vqvae import VQVAE
from agentctl.world_models.warm_start import weights_in

GAME = "game"
"""The field of the percept that tells which of several games it is of, from 0: an embedding is learnt for each."""

Decoding = Literal["parallel", "maskgit", "autoregressive"]

FROZEN_LATER = VQVAE.Config.model_validate({"frozen_after": 2_000})

GENERATIONS: Mapping[str, Mapping[str, Any]] = {
    "v1.0": {"history": 1, "layers": 6, "heads": 8, "causal": False, "decoding": "parallel"},
    "v1.1": {"history": 4, "layers": 6, "heads": 8, "causal": False, "decoding": "parallel"},
    "v1.2": {"history": 4, "layers": 6, "heads": 8, "causal": True, "decoding": "maskgit"},
    "v3": {"history": 4, "layers": 4, "heads": 4, "causal": True, "decoding": "autoregressive"},
}


class TokenTransformer:
    class Config(FitConfig):
        model_config = ConfigDict(
            populate_by_name=True,  # `from` is a word of Python's
            serialize_by_alias=True,
            json_schema_extra={"examples": [{"history": 2, "layers": 1, "dim": 16, "heads": 2}]},
        )

        generation: Literal["v1.0", "v1.1", "v1.2", "v3"] = Field("v3", description="fills in what is not given here")
        history: int = Field(4, gt=0, description="frames that it sees (H); the replay's `length` must be as long")
        layers: int = Field(4, gt=0, description="of the transformer")
        dim: int = Field(256, gt=0, description="width of a token's embedding")
        heads: int = Field(4, gt=0, description="of attention")
        attention: Attention = Field("full", description="axial: to rows and columns in turn; local: to what is near")
        reach: int = Field(2, gt=0, description="local: rows and columns that a token sees to each side")
        causal: bool = Field(True, description="learns to decode in rounds and in order too, not only all at once")
        decoding: Decoding = Field("autoregressive", description="how an imagined frame comes about")
        rounds: int = Field(8, gt=0, description="passes of maskgit")
        temperature: float = Field(1.0, ge=0, description="of imagined tokens and ends; 0: the likeliest")
        tokenizer: VQVAE.Config = Field(FROZEN_LATER, description="what makes tokens of pictures")
        from_: Path | None = Field(
            None, alias="from", description="a run's folder: it begins with that transformer, and that tokenizer"
        )

        @field_validator("from_")
        @classmethod
        def _absolute(cls, value: Path | None) -> Path | None:
            return value and value.absolute()  # what begins with it may be resumed from another folder

        @model_validator(mode="before")
        @classmethod
        def _fill_in_generation(cls, given: Any) -> Any:
            if not isinstance(given, Mapping):
                return given
            return {**GENERATIONS.get(str(given.get("generation", "v3")), {}), **given}

        @model_validator(mode="after")
        def _can_decode(self) -> Self:
            if not self.causal and self.decoding != "parallel":
                raise ValueError(f"decoding {self.decoding!r} needs causal: true; without, use decoding: parallel")
            return self

        @model_validator(mode="after")
        def _sees_both_ways(self) -> Self:
            if self.attention == "axial" and self.layers < 2:
                raise ValueError("axial attention sees rows in one layer, columns in the next: set layers to 2 or more")
            return self

        @property
        def eyes(self) -> VQVAE.Config:
            """The tokenizer's, with where it begins."""
            own = self.tokenizer
            return own if own.from_ is not None else own.model_copy(update={"from_": self.from_})

    def __init__(self, config: Config, setup: Setup) -> None:
        if not isinstance(setup.action_space, spaces.Discrete):
            raise ValueError(f"token_transformer takes one of n actions, not {setup.action_space}; use another model")
        self._config, self._first_action = config, int(setup.action_space.start)
        self._sight = Sight(config.eyes, setup)
        self.space = self._sight.space
        games = setup.space.spaces.get(GAME)
        named = int(games.n) if isinstance(games, spaces.Discrete) else 0
        self.sizes = Sizes(self._sight.grid, self._sight.codes, int(setup.action_space.n), config.history, named)
        sizes, shape = self.sizes, (config.layers, config.dim, config.heads)
        scope = scope_of(config.attention, sizes.grid, sizes.history, config.layers, config.reach)
        self._fit = Fit(lambda: TokenNetwork(sizes, *shape, scope), config, setup.seed)
        if config.from_ is not None:
            self._fit.take_over(weights_in(latest_checkpoint(config.from_), self._fit.net))
        self._generator, chance = (torch.Generator().manual_seed(setup.seed + k) for k in range(2))
        self._sampling = Sampling(config.temperature, chance)
        self.nbytes = self._fit.nbytes + self._sight.nbytes

    @property
    def version(self) -> int:
        """Changes whenever tokens come to mean something else."""
        return self._sight.version

    def initial(self, batch: int) -> Carry:
        return {"frames": np.zeros((batch, self.sizes.history, self.sizes.places), np.int64)}

    def observe(self, carry: Carry, percept: Arrays, action: Array | None, first: Array) -> Belief:
        """The carry holds the tokens of the last H frames, this one too, int64 (B, H, P)."""
        latent = self._sight.latent(percept)
        tokens = self._sight.tokens({**percept, **latent})
        frames = pushed(carry["frames"], tokens)
        frames[first] = tokens[first, None]
        return Belief({"frames": frames}, latent)

    @one_core()
    @torch.inference_mode()
    def imagine(self, carry: Carry, state: Arrays, action: Array) -> Imagined:
        """The next frame drawn, the mean reward, and an end as likely as it is held to be."""
        frames, game = self._tensor(carry["frames"]), self._game(state, len(action))
        done = self._tensor((action - self._first_action).astype(np.int64))
        parts = slices(len(action), self._fit.shards.threads)

        def foresee(own: tuple[slice, Sampling]) -> Foreseen:
            part, sampling = own
            context = self._fit.fast.context(frames[part], done[part], game[part])
            return Foreseen(self.decode_next(context, self._config.decoding, sampling), context.reward, context.ended)

        found = self._fit.shards.infer(foresee, list(zip(parts, self._sampling.split(len(parts)), strict=True)))
        tokens = to_array(torch.cat([part.tokens for part in found]))
        reward = torch.cat([part.reward for part in found]).softmax(1)
        ended = self._drawn_ends(torch.cat([part.ended for part in found]))
        carry = {"frames": pushed(carry["frames"], tokens)}
        return Imagined(carry, self._sight.shown(state, tokens), to_array(reward[:, 2] - reward[:, 0]), ended)

    def decode(self, latent: Arrays) -> Arrays:
        """The picture of tokens (B, h, w), under its name in the percept; ``{}`` where the percept is tokens."""
        return self._sight.decode(latent)

    def decode_next(self, context: Context, decoding: Decoding, sampling: Sampling) -> Tensor:
        """The next frame's tokens, int64 (N, P)."""
        net = self._fit.fast
        if decoding == "autoregressive":
            return autoregressive(net.reader(context), context.newest, sampling)
        slots = torch.full_like(context.newest, self.sizes.mask)
        if decoding == "maskgit":
            return maskgit(lambda tokens: net.filled(context, tokens), slots, sampling, self._config.rounds)
        return parallel(lambda tokens: net.filled(context, tokens), slots, sampling)

    def loss(self, batch: Batch) -> Loss:
        """Bits per token, with what `TokenScore` tells of its likeliest tokens, all foreseen at once.

        Of several games, each one's figures stand beside as ``game_0/...``.
        """
        score = TokenScore(self.sizes.codes)
        self.measure(batch, score, "parallel")
        metrics = score.metrics()
        for game in np.unique(batch.state[GAME][-1]).tolist() if self.sizes.games else ():
            score = TokenScore(self.sizes.codes)
            self.measure(batch, score, "parallel", game)
            metrics |= {f"game_{game}/{name}": value for name, value in score.metrics().items()}
        return Loss(metrics["bits"], metrics)

    @one_core()
    @torch.inference_mode()
    def measure(self, batch: Batch, score: TokenScore, decoding: Decoding, game: int | None = None) -> None:
        """Foresee the last step of each of the batch's samples without chance, and add that to ``score``.

        ``game``: only of the samples of that one.
        """
        lesson, net = self._lesson(batch), self._fit.fast
        if game is not None:
            lesson = lesson.take(lesson.game == game)
        context, target = net.context(lesson.frames, lesson.action, lesson.game), lesson.target
        foreseen = self.decode_next(context, decoding, Sampling(0.0, self._generator))
        score.add_tokens(to_array(foreseen), to_array(target), to_array(context.newest))
        slots = torch.full_like(target, self.sizes.mask)
        logits = net.ordered(context, target) if decoding == "autoregressive" else net.filled(context, slots)
        score.add_nats(float(F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="sum")))
        sign, ended = to_array(context.reward.argmax(1)) - 1, to_array(context.ended)
        score.add_outcomes(sign, to_array(lesson.sign) - 1, ended, to_array(lesson.ended))

    @one_core()
    def learn(self, batch: Batch) -> Metrics:
        """One update: of the tokenizer until it is settled, then of the transformer, by each sample's last step."""
        if not self._sight.settled:
            return self._sight.learn(batch)
        lesson, causal = self._lesson(batch), self._config.causal
        hidden = masks(lesson.target, self._generator) if causal else torch.ones_like(lesson.target, dtype=torch.bool)
        counts = [int(hidden.sum()), hidden.numel(), lesson.count, lesson.count]
        weight = 1 / torch.tensor(counts, device=self._fit.device)
        found = self._fit.update(
            lambda part: losses(self._fit.fast, lesson.take(part), hidden[part], ordered=causal) * weight, lesson.count
        )
        names = ("open_nats", "ordered_nats", "reward_loss", "ended_loss")
        return {"loss": float(found.sum()), **dict(zip(names, found.tolist(), strict=True))}

    def save(self) -> Snapshot:
        chances = {"generator": generator_array(self._generator), "chance": generator_array(self._sampling.generator)}
        sight = self._sight.save()
        return Snapshot({**self._fit.arrays(), **chances, **sight.arrays}, {PREFIX: sight.data})

    def load(self, snapshot: Snapshot) -> None:
        self._fit.load(snapshot.arrays)
        load_generator(self._generator, snapshot.arrays["generator"])
        load_generator(self._sampling.generator, snapshot.arrays["chance"])
        self._sight.load(Snapshot(snapshot.arrays, snapshot.data[PREFIX]))

    def _tensor(self, array: Array) -> Tensor:
        return to_tensor(array, self._fit.device)

    def _game(self, state: Arrays, rows: int) -> Tensor:
        """int64 (N,). Raises ValueError where the state does not hold what the percept did."""
        if not self.sizes.games:
            return self._tensor(np.zeros(rows, np.int64))
        if GAME not in state:
            raise ValueError(f"the state holds {sorted(state)} and no {GAME!r}: name it in replay.keep")
        return self._tensor(state[GAME].astype(np.int64))

    def _drawn_ends(self, logits: Tensor) -> Array:
        """bool (N,)"""
        if self._config.temperature == 0:
            return to_array(logits > 0)
        chance = torch.rand(logits.shape, generator=self._sampling.generator).to(logits.device)
        return to_array(chance < logits.sigmoid())

    def _lesson(self, batch: Batch) -> Lesson:
        """The last step of each sample."""
        window = self._sight.window(batch, self.sizes.history)
        return Lesson(
            self._tensor(window.frames),
            self._tensor((batch.action[-1] - self._first_action).astype(np.int64)),
            self._game({key: array[-1] for key, array in batch.state.items()}, len(window.target)),
            self._tensor(window.target),
            self._tensor(np.sign(batch.reward[-1]).astype(np.int64) + 1),
            self._tensor(batch.ended[-1].astype(np.float32)),
        )


@dataclass(slots=True)
class Foreseen:
    """What follows N situations."""

    tokens: Tensor  # int64 (N, P)
    reward: Tensor  # float32 (N, 3): logits of its sign
    ended: Tensor  # float32 (N,): logit


def pushed(history: Array, entry: Array | int) -> Array:
    """``history`` (B, H, ...) one further: without the oldest, with ``entry`` as the newest."""
    moved = np.roll(history, -1, axis=1)
    moved[:, -1] = entry
    return moved
