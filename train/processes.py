"""The processes of a run: one alone, or those that PyTorch's launcher `torchrun` started."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed

from sshr_deploy.errors import TrainingError, UsageError

_PATIENCE = timedelta(hours=2)  # the others wait while the first one checks a large dataset


@dataclass(frozen=True)
class Processes:
    """This process among those of the run, and its device."""

    rank: int
    world: int
    device: torch.device
    world_here: int = 1
    """Those on this machine."""

    @property
    def first(self) -> bool:
        """Whether this process prints and writes."""
        return self.rank == 0

    def broadcast(self, value: Any) -> Any:
        """The first process's `value`, on all of them."""
        if self.world == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values, src=0, device=self.device)
        return values[0]

    def total(self, value: Tensor) -> Tensor:
        """Sum over the processes of `value`, on the CPU."""
        if self.world == 1:
            return value.cpu()
        summed = value.to(self.device, copy=True)  # all_reduce writes into it
        distributed.all_reduce(summed)
        return summed.cpu()

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Give all processes the first one's values."""
        if self.world > 1:
            for tensor in tensors:
                distributed.broadcast(tensor, 0)


def _from_launcher(name: str, default: int) -> int:
    try:
        return int(os.environ.get(name, default))
    except ValueError as error:
        raise _not_from_launcher(name) from error


def _not_from_launcher(names: str) -> UsageError:
    return UsageError(f"the environment's {names} are not torchrun's; unset them or use torchrun")


@contextmanager
def join_processes() -> Iterator[Processes]:
    """Join the group that `torchrun` describes in the environment, NCCL on GPUs and gloo on CPUs.

    Without `torchrun` this is one process, on the first GPU if there is one.

    Raises:
        UsageError: the environment makes no sense, or there are more processes than GPUs.
        TrainingError: another process has ended.
    """
    world, rank = _from_launcher("WORLD_SIZE", 1), _from_launcher("RANK", 0)
    here, local = _from_launcher("LOCAL_WORLD_SIZE", 1), _from_launcher("LOCAL_RANK", 0)
    if not (0 <= rank < world and 0 <= local < here):
        raise _not_from_launcher("RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE")
    if world > 1 and not {"MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        raise _not_from_launcher("WORLD_SIZE")
    cuda = torch.cuda.is_available()
    if cuda and local >= torch.cuda.device_count():
        raise UsageError(
            f"process {local + 1} of this machine has no GPU of its own, there are "
            f"{torch.cuda.device_count()}; lower --nproc-per-node"
        )
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    if world > 1:
        backend = "nccl" if cuda else "gloo"
        distributed.init_process_group(backend, rank=rank, world_size=world, timeout=_PATIENCE)
    try:
        yield Processes(rank, world, device, here)
    except RuntimeError as error:
        if world > 1 and "gloo" in str(error):  # NCCL waits until torchrun ends the process
            raise TrainingError(
                "another process of this run has ended; its own message says why"
            ) from error
        raise
    # Not after an error: leaving the group ends the others, and our own message comes first.
    if world > 1:
        distributed.destroy_process_group()
