"""Several processes, as started by ``torchrun``; alone when there is no launcher."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed, nn

from atypia.models.hardware import choose_device, choose_precision, make_deterministic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from atypia.core.config.settings import RuntimeConfig


@dataclass(frozen=True)
class World:
    """One process among all that train together."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """The one process that writes files."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            distributed.barrier()

    def gather(self, value: Any) -> list[Any]:
        """Collect one picklable value of every process, in order of rank, in every process."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value)
        return values

    def all_true(self, value: bool) -> bool:
        """Whether it is true in every process; all get the same result, so all stop or none."""
        return all(self.gather(value)) if self.size > 1 else value

    def synchronise_buffers(self, *networks: nn.Module | None) -> None:
        """Take the first process's buffers: each has its own running means of batches."""
        if self.size > 1:
            for network in networks:
                for buffer in network.buffers() if network is not None else ():
                    distributed.broadcast(buffer, 0)

    def device(self, device: torch.device) -> torch.device:
        """Give this process its own GPU, where there are GPUs."""
        if self.size > 1 and device.type == "cuda":
            return torch.device("cuda", self.local_rank)
        return device


@dataclass(frozen=True)
class ComputePlace:
    """Where a training runs."""

    device: torch.device
    precision: torch.dtype
    world: World = field(default_factory=World)
    layout: torch.memory_format = torch.channels_last
    """Of images and kernels in memory; most networks are faster with channels last."""

    @classmethod
    def of(cls, runtime: RuntimeConfig, world: World | None = None) -> ComputePlace:
        """Set up this process, one of `world`, by the configuration."""
        world = world or World()
        device = world.device(choose_device(runtime.device))
        make_deterministic(device)
        if runtime.threads:
            torch.set_num_threads(runtime.threads)
        layout = torch.channels_last if runtime.channels_last else torch.contiguous_format
        return cls(device, choose_precision(runtime.precision, device), world, layout)

    def autocast(self) -> torch.autocast:
        """Make a context in which networks compute in `precision`."""
        reduced = self.precision != torch.float32
        return torch.autocast(self.device.type, self.precision, enabled=reduced)


@contextmanager
def world(device: torch.device) -> Iterator[World]:
    """Join the processes that ``torchrun`` started (NCCL on GPUs, gloo on CPUs)."""
    if "WORLD_SIZE" not in os.environ or int(os.environ["WORLD_SIZE"]) == 1:
        yield World()
        return
    local_rank = int(os.environ["LOCAL_RANK"])
    if device.type == "cuda":
        torch.cuda.set_device(local_rank)
    distributed.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        # The others wait while the first one predicts and evaluates between outer splits.
        timeout=timedelta(hours=12),
    )
    try:
        distributed.barrier()
        yield World(distributed.get_rank(), distributed.get_world_size(), local_rank)
    finally:
        distributed.destroy_process_group()
