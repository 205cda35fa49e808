"""The door between the framework's numpy arrays and a component's torch tensors."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from agentctl.core.types import Array, Arrays


def to_tensor(array: Array, device: torch.device) -> Tensor:
    """On the CPU without a copy where the array is writable: what is then written to one is written to both."""
    return torch.from_numpy(np.require(array, requirements=("C", "W"))).to(device)


def to_tensors(arrays: Arrays, device: torch.device) -> dict[str, Tensor]:
    return {key: to_tensor(array, device) for key, array in arrays.items()}


def to_array(tensor: Tensor) -> Array:
    return tensor.detach().cpu().numpy()


def to_arrays(tensors: Mapping[str, Tensor]) -> dict[str, Array]:
    return {key: to_array(tensor) for key, tensor in tensors.items()}
