"""Looks at what a component returned: B rows, in the declared space, right dtype, and nothing passed in changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from gymnasium import spaces

from agentctl.core.contracts.finding import Breach
from agentctl.core.contracts.samples import copies, misfit, same
from agentctl.core.types import Array, Arrays, Batch, Carry, Step

Outputs = dict[str, Array]
"""What a component returned, by name."""


@contextmanager
def untouched(verb: str, *given: Mapping[str, Array]) -> Iterator[None]:
    """Raise Breach when the call in this block changed an array that was passed to it."""
    before = [copies(arrays) for arrays in given]
    yield
    for arrays, held in zip(given, before, strict=True):
        if changed := same(held, arrays):
            raise Breach(
                f"{verb}() changed {changed!r}, which was passed to it", "copy an array before writing into it"
            )


def rows_of(arrays: Arrays, space: spaces.Dict, rows: int, what: str) -> Outputs:
    """``arrays``, checked to be exactly the named B rows of ``space``."""
    if set(arrays) != set(space.spaces):
        raise Breach(f"{what} gives {sorted(arrays)}; its space declares {sorted(space.spaces)}", "make the two agree")
    for key, value in arrays.items():
        if problem := misfit(value, space[key], rows):
            raise Breach(f"{what}[{key!r}] {problem}", f"return (B, ...) arrays that lie in {space[key]}")
    return dict(arrays)


def column(array: Any, dtype: type[np.generic], rows: int, what: str) -> Array:
    """``array``, checked to be (B,) of ``dtype`` and finite."""
    wanted = f"{np.dtype(dtype).name} ({rows},)"
    if not isinstance(array, np.ndarray) or array.shape != (rows,) or array.dtype != dtype:
        found = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise Breach(f"{what} is {found}, not {wanted}", f"return a numpy array, {np.dtype(dtype).name} (B,)")
    if not np.isfinite(array).all():
        raise Breach(f"{what} is not finite", "find the division or the logarithm that goes wrong")
    return array


def with_rows(array: Any, rows: int, what: str) -> Array:
    """``array``, checked to have the leading B."""
    if not isinstance(array, np.ndarray) or array.shape[:1] != (rows,):
        raise Breach(f"{what} has shape {np.shape(array)}; the first axis must be B = {rows}", "keep one row per game")
    return array


def carried(carry: Carry, rows: int) -> Outputs:
    return {f"carry {key}": with_rows(value, rows, f"carry[{key!r}]") for key, value in carry.items()}


def step_outputs(step: Step, space: spaces.Dict, rows: int) -> Outputs:
    """A game's step, checked and by name."""
    outputs = rows_of(step.observation, space, rows, "step().observation")
    outputs["step reward"] = column(step.reward, np.float32, rows, "step().reward")
    outputs["step ended"] = column(step.ended, np.bool_, rows, "step().ended")
    outputs["step cut"] = column(step.cut, np.bool_, rows, "step().cut")
    if step.final is not None:
        final = rows_of(step.final.arrays, space, len(step.final.rows), "step().final")
        outputs |= {f"final {key}": value for key, value in final.items()}
    return outputs


def learnt(part: Any, batch: Batch) -> Outputs:
    """One learning step: its metrics as arrays, checked to be finite; the batch stays as it was."""
    fields = {
        "reward": batch.reward,
        "action": batch.action,
        "first": batch.first,
        "ended": batch.ended,
        "cut": batch.cut,
    }
    with untouched("learn", fields, batch.state, batch.next_state, batch.extras, batch.carry, batch.final_state):
        metrics = part.learn(batch)
    for name, value in metrics.items():
        if not isinstance(value, float) or not np.isfinite(value):
            raise Breach(f"learn() reports {name} = {value!r}", "report finite Python floats")
    return {f"metric {name}": np.array(value) for name, value in metrics.items()}
