"""Beginning with what an earlier run's network had learnt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import nn

from agentctl.core.checkpoint import read_checkpoint
from agentctl.core.types import Array, Snapshot

PREFIX = "net/"
GAMES = "net/game.weight"
TOLD = 3  # differences that an error names


def weights_in(checkpoint: Path, net: nn.Module) -> dict[str, Array]:
    """A checkpoint's weights for ``net``, by `Fit`'s names.

    The embeddings of games are taken as they are where there are as many; else each game begins as the mean of them:
    which is which is not known. Raises ValueError where the checkpoint holds none, or those of another network.
    """
    found = read_checkpoint(checkpoint, only=("world_model",)).get("world_model", Snapshot()).arrays
    weights = {name: array for name, array in found.items() if name.startswith(PREFIX)}
    if not weights:
        raise ValueError(f"from: {checkpoint} holds no transformer: name a run whose world_model is token_transformer")
    here = {PREFIX + name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}
    if GAMES in weights and GAMES in here and len(weights[GAMES]) != here[GAMES][0]:
        weights[GAMES] = np.repeat(weights[GAMES].mean(axis=0, keepdims=True), here[GAMES][0], axis=0)
    there = {name: array.shape for name, array in weights.items()}
    if differing := [name for name in sorted(there.keys() | here.keys()) if there.get(name) != here.get(name)]:
        told = [f"{n[len(PREFIX) :]} {there.get(n, 'none')} (here {here.get(n, 'none')})" for n in differing[:TOLD]]
        raise ValueError(
            f"from: the transformer of {checkpoint} has {', '.join(told)}: give this one the same options, and a game "
            "of as many actions and tokens"
        )
    return weights
