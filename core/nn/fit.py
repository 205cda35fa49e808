"""A network that learns: weights in float32, a copy that computes in another format, and Adam's update in threads."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from pydantic import Field
from torch import Tensor, nn

from agentctl.core.nn.adam import ShardedAdam
from agentctl.core.nn.precision import Device, Precision, device_of, dtype_of, usable_cores
from agentctl.core.nn.shards import Shards, one_core, slices
from agentctl.core.nn.snapshot import load_module, module_arrays
from agentctl.core.protocols import BaseConfig
from agentctl.core.types import Array, Arrays

Net = TypeVar("Net", bound=nn.Module)


class FitConfig(BaseConfig):
    """How a network learns, and on what it computes."""

    lr: float = Field(3e-4, gt=0, description="Adam's learning rate")
    max_grad_norm: float = Field(1.0, gt=0, description="longer gradients are shortened to this")
    precision: Precision = Field("auto", description="auto: bf16 where the hardware has it")
    device: Device = Field("auto", description="auto: the GPU if there is one")
    threads: int | None = Field(None, gt=0, description="CPU cores to use; null: all")


class Fit(Generic[Net]):
    """``net`` holds the weights; ``fast`` is what computes: ``net`` itself, or its copy in another format."""

    def __init__(self, make: Callable[[], Net], config: FitConfig, seed: int) -> None:
        """``make`` builds the network, its weights drawn from ``seed``."""
        self._config, self.device = config, device_of(config.device)
        with one_core(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = make().to(self.device)
        dtype = dtype_of(config.precision, self.device)
        self.fast = self.net if dtype == torch.float32 else copy.deepcopy(self.net).to(dtype)
        weights, twins = (list(net.parameters()) for net in (self.net, self.fast))
        self.shards = Shards((config.threads or usable_cores()) if self.device.type == "cpu" else 1)
        self._adam = ShardedAdam(weights, [] if self.fast is self.net else twins, self.shards)
        self.nbytes = 16 * sum(weight.numel() for weight in weights)  # weights, gradients, two moments

    def update(self, losses: Callable[[slice], Tensor], count: int) -> Tensor:
        """One step down the sum of ``losses`` of all parts of ``count`` samples; returns the sums of each (n,)."""

        def total(part: slice) -> tuple[Tensor, Tensor]:
            found = losses(part)
            return found.sum(), found

        parts = slices(count, self.shards.threads)
        gradients, found = self.shards.gradients(total, parts, list(self.fast.parameters()))
        self._adam.step(gradients, self._config.lr, self._config.max_grad_norm)
        return found

    def take_over(self, arrays: Arrays) -> None:
        """Begin with the weights of another network, by name as in ``arrays()``; what Adam remembers stays."""
        load_module(self.net, arrays, "net")
        self._adam.refresh()

    def arrays(self) -> dict[str, Array]:
        return {**module_arrays(self.net, "net"), **self._adam.arrays("adam")}

    def load(self, arrays: Arrays) -> None:
        load_module(self.net, arrays, "net")
        self._adam.load(arrays, "adam")
        self._adam.refresh()
