"""Gymnasium observation spaces as named arrays of fixed shape."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from agentctl.core.types import Array

ARRAYS = (spaces.Box, spaces.Discrete, spaces.MultiBinary, spaces.MultiDiscrete)


@dataclass(frozen=True, slots=True)
class Part:
    """One named array of an observation: its space, and how B of the environment's own become it."""

    space: spaces.Space[Any]
    convert: Callable[[Array], Array]


def has_named_arrays(space: spaces.Space[Any]) -> bool:
    """Whether `named_parts` takes ``space`` as it is; any other must be flattened first."""
    if isinstance(space, spaces.Dict):
        return all(isinstance(part, ARRAYS) for part in space.spaces.values())
    return isinstance(space, spaces.Box | spaces.Discrete)


def named_parts(space: spaces.Space[Any]) -> dict[str, Part]:
    """The arrays of an observation, by name.

    A Dict keeps its names and shapes. Alone, an image is ``pixels``, a Discrete ``index``, any other Box ``vector``.
    """
    if isinstance(space, spaces.Dict):
        return {name: _kept(part) for name, part in space.spaces.items()}
    if not isinstance(space, spaces.Box):
        return {"index": _kept(space)}
    if space.dtype == np.uint8 and len(space.shape) in (2, 3):
        return {"pixels": _image(space)}
    return {"vector": Part(_float32_box(space.low.ravel(), space.high.ravel()), _flat)}


def _kept(space: spaces.Space[Any]) -> Part:
    """The same shape; float32 instead of float64, which learners would only have to round."""
    if isinstance(space, spaces.Box) and space.dtype == np.float64:
        return Part(_float32_box(space.low, space.high), lambda array: array.astype(np.float32))
    return Part(space, lambda array: array)


def _image(space: spaces.Box) -> Part:
    """uint8 (H, W, C) as it is; gray (H, W) as a stack of one, (1, H, W)."""
    if len(space.shape) == 3:
        return _kept(space)
    return Part(spaces.Box(0, 255, (1, *space.shape), np.uint8), lambda array: array[:, None])


def _flat(array: Array) -> Array:
    """(B, ...) to float32 (B, n)."""
    return array.reshape(len(array), -1).astype(np.float32)


def _float32_box(low: Array, high: Array) -> spaces.Box:
    with np.errstate(over="ignore"):  # float64's largest number becomes float32's infinity
        return spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)
