"""Behaviour cloning (Pomerleau 1988; Bain and Sammut 1995): do what the recorded player did, by maximum likelihood.

It learns from the replay `demonstrations`, in epochs. After each one it is judged on the episodes that were held out;
it plays with the weights that were best there, and is finished once ``patience`` epochs have brought nothing better.
A low loss is not yet good play: small errors lead to states that nobody demonstrated (Ross et al. 2011), which is what
`dagger` is for. So the figure that counts is the return, and beside the accuracy stand those of never looking.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from agentctl.agents.blocks import Categoricals, Gaussian
from agentctl.agents.cloning import Cloner, CloningConfig
from agentctl.agents.judgement import Judgement
from agentctl.agents.on_policy import Actor
from agentctl.core.nn.arrays import to_array
from agentctl.core.nn.shards import one_core
from agentctl.core.protocols import Setup
from agentctl.core.types import Array, Arrays, Batch, Carry, Decision, Metrics, Snapshot, Table

JUDGED = "Judged on held-out episodes"
CHUNK = 512
"""Sequences that are judged at once."""


class BC:
    class Config(CloningConfig):
        patience: int | None = Field(
            5, gt=0, description="epochs without a better held-out loss to stop after; null: go on"
        )

    experience: ClassVar[str] = "recorded"

    def __init__(self, config: Config, setup: Setup) -> None:
        self._config = config
        self._cloner = Cloner(config, setup)
        self._best = Actor(config, setup)  # what plays
        self.nbytes = self._cloner.nbytes * 5 // 4
        self._best_loss = np.inf
        self._epoch = self._stale = 0  # judged so often; since the best
        self._tables: dict[str, Table] = {}
        self.initial = self._best.initial

    def act(self, carry: Carry, state: Arrays, first: Array) -> Decision:
        return self._shown.act(carry, state, first)

    def explore(self, carry: Carry, state: Arrays, first: Array) -> Decision:
        return self._shown.explore(carry, state, first)

    def learn(self, batch: Batch) -> Metrics:
        return self._cloner.learn(batch)

    def judge(self, batch: Batch) -> Metrics:
        """After each epoch: ``held_out_loss`` and, beside the accuracy, those of the majority and of repeating."""
        loss, found, figures = self._judged(batch)
        self._epoch += 1
        self._stale += 1
        if loss < self._best_loss:
            self._best_loss, self._stale = loss, 0
            self._best.net.load_state_dict(self._cloner.actor.net.state_dict())
            self._best.refresh()
            best = {name: [value] for name, value in {"held_out_loss": loss, **figures}.items()}
            self._tables = {JUDGED: Table(["best"], best), **(found.tables(self._cloner.sizes) if found else {})}
        return {"held_out_loss": loss, "epoch": self._epoch, **figures}

    @property
    def finished(self) -> bool:
        return self._config.patience is not None and self._stale >= self._config.patience

    def tables(self) -> dict[str, Table]:
        return self._tables

    def export_onnx(self, path: Path, about: Mapping[str, str]) -> None:
        """As every actor-critic; its ``value`` means nothing, for a clone learns none."""
        self._shown.export_onnx(path, about)

    def heatmaps(self, state: Arrays) -> dict[str, Array]:
        """Where it looks, with ``vision: hybrid``."""
        return self._shown.heatmaps(state)

    def save(self) -> Snapshot:
        best = {f"best/{name}": array for name, array in self._best.arrays().items()}
        tables = {title: [table.columns, table.rows, table.shares] for title, table in self._tables.items()}
        data = {"epoch": self._epoch, "stale": self._stale, "best_loss": self._best_loss, "tables": tables}
        return Snapshot({**self._cloner.arrays(), **best}, data)

    def load(self, snapshot: Snapshot) -> None:
        arrays, data = snapshot.arrays, snapshot.data
        self._cloner.load(arrays)
        self._best.load({name[5:]: array for name, array in arrays.items() if name.startswith("best/")})
        self._best.refresh()
        self._epoch, self._stale = int(data["epoch"]), int(data["stale"])
        self._best_loss = float(data["best_loss"])
        self._tables = {title: Table(*parts) for title, parts in data["tables"].items()}

    @property
    def _shown(self) -> Actor:
        """Who plays: the best judged, or without a judgement the one that learns."""
        return self._best if self._epoch else self._cloner.actor

    @one_core()
    @torch.inference_mode()
    def _judged(self, batch: Batch) -> tuple[float, Judgement | None, Metrics]:
        """The mean loss, and for discrete actions what was predicted, for continuous ones how far off it is."""
        shown, parts = self._cloner.shown(batch), []
        for some in range(0, shown.count, CHUNK):
            taken = shown.take(torch.arange(some, min(some + CHUNK, shown.count), device=self._best.device))
            policy = self._cloner.actor.fast(taken.state, taken.carry, taken.first).policy
            choice = taken.choice.flatten(0, 1)
            loss, mode = -policy.log_prob(choice), policy.mode()
            sure = mode if isinstance(policy, Gaussian) else confidence(policy)
            parts.append([part.reshape(*taken.first.shape, -1) for part in (loss, mode, sure)])
        losses, predicted, certain = (to_array(torch.cat(part, dim=1)) for part in zip(*parts, strict=True))
        demonstrated = to_array(shown.choice)
        if not self._cloner.sizes:
            return float(losses.mean()), None, distances(demonstrated, predicted, self._cloner.habit())
        found = in_time(demonstrated, predicted, certain, batch.first)
        return float(losses.mean()), found, found.metrics(self._cloner.habit())


def confidence(policy: Categoricals) -> Tensor:
    """Of each choice the probability of the likeliest, (N, P)."""
    return torch.stack([alternatives.max(1).values for alternatives in policy.probabilities()], dim=1)


def distances(demonstrated: Array, predicted: Array, habit: Array) -> Metrics:
    """Of continuous choices (T, N, P): the mean distance of the clone's, and of always the mean one, in half ranges."""
    return {
        "held_out_error": float(np.abs(predicted - demonstrated).mean()),
        "mean_action_error": float(np.abs(habit - demonstrated).mean()),
    }


def in_time(demonstrated: Array, predicted: Array, certain: Array, first: Array) -> Judgement:
    """Choices of T * N steps, each (..., P), and ``first`` (T, N), in the order of time: sequence by sequence.

    With T = 1 the N sequences are consecutive steps; else only the steps within a sequence follow each other.
    """
    steps, count = first.shape
    follows = ~first.T.reshape(-1)
    follows[:: steps if steps > 1 else count] = False

    def ordered(choices: Array) -> Array:
        return np.swapaxes(choices.reshape(steps, count, -1), 0, 1).reshape(steps * count, -1)

    return Judgement(ordered(demonstrated), ordered(predicted), ordered(certain), follows)
