"""`pixels` and `vector`: pass the observation's arrays of one kind on, uncopied, and the mask of legal actions."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from gymnasium import spaces
from pydantic import Field

from agentctl.core.protocols import BaseConfig, Setup
from agentctl.core.types import Arrays

MASK = "action_mask"


class Select:
    """Chooses by shape and dtype, so that it fits a game whatever its arrays are called."""

    class Config(BaseConfig):
        kind: Literal["image", "vector"] = Field(description="`image`: uint8, 3-D or 4-D; `vector`: float, 1-D.")
        mask: bool = Field(True, description="Pass `action_mask` on; switch off where another perception does.")

    def __init__(self, config: Config, setup: Setup) -> None:
        given = setup.space.spaces
        chosen = {name: space for name, space in given.items() if kind_of(space) == config.kind}
        if not chosen:
            raise ValueError(f"the observation holds no {config.kind}; it holds {setup.space}")
        if config.mask and MASK in given:
            chosen[MASK] = given[MASK]
        self.space = spaces.Dict(chosen)
        self._names = tuple(chosen)

    def perceive(self, observation: Arrays) -> Arrays:
        """The chosen arrays, each (B, ...)."""
        return {name: observation[name] for name in self._names}


def kind_of(space: spaces.Space[Any]) -> str:
    """``image``, ``vector`` or ``other``."""
    if not isinstance(space, spaces.Box):
        return "other"
    if space.dtype == np.uint8 and len(space.shape) in (3, 4):
        return "image"
    return "vector" if len(space.shape) == 1 and np.issubdtype(space.dtype, np.floating) else "other"
