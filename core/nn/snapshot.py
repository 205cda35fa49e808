"""Networks and generators as the arrays of a snapshot, and back, exact to the bit."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from agentctl.core.types import Array, Arrays


def module_arrays(module: nn.Module, prefix: str) -> dict[str, Array]:
    """Every parameter and buffer as ``prefix/name``."""
    return {f"{prefix}/{name}": _array(tensor) for name, tensor in module.state_dict().items()}


def load_module(module: nn.Module, arrays: Arrays, prefix: str) -> None:
    """Raises RuntimeError, naming the parameters, when the arrays are those of another network."""
    module.load_state_dict({name: torch.from_numpy(array) for name, array in _under(arrays, prefix).items()})


def generator_array(generator: torch.Generator) -> Array:
    """The state of a CPU generator, uint8 (5056,)."""
    return generator.get_state().numpy().copy()


def load_generator(generator: torch.Generator, array: Array) -> None:
    generator.set_state(torch.from_numpy(array.copy()))


def _array(tensor: Tensor) -> Array:
    return tensor.detach().cpu().numpy().copy()


def _under(arrays: Arrays, prefix: str) -> dict[str, Array]:
    return {name.removeprefix(f"{prefix}/"): array for name, array in arrays.items() if name.startswith(f"{prefix}/")}
