"""The component under examination: its class, an example configuration and a setup that it can be built on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from gymnasium import spaces
from pydantic import BaseModel

from agentctl.core.contracts.finding import Breach
from agentctl.core.contracts.stand_in import StandIn
from agentctl.core.pipeline import describe
from agentctl.core.protocols import Setup

BATCH = 8

CELLS = spaces.Dict({"cell": spaces.Discrete(9), "lantern": spaces.Discrete(3)})
NUMBERS = spaces.Dict({"numbers": spaces.Box(-1, 1, (4,), np.float32)})
PIXELS = spaces.Dict({"pixels": spaces.Box(0, 255, (64, 64, 3), np.uint8)})
FRAMES = spaces.Dict({"pixels": spaces.Box(0, 255, (4, 84, 84), np.uint8)})
TOKENS = spaces.Dict({"tokens": spaces.MultiDiscrete([16] * 8)})
MOVES = spaces.Discrete(4)
TWO_CHOICES = spaces.MultiDiscrete([3, 2])
STICK = spaces.Box(-1, 1, (2,), np.float32)

CANDIDATES: tuple[tuple[spaces.Dict, spaces.Space[Any]], ...] = (
    (CELLS, MOVES),
    (NUMBERS, MOVES),
    (PIXELS, MOVES),
    (FRAMES, MOVES),
    (TOKENS, MOVES),
    (NUMBERS, STICK),
    (NUMBERS, TWO_CHOICES),
)
"""What a component is tried on, in turn, when it does not say by a classmethod ``example_setup() -> Setup``."""


@dataclass(frozen=True)
class Subject:
    """A component that can be built again and again."""

    kind: str
    name: str
    component_class: type[Any]
    config: BaseModel
    setup: Setup = field(default_factory=lambda: Setup(batch=BATCH))

    def build(self, batch: int = BATCH) -> Any:
        """A fresh one, for B = ``batch``."""
        return self.component_class(self.config, replace(self.setup, batch=batch))


def example_options(component_class: type[Any]) -> dict[str, Any]:
    """Config values to examine with: the first of ``json_schema_extra["examples"]``; for the rest the defaults."""
    extra = component_class.Config.model_config.get("json_schema_extra")
    examples = extra.get("examples") if isinstance(extra, Mapping) else None
    return dict(examples[0]) if isinstance(examples, Sequence) and examples else {}


def fit(subject: Subject, setups: Sequence[Setup] = ()) -> Subject:
    """``subject`` on the first setup on which it can be built. Raises Breach with every refusal when there is none."""
    refusals = []
    for setup in [*_own_example(subject), *setups, *_candidates(subject)]:
        fitted = replace(subject, setup=replace(setup, batch=BATCH))
        try:
            close(fitted.build())
        except Exception as error:
            refusals.append(
                f"{describe(setup.space)} -> {describe(setup.action_space)}: {type(error).__name__}: {error}"
            )
        else:
            return fitted
    remedy = "give the class a classmethod `example_setup() -> Setup` with a space that it takes"
    raise Breach("cannot be built on any example:\n" + "\n".join(refusals), remedy)


def close(part: Any) -> None:
    """Give back what a part holds, if it holds something."""
    if hasattr(part, "close"):
        part.close()


def _own_example(subject: Subject) -> Iterator[Setup]:
    if hasattr(subject.component_class, "example_setup"):
        yield subject.component_class.example_setup()


def _candidates(subject: Subject) -> Iterator[Setup]:
    if subject.kind == "game":
        yield Setup()
        return
    for world_model in (None, StandIn()) if subject.kind == "policy" else (None,):
        for space, action_space in CANDIDATES:
            yield Setup(space=space, action_space=action_space, world_model=world_model)
