"""State of a run between two steps: saved to a checkpoint, and restored from one."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch.utils import _pytree as pytree

from sshr_deploy.errors import TrainingError
from sshr_deploy.model import SSHR, ModelConfig
from sshr_deploy.model.checkpoint import save_checkpoint
from sshr_deploy.train.averaging import begin_average, update_average
from sshr_deploy.train.best import best_row
from sshr_deploy.train.history import EpochRow, History, TrainingReporter
from sshr_deploy.train.initial_weights import load_initial_weights, new_model
from sshr_deploy.train.job import TrainingJob, checkpoint_header
from sshr_deploy.train.meter import EpochMeter
from sshr_deploy.train.network import TrainingNetwork, place
from sshr_deploy.train.optimiser import build_optimiser
from sshr_deploy.train.processes import Processes
from sshr_deploy.train.run_checkpoint import (
    BEST_NAME,
    LAST_NAME,
    Position,
    generator_states,
    load_run,
    save_run,
    set_generator_states,
)
from sshr_deploy.train.training_tissue import NOTHING, Described, TrainingTissue


class RunState:
    """Network, optimiser, position, sums of the epoch and history of a run.

    A new one is at the beginning, with random or given weights, or at the last checkpoint of the
    run to resume. `tissue` is what checkpoints of the first process tell of, where the recipe wants
    that.
    """

    def __init__(
        self,
        job: TrainingJob,
        reporter: TrainingReporter,
        processes: Processes,
        description: dict[str, Any],
        tissue: TrainingTissue | None,
    ) -> None:
        self.job, self.reporter, self.processes = job, reporter, processes
        self.tissue = tissue
        self.header = checkpoint_header(description)
        self.history = History(job.out, [c.name for c in job.profile.classes])
        self.position, self.meter = Position(), EpochMeter()
        self.model = place(self._initial_model(), job.recipe, processes.device)
        self.network = TrainingNetwork(self.model, job.recipe)
        self.optimiser = build_optimiser(self.model, job.recipe)
        self.average = begin_average(self.model) if job.recipe.average_weights else None
        torch.manual_seed(job.recipe.seed)
        if job.resume:
            self._resume()
        if self.average is not None:
            processes.share(self.average.state_dict().values())
        self.saved_at = time.monotonic()

    @property
    def scored(self) -> SSHR:
        """What is scored and exported: the average of the weights where there is one."""
        return self.average or self.model

    def step_done(self, step: int, steps_per_epoch: int) -> None:
        """Take note of a step of the current epoch."""
        self.position = Position(self.position.epoch, step)
        if self.average is not None:
            steps = self.position.epoch * steps_per_epoch + step
            update_average(self.average, self.model, self.job.recipe.average_weights, steps)

    def save_last(self, told: Described = NOTHING) -> None:
        """Write the checkpoint to go on from, with what is `told` of the training set.

        Raises:
            TrainingError: a weight is not finite; a good checkpoint is never replaced by such.
            OutputError: it cannot be written.
        """
        self.check_weights()
        sums = self.processes.total(self.meter.sums)
        if self.processes.first:
            path, header = self.job.out / LAST_NAME, {**self.header, **told.header}
            at, aside = self.position, told.tensors
            save_run(path, self.model, self.optimiser, at, sums, header, aside, self.average)
        self.saved_at = time.monotonic()

    def settle_norms(self) -> None:
        """Give batch norms that learn their precise statistics, the same in all processes.

        Raises:
            TrainingError: a weight is not finite.
        """
        if self.tissue is not None:
            self.tissue.settle(self.scored)
        self.processes.share(self.scored.buffers())
        self.check_weights()

    def finish_epoch(self, row: EpochRow) -> None:
        """Record an epoch: its row, then the checkpoint after it, then whether it is the best.

        A run that is killed in between repeats the epoch or writes the best again.
        """
        self.position, self.meter = Position(self.position.epoch + 1, 0), EpochMeter()
        is_best, told = False, NOTHING
        if self.processes.first:
            self.history.append(row)
            is_best = best_row(self.history.rows) is row
            if is_best or self.position.epoch == self.job.recipe.epochs:
                told = self._told()
        self.save_last(told)
        if self.processes.first:
            if is_best:
                self._save_best(told)
            self.reporter.epoch_finished(row, is_best)

    def check_weights(self) -> None:
        """Refuse weights that are NaN or infinite.

        Raises:
            TrainingError: some are.
        """
        networks = {self.model, self.scored}
        tensors = (tensor for network in networks for tensor in network.state_dict().values())
        if not all(tensor.isfinite().all() for tensor in tensors):
            raise self.diverged()

    def diverged(self) -> TrainingError:
        """The error for numbers that overflow beyond a single batch."""
        return TrainingError(
            f"the network's numbers overflowed in epoch {self.position.epoch + 1}, "
            f"step {self.position.step}; lower the recipe's learning_rate and begin again with "
            "another `out`"
        )

    def _told(self) -> Described:
        return NOTHING if self.tissue is None else self.tissue.describe(self.scored)

    def _save_best(self, told: Described) -> None:
        metadata = {**self.header, **told.header}
        save_checkpoint(
            self.scored, self.job.out / BEST_NAME, metadata=metadata, aside=told.tensors
        )

    def _initial_model(self) -> SSHR:
        """Random or given weights; `DistributedDataParallel` copies the first process's."""
        config = ModelConfig(self.job.profile.num_classes, self.job.width)
        model = new_model(config, self.job.recipe.seed)
        begins = not (self.job.resume and (self.job.out / LAST_NAME).exists())
        if self.processes.first and self.job.init is not None and begins:
            self.reporter.message(load_initial_weights(model, self.job.init).describe())
        return model

    def _resume(self) -> None:
        path = self.job.out / LAST_NAME
        if self.processes.first:
            if path.exists():
                self.position, self.meter.sums = load_run(
                    path, self.model, self.optimiser, self.average
                )
            self.history.resume(self.position.epoch)
            rows = self.history.rows
            if rows and self.position.step == 0 and best_row(rows) is rows[-1]:
                self._save_best(self._told())  # it may have been killed before it did
            done = f"{self.position.epoch} epochs and {self.position.step} steps"
            self.reporter.message(f"going on after {done}")
        if self.processes.world > 1:
            # On the CPU, or every process would unpickle onto the first one's GPU.
            state = pytree.tree_map_only(
                torch.Tensor, torch.Tensor.cpu, self.optimiser.state_dict()
            )
            shared = self.processes.broadcast((self.position, state, generator_states()))
            self.position, state, generators = shared
            self.optimiser.load_state_dict(state)
            set_generator_states(generators)
