"""How a world model of tokens sees: through a tokenizer of its own, or what the percept names `tokens` already.

Shape key: B rows, T steps, N samples, H frames of history, P tokens of a frame, (h, w) its grid.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from gymnasium import spaces

from agentctl.core.protocols import Setup
from agentctl.core.types import Array, Arrays, Batch, Metrics, Snapshot
from agentctl.world_models.vqvae import VQVAE

TOKENS = "tokens"
PREFIX = "tokenizer/"


@dataclass(slots=True)
class Window:
    """N frames and what came before them. Before an episode's first frame there is only that, as in a frame stack."""

    frames: Array  # int64 (N, H, P)
    target: Array  # int64 (N, P)


class Sight:
    def __init__(self, config: VQVAE.Config, setup: Setup) -> None:
        """Raises ValueError where the tokenizer would learn for ever: what is built on its tokens would never begin."""
        if config.frozen_after is None and TOKENS not in setup.space.spaces:
            raise ValueError("tokenizer.frozen_after is null: say after how many updates the model itself may learn")
        self.tokenizer = None if TOKENS in setup.space.spaces else VQVAE(config, setup)
        self.space = spaces.Dict() if self.tokenizer is None else self.tokenizer.space
        found = {**setup.space.spaces, **self.space.spaces}[TOKENS]
        if not isinstance(found, spaces.MultiDiscrete) or found.nvec.min() != found.nvec.max():
            raise ValueError(f"a world model of tokens needs tokens of one codebook, not {found}")
        self._found = found
        height, width = (1, *found.nvec.shape)[-2:]
        self.grid, self.codes = (int(height), int(width)), int(found.nvec.max())
        self.nbytes = 0 if self.tokenizer is None else self.tokenizer.nbytes

    @property
    def version(self) -> int:
        """Changes whenever tokens come to mean something else."""
        return 0 if self.tokenizer is None else self.tokenizer.version

    @property
    def settled(self) -> bool:
        """Whether tokens keep their meaning from now on."""
        return self.tokenizer is None or self.tokenizer.frozen

    def latent(self, percept: Arrays) -> Arrays:
        """What is added to a percept: ``tokens`` (B, h, w), or nothing where it has them."""
        return {} if self.tokenizer is None else encoded(self.tokenizer, percept)

    def tokens(self, state: Arrays) -> Array:
        """Those of a whole state, int64 (B, P)."""
        return state[TOKENS].reshape(len(state[TOKENS]), -1).astype(np.int64)

    def shown(self, state: Arrays, tokens: Array) -> Arrays:
        """``state`` one step later, when its frame is ``tokens`` (B, P)."""
        latent = {TOKENS: tokens.reshape(-1, *self._found.nvec.shape).astype(self._found.dtype)}
        pictures = self.decode(latent)
        moved = {key: after(state[key], picture) for key, picture in pictures.items() if key in state}
        return {**state, **latent, **moved}

    def decode(self, latent: Arrays) -> Arrays:
        """The picture of tokens (B, h, w), under its name in the percept; ``{}`` where the percept is tokens."""
        return {} if self.tokenizer is None else self.tokenizer.decode(latent)

    def sequence(self, batch: Batch, steps: int) -> Array:
        """The tokens of each sample's last ``steps`` frames and of what followed the last, int64 (steps + 1, N, P).

        Raises ValueError when the samples are shorter.
        """
        if len(batch.reward) < steps:
            raise ValueError(f"batches of {len(batch.reward)} steps, {steps} are needed: set replay.length to that")
        image = self.tokenizer and self.tokenizer.image
        key = image if image and image in batch.state else TOKENS
        seen = np.concatenate([batch.state[key][-steps:], last_successor(batch, key)[None]])
        if key != TOKENS and self.tokenizer is not None:
            flat = seen.reshape(-1, *seen.shape[2:])
            seen = encoded(self.tokenizer, {key: flat})[TOKENS].reshape(*seen.shape[:2], -1)
        whole: Array = seen.reshape(*seen.shape[:2], -1).astype(np.int64)
        return whole

    def window(self, batch: Batch, history: int) -> Window:
        """Each sample's last step, with the ``history`` frames up to it.

        Where the samples are shorter, the frames before them are those that the policy carried (see replay `tokens`).
        """
        carried = batch.carry.get(TOKENS)
        if carried is None or len(batch.reward) >= history:
            tokens, first = self.sequence(batch, history), batch.first[-history:]
        else:
            before = np.moveaxis(carried, 1, 0).reshape(carried.shape[1], len(carried), -1).astype(np.int64)
            tokens = np.concatenate([before, self.sequence(batch, len(batch.reward))])[-history - 1 :]
            first = np.concatenate([np.zeros((len(before), len(carried)), bool), batch.first])[-history:]
        if len(tokens) <= history:
            raise ValueError(f"{len(tokens) - 1} frames are carried and sampled, {history} are needed: set history so")
        time = np.maximum(np.arange(history)[:, None], begun(first))
        return Window(tokens[time, np.arange(tokens.shape[1])].swapaxes(0, 1), tokens[-1])

    def learn(self, batch: Batch) -> Metrics:
        """The tokenizer learns from the last step of each sample: those before look alike."""
        assert self.tokenizer is not None and not self.tokenizer.frozen
        return {PREFIX + name: value for name, value in self.tokenizer.learn(last_step(batch)).items()}

    def save(self) -> Snapshot:
        """Its arrays are named apart from those of the model that it belongs to."""
        if self.tokenizer is None:
            return Snapshot()
        own = self.tokenizer.save()
        return Snapshot({PREFIX + name: array for name, array in own.arrays.items()}, own.data)

    def load(self, snapshot: Snapshot) -> None:
        if self.tokenizer is not None:
            own = {name[len(PREFIX) :]: array for name, array in snapshot.arrays.items() if name.startswith(PREFIX)}
            self.tokenizer.load(Snapshot(own, snapshot.data))


def begun(first: Array) -> Array:
    """When each sample's latest episode began, int64 (N,): its step among T, or 0 where it began before them."""
    steps: Array = np.where(first, np.arange(len(first))[:, None], 0).max(0)
    return steps


def encoded(tokenizer: VQVAE, percept: Arrays) -> Arrays:
    """``tokens`` of N percepts, wherever they come from."""
    count = len(percept[tokenizer.image])
    return tokenizer.observe({}, percept, None, np.zeros(count, bool)).latent


def last_successor(batch: Batch, key: str) -> Array:
    """One array of the states after each sample's last step, (N, ...)."""
    found = batch.next_state[key].copy()
    at_end = batch.final_index[:, 0] == len(batch.reward) - 1
    found[batch.final_index[at_end, 1]] = batch.final_state[key][at_end]
    return found


def last_step(batch: Batch) -> Batch:
    """The last step of each sample alone, without what followed it."""
    return replace(
        batch, state={key: array[-1:] for key, array in batch.state.items()}, first=batch.first[-1:],
        action=batch.action[-1:], reward=batch.reward[-1:], ended=batch.ended[-1:], cut=batch.cut[-1:],
        final_index=np.zeros((0, 2), np.int64), final_state={k: array[:0] for k, array in batch.final_state.items()},
    )  # fmt: skip


def after(shown: Array, picture: Array) -> Array:
    """What follows ``shown`` (B, ...): ``picture``, or the stack of pictures one further, with its newest."""
    stacked = shown.ndim == 5 or (shown.ndim == 4 and shown.shape[-1] not in (1, 3))
    return np.concatenate([shown[:, 1:], picture[:, -1:]], axis=1) if stacked else picture
