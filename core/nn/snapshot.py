"""Networks, optimisers and generators as :class:`Snapshot` arrays, and back, exact to the bit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from agentctl.core.types import Array, Arrays


def module_arrays(module: nn.Module, prefix: str) -> dict[str, Array]:
    """Every parameter and buffer as ``prefix/name``."""
    return {f"{prefix}/{name}": _array(tensor) for name, tensor in module.state_dict().items()}


def load_module(module: nn.Module, arrays: Arrays, prefix: str) -> None:
    """Raises RuntimeError, naming the parameters, when the arrays are those of another network."""
    module.load_state_dict({name: torch.from_numpy(array) for name, array in _under(arrays, prefix).items()})


def optimizer_arrays(optimizer: torch.optim.Optimizer, prefix: str) -> dict[str, Array]:
    """Moments and step counts as ``prefix/parameter number/name``; learning rates are configuration, not state."""
    state: Mapping[int, Mapping[str, Any]] = optimizer.state_dict()["state"]
    return {f"{prefix}/{i}/{name}": _array(value) for i, entry in state.items() for name, value in entry.items()}


def load_optimizer(optimizer: torch.optim.Optimizer, arrays: Arrays, prefix: str) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, array in _under(arrays, prefix).items():
        number, _, key = name.partition("/")
        state.setdefault(int(number), {})[key] = torch.from_numpy(array.copy())
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def generator_array(generator: torch.Generator) -> Array:
    """The state of a CPU generator, uint8 (5056,)."""
    return generator.get_state().numpy().copy()


def load_generator(generator: torch.Generator, array: Array) -> None:
    generator.set_state(torch.from_numpy(array.copy()))


def _array(tensor: Tensor) -> Array:
    return tensor.detach().cpu().numpy().copy()


def _under(arrays: Arrays, prefix: str) -> dict[str, Array]:
    return {name.removeprefix(f"{prefix}/"): array for name, array in arrays.items() if name.startswith(f"{prefix}/")}
