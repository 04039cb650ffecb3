"""A whole training run: from a dataset folder to checkpoints, metrics and pictures."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sshr_deploy.errors import TrainingError
from sshr_deploy.model import SSHR, ModelConfig
from sshr_deploy.model.checkpoint import load_checkpoint, save_checkpoint
from sshr_deploy.runtime.evaluation.sheet import write_sheet
from sshr_deploy.runtime.evaluation.split import TruthImage
from sshr_deploy.train.curves import write_curves
from sshr_deploy.train.dataset import TrainingPatch, read_training_set
from sshr_deploy.train.history import EpochRow, History, Reporter, ValScores, best_row
from sshr_deploy.train.initial_weights import load_initial_weights, new_model
from sshr_deploy.train.interrupt import StopRequest
from sshr_deploy.train.job import (
    TrainingJob,
    begin_run,
    check_job,
    check_resumed,
    checkpoint_header,
    describe_run,
)
from sshr_deploy.train.loading import EpochBatches, default_workers, open_loader
from sshr_deploy.train.losses import total_loss
from sshr_deploy.train.meter import EpochMeter, epoch_means, epoch_row
from sshr_deploy.train.network import TrainingNetwork, build_forward
from sshr_deploy.train.optimiser import build_optimiser, rate_factor, set_rate
from sshr_deploy.train.processes import Processes, join_processes
from sshr_deploy.train.run_checkpoint import (
    BEST_NAME,
    LAST_NAME,
    Position,
    generator_states,
    load_run,
    save_run,
    set_generator_states,
)
from sshr_deploy.train.trainer import Trainer
from sshr_deploy.train.validation import read_val_split, validate

CURVES_NAME = "curves.png"
SHEET_NAME = "val_overlays.png"


@dataclass(frozen=True)
class TrainingResult:
    """How a run ended."""

    rows: tuple[EpochRow, ...]
    interrupted: bool
    """Stopped by Ctrl-C or SIGTERM, after a checkpoint; `--resume` goes on."""
    first: bool
    """Whether this is the process that prints and writes."""


def train(job: TrainingJob, reporter: Reporter) -> TrainingResult:
    """Train to the end of the recipe, or until interrupted; see `TrainingJob`.

    Every process of a `torchrun` calls this; the first one reports and writes. On one CPU a run
    that was killed and resumed ends in the same weights, bit for bit, as an undisturbed one.

    Raises:
        UsageError: see `check_job`; or a batch that cannot be divided.
        DatasetError: files of `training` or `val` cannot be used; all are listed.
        CheckpointError: the initial weights or the checkpoint to resume cannot be used.
        TrainingError: the loss is not finite; or the run to resume is another one.
        OutputError: a result cannot be written.
    """
    with join_processes() as processes:
        patches, val, description = processes.broadcast(
            _prepare(job, reporter) if processes.first else None
        )
        run = _Run(job, reporter, processes, patches, val, description)
        try:
            if processes.first:
                begin_run(job, description)
            with StopRequest() as stop:
                interrupted = run.train(lambda: stop.wanted)
            if processes.first and not interrupted:
                run.draw()
        finally:
            run.close()
        return TrainingResult(run.history.rows, interrupted, processes.first)


def _prepare(
    job: TrainingJob, reporter: Reporter
) -> tuple[tuple[TrainingPatch, ...], tuple[TruthImage, ...], dict[str, Any]]:
    """Everything that is read and checked before the first step."""
    check_job(job)
    patches = read_training_set(job.dataset, job.profile)
    val = read_val_split(job.dataset, job.profile)
    without = "no val split: the best epoch is that of least loss"
    found = f"{len(val)} val images" if val else without
    reporter.message(f"{len(patches)} training patches, {found}")
    description = describe_run(job, patches)
    if job.resume:
        check_resumed(job, description)
    return patches, val, description


def _diverged(position: Position) -> TrainingError:
    return TrainingError(
        f"the network's numbers overflowed in epoch {position.epoch + 1}, step {position.step}; "
        "lower the recipe's learning_rate; the last checkpoint is from before"
    )


class _Run:
    """The parts of a run, put together, and its loop over epochs."""

    def __init__(
        self,
        job: TrainingJob,
        reporter: Reporter,
        processes: Processes,
        patches: Sequence[TrainingPatch],
        val: Sequence[TruthImage],
        description: dict[str, Any],
    ) -> None:
        self.job, self.recipe, self.reporter, self.processes = job, job.recipe, reporter, processes
        self.val, self.header = val, checkpoint_header(description)
        self.history = History(job.out, [c.name for c in job.profile.classes])
        seed, device = self.recipe.seed, processes.device
        self.batches = EpochBatches(
            len(patches), self.recipe.batch, seed, processes.rank, processes.world
        )
        self.steps_per_epoch = self.batches.steps
        self.model = self._initial_model().to(device)
        self.network = TrainingNetwork(self.model, self.recipe)
        self.optimiser = build_optimiser(self.model, self.recipe)
        self.position, self.meter = self._where_it_stands()
        forward = build_forward(self.network, self.recipe, processes)
        files = [patch.path for patch in patches]
        self.trainer = Trainer(forward, self.optimiser, device, files)
        workers = job.workers
        if workers is None:
            workers = default_workers(device.type, processes.world_here)
        self.loader = open_loader(
            patches,
            self.batches,
            self.recipe.augmentation,
            seed,
            workers=workers,
            pin_memory=device.type == "cuda",
        )
        self.saved_at = time.monotonic()

    def train(self, stop_wanted: Callable[[], bool]) -> bool:
        """All epochs that are left; returns whether it was stopped before the end."""
        epochs = self.recipe.epochs
        if self.processes.first:
            self.reporter.run_started(
                self.recipe.title, epochs, self.steps_per_epoch, self.position.epoch
            )
        while self.position.epoch < epochs:
            if self._train_epoch(stop_wanted):
                return True
            self._finish_epoch()
        return False

    def draw(self) -> None:
        """Pictures of the curves, and of val images as the best epoch's weights segment them."""
        names = [c.name for c in self.job.profile.classes]
        rows, out = self.history.rows, self.job.out
        write_curves(out / CURVES_NAME, rows, names, f"{self.recipe.title}, width {self.job.width}")
        if self.val:
            best = load_checkpoint(out / BEST_NAME).to(self.processes.device)
            alone = Processes(0, 1, self.processes.device)
            scores, samples = validate(best, self.val, self.job.profile, alone)
            title = f"{self.job.profile.title}, val split: mean IoU {scores.mean_iou:.3f}"
            write_sheet(out / SHEET_NAME, samples, self.job.profile, title)

    def close(self) -> None:
        """Stop the loading workers, finish the event file."""
        self.loader.close()
        self.history.close()

    def _train_epoch(self, stop_wanted: Callable[[], bool]) -> bool:
        """The rest of the current epoch; True if it was stopped, after a checkpoint."""
        epoch, step = self.position.epoch, self.position.step
        self.network.train()
        self.batches.set_position(epoch, step)
        if self.processes.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        set_rate(self.optimiser, self._rate_factor(step))
        for losses in self.trainer.steps(iter(self.loader), self.meter):
            step += 1
            self.position = Position(epoch, step)
            self._report_step(losses)
            set_rate(self.optimiser, self._rate_factor(step))
            due = time.monotonic() - self.saved_at > 60 * self.recipe.checkpoint_minutes
            stopped, due = self._agreed(stop_wanted(), due)
            if stopped or (due and step < self.steps_per_epoch):
                self._check_weights()
                self._save_last()
            if stopped:
                return True
        return False

    def _finish_epoch(self) -> None:
        """Score, record, and write the checkpoints of the epoch that has just been trained."""
        started, scores = time.perf_counter(), None
        self._check_weights()
        if self.val:
            on_image = self.reporter.validating if self.processes.first else lambda *_: None
            scores, _ = validate(self.model, self.val, self.job.profile, self.processes, on_image)
        row = self._row(scores, time.perf_counter() - started)
        self.position, self.meter = Position(self.position.epoch + 1, 0), EpochMeter()
        if self.processes.first:
            self.history.append(row)
            is_best = best_row(self.history.rows) is row
            if is_best:
                save_checkpoint(self.model, self.job.out / BEST_NAME, metadata=self.header)
            self.reporter.epoch_finished(row, is_best)
        self._save_last()

    def _row(self, scores: ValScores | None, validation_s: float) -> EpochRow:
        on_cuda = self.processes.device.type == "cuda"
        return epoch_row(
            epoch_means(self.processes.total(self.meter.sums), self.processes.world),
            epoch=self.position.epoch + 1,
            steps=(self.position.epoch + 1) * self.steps_per_epoch,
            learning_rate=self.recipe.learning_rate * self._rate_factor(self.steps_per_epoch - 1),
            val=scores,
            validation_s=validation_s,
            peak_memory_mb=torch.cuda.max_memory_allocated() / 1e6 if on_cuda else None,
        )

    def _report_step(self, losses: Tensor) -> None:
        if self.processes.first:
            means = epoch_means(self.meter.sums)
            self.reporter.step_done(
                self.position.epoch + 1,
                self.position.step,
                total_loss(losses).item(),
                self.processes.world * means.patches / means.seconds,
                means.data_wait_s / means.seconds,
            )

    def _rate_factor(self, step_in_epoch: int) -> float:
        step = self.position.epoch * self.steps_per_epoch + step_in_epoch
        return rate_factor(step, self.recipe.epochs * self.steps_per_epoch, self.recipe)

    def _agreed(self, *wishes: bool) -> tuple[bool, ...]:
        """What any process wishes, so that all do the same."""
        return tuple((self.processes.total(torch.tensor(wishes, dtype=torch.int64)) > 0).tolist())

    def _check_weights(self) -> None:
        """A good checkpoint is never replaced by one that holds NaN or infinity."""
        if not all(tensor.isfinite().all() for tensor in self.model.state_dict().values()):
            raise _diverged(self.position)

    def _save_last(self) -> None:
        sums = self.processes.total(self.meter.sums)
        if self.processes.first:
            path = self.job.out / LAST_NAME
            save_run(path, self.model, self.optimiser, self.position, sums, self.header)
        self.saved_at = time.monotonic()

    def _initial_model(self) -> SSHR:
        """Random or given weights; `DistributedDataParallel` copies the first process's."""
        config = ModelConfig(self.job.profile.num_classes, self.job.width)
        model = new_model(config, self.recipe.seed)
        last = self.job.out / LAST_NAME
        if self.processes.first and self.job.init is not None and not last.exists():
            self.reporter.message(load_initial_weights(model, self.job.init).describe())
        return model

    def _where_it_stands(self) -> tuple[Position, EpochMeter]:
        """The beginning of the run, or its last checkpoint."""
        torch.manual_seed(self.recipe.seed)
        position, meter, path = Position(), EpochMeter(), self.job.out / LAST_NAME
        if self.processes.first and self.job.resume:
            if path.exists():
                position, meter.sums = load_run(path, self.model, self.optimiser)
            self.history.resume(position.epoch)
            self.reporter.message(
                f"going on from {position.epoch} epochs and {position.step} steps"
            )
        if self.processes.world > 1 and self.job.resume:
            position, state, rng = self.processes.broadcast(
                (position, self.optimiser.state_dict(), generator_states())
            )
            self.optimiser.load_state_dict(state)
            set_generator_states(rng)
        return position, meter
