"""One epoch of training, step by step."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.optim import Optimizer

from sshr_deploy.errors import TrainingError
from sshr_deploy.train.loading import Batch
from sshr_deploy.train.losses import head_losses, total_loss
from sshr_deploy.train.meter import EpochMeter
from sshr_deploy.train.network import Forward


class Trainer:
    """Takes optimiser steps on batches and adds them up in a meter."""

    def __init__(
        self,
        forward: Forward,
        optimiser: Optimizer,
        device: torch.device,
        files: Sequence[Path],
    ) -> None:
        self.forward = forward
        self.optimiser = optimiser
        self.device = device
        self.files = files

    def steps(self, batches: Iterator[Batch], meter: EpochMeter) -> Iterator[Tensor]:
        """Train on `batches`, adding to `meter`; yields the heads' losses [4] after each step.

        The next batch is fetched while a GPU still computes, so the data's share of the time is
        only that in which the device had nothing to do.

        Raises:
            TrainingError: a loss or gradient is NaN or infinite; names the batch's files. The
                weights are those before that step.
        """
        started = time.perf_counter()
        batch = next(batches, None)
        waited = time.perf_counter() - started
        while batch is not None:
            labels = batch.labels.to(self.device, non_blocking=True)
            logits = self.forward(batch.rgb.to(self.device, non_blocking=True))
            losses = head_losses(logits, labels)
            self.optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(total_loss(losses))
            upcoming, next_waited = self._fetch(batches)
            losses = losses.detach().cpu()
            self._check_finite("loss", total_loss(losses), batch)
            self._check_finite("gradient", self._gradient_norm(), batch)
            self.optimiser.step()
            meter.add(losses, logits.detach().cpu(), batch.labels)
            now = time.perf_counter()
            meter.add_time(now - started, waited)
            started, batch, waited = now, upcoming, next_waited
            yield losses

    def _fetch(self, batches: Iterator[Batch]) -> tuple[Batch | None, float]:
        """The next batch, and the seconds in which the device stood idle for it."""
        computed = None
        if self.device.type == "cuda":
            computed = torch.cuda.Event()  # type: ignore[no-untyped-call]
            computed.record()
        start = time.perf_counter()
        batch = next(batches, None)
        waited = time.perf_counter() - start
        busy = computed is not None and not computed.query()  # type: ignore[no-untyped-call]
        return batch, 0.0 if busy else waited

    def _gradient_norm(self) -> Tensor:
        parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])

    def _check_finite(self, what: str, value: Tensor, batch: Batch) -> None:
        if value.isfinite():
            return
        names = ", ".join(self.files[i].name for i in batch.indices.tolist())
        raise TrainingError(
            f"the {what} is {value.item()} on the batch {names}; look at these files or "
            "lower the recipe's learning_rate and begin again with another `out`"
        )
