"""How many multiply-adds a `token_transformer` needs: what its floor is made of.

Only what grows with tokens times width counts: linear layers, and attention to what is seen. Embeddings, norms, the
convolution that tells slots of their surroundings and Adam are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from agentctl.world_models.sparse import Attention, Grouped, Scope, scope_of
from agentctl.world_models.transformer import Views

BACKWARD = 2
"""Products of the gradients beside each of the forward pass: by the input, and by the weight."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Of a model; v3's by default."""

    grid: tuple[int, int]
    codes: int
    history: int = 4
    layers: int = 4
    dim: int = 256
    attention: Attention = "full"
    reach: int = 2

    @property
    def places(self) -> int:
        return self.grid[0] * self.grid[1]


def update(shape: Shape) -> int:
    """Multiply-adds of learning from one sample: all slots open, and all in order."""
    scope = scope_of(shape.attention, shape.grid, shape.history, shape.layers, shape.reach)
    return (1 + BACKWARD) * (context(shape, scope) + slots(shape, scope.filled) + slots(shape, scope.ordered))


def frame(shape: Shape) -> int:
    """Multiply-adds of imagining one frame, all tokens at once; one by one they are as many."""
    scope = scope_of(shape.attention, shape.grid, shape.history, shape.layers, shape.reach)
    return context(shape, scope) + slots(shape, scope.filled)


def context(shape: Shape, scope: Scope) -> int:
    """The last layer makes keys and values of all, and goes on with the action alone."""
    tokens, layers = shape.history * shape.places + 1, shape.layers - 1
    linear = layers * tokens * 12 * shape.dim**2 + tokens * 3 * shape.dim**2
    return linear + 2 * shape.dim * sum(seen(scope.context, layer, tokens, tokens) for layer in range(layers))


def slots(shape: Shape, views: Views) -> int:
    tokens, keys = shape.places, (shape.history + 1) * shape.places + 1
    linear = tokens * shape.dim * (12 * shape.dim * shape.layers + shape.codes)
    return linear + 2 * shape.dim * sum(seen(views, layer, tokens, keys) for layer in range(shape.layers))


def seen(views: Views, layer: int, tokens: int, keys: int) -> int:
    """Pairs of a token and one that it sees, in one layer."""
    view = views[layer] if isinstance(views, list) else views
    if isinstance(view, Grouped):
        return int(view.mask.sum())
    assert not isinstance(view, Tensor)
    return tokens * keys if view == "all" else tokens * (keys - tokens) + tokens * (tokens + 1) // 2
