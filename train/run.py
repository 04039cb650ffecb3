"""A whole training run: from a dataset folder to checkpoints, metrics and pictures."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sshr_deploy.errors import CheckpointError, DatasetError, SessionError, TrainingError
from sshr_deploy.model.checkpoint import load_checkpoint
from sshr_deploy.runtime.evaluation.evaluate import evaluate_split
from sshr_deploy.runtime.evaluation.sheet import write_sheet
from sshr_deploy.runtime.evaluation.split import TruthImage
from sshr_deploy.runtime.machine.threads import Threads, use_threads
from sshr_deploy.train.best import best_row
from sshr_deploy.train.curves import write_curves
from sshr_deploy.train.dataset import TrainingPatch, read_training_set
from sshr_deploy.train.history import EpochRow, StepNews, TrainingReporter, ValScores
from sshr_deploy.train.interrupt import StopRequest
from sshr_deploy.train.job import (
    TrainingJob,
    begin_run,
    check_job,
    check_resumed,
    describe_run,
    run_threads,
    taken,
)
from sshr_deploy.train.loading import EpochBatches, default_workers, open_loader
from sshr_deploy.train.losses import total_loss
from sshr_deploy.train.meter import epoch_means, epoch_row
from sshr_deploy.train.model_session import ModelSession
from sshr_deploy.train.network import build_forward
from sshr_deploy.train.optimiser import rate_factor, set_rate
from sshr_deploy.train.processes import join_processes
from sshr_deploy.train.run_checkpoint import BEST_NAME
from sshr_deploy.train.run_state import RunState
from sshr_deploy.train.trainer import Trainer
from sshr_deploy.train.training_tissue import TrainingTissue
from sshr_deploy.train.validation import Stopped, read_val_split, validate

CURVES_NAME = "curves.png"
SHEET_NAME = "val_overlays.png"
_SHEET_IMAGES = 6


@dataclass(frozen=True)
class TrainingResult:
    """How a run ended."""

    rows: tuple[EpochRow, ...]
    interrupted: bool
    """Stopped by Ctrl-C or SIGTERM, after a checkpoint; resuming goes on."""
    first: bool
    """Whether this is the process that prints and writes."""


def train(job: TrainingJob, reporter: TrainingReporter) -> TrainingResult:
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
    with join_processes() as processes, ExitStack() as stack:
        if processes.first:
            check_job(job)
            stack.enter_context(taken(job.out))
        patches, val, description = processes.broadcast(
            _prepare(job, processes.world_here, reporter) if processes.first else None
        )
        if not processes.first:  # the first one computes so already
            use_threads(Threads(description["threads"], "as the first process"))
        tissue = None
        if processes.first and job.recipe.precise_statistics:
            tissue = TrainingTissue(job, patches, reporter.warning)
        state = RunState(job, reporter, processes, description, tissue)
        run = _Run(state, patches, val)
        if processes.first:
            begin_run(job, description)
        with closing(state.history), closing(run.loader):
            with StopRequest() as stop:
                interrupted = run.train(lambda: stop.wanted)
            if processes.first and not interrupted:
                _draw(state, val)
        return TrainingResult(state.history.rows, interrupted, processes.first)


def _prepare(
    job: TrainingJob, processes: int, reporter: TrainingReporter
) -> tuple[tuple[TrainingPatch, ...], tuple[TruthImage, ...], dict[str, Any]]:
    """Everything that is read and checked before the first step."""
    patches, val = _read_dataset(job, reporter)
    without = "no val split: the best epoch is that of least loss"
    found = f"{len(val)} val images" if val else without
    reporter.message(f"{len(patches)} training patches, {found}")
    threads = run_threads(job, processes, reporter.warning)
    use_threads(threads)
    reporter.message(f"computing with {threads}")
    description = describe_run(job, patches, len(val), threads.count)
    if job.resume:
        check_resumed(job, description, reporter.warning)
    return patches, val, description


def _read_dataset(
    job: TrainingJob, reporter: TrainingReporter
) -> tuple[tuple[TrainingPatch, ...], tuple[TruthImage, ...]]:
    """Training patches and val images; the problems of both are raised together."""
    try:
        patches = read_training_set(job.dataset, job.profile, reporter.checking)
    except DatasetError as error:
        try:
            read_val_split(job.dataset, job.profile)
        except DatasetError as more:
            problems = (*(error.problems or [str(error)]), *(more.problems or [str(more)]))
            raise DatasetError(f"{error}; and {more}", problems) from error
        raise
    return patches, read_val_split(job.dataset, job.profile)


def _draw(state: RunState, val: Sequence[TruthImage]) -> None:
    """Pictures of the curves, and of val images as the best epoch's weights segment them."""
    job, rows = state.job, state.history.rows
    names = [c.name for c in job.profile.classes]
    title = f"{job.recipe.title}, width {job.width}"
    write_curves(job.out / CURVES_NAME, rows, names, title)
    best = best_row(rows)
    if best is None or best.val is None:
        return
    try:
        model = load_checkpoint(job.out / BEST_NAME)
    except CheckpointError as error:  # lost since it was written
        state.reporter.warning(f"no {SHEET_NAME}: {error}")
        return
    session = ModelSession(model.to(state.processes.device))
    shown = val[:: -(-len(val) // _SHEET_IMAGES)]
    samples = evaluate_split(shown, session, job.profile).samples
    title = f"{job.profile.title}, val split: mean IoU {best.val.mean_iou:.3f}"
    write_sheet(job.out / SHEET_NAME, samples, job.profile, title)


class _Run:
    """The loop over epochs and steps."""

    def __init__(
        self, state: RunState, patches: Sequence[TrainingPatch], val: Sequence[TruthImage]
    ) -> None:
        self.state, self.val = state, val
        self.recipe, self.processes = state.job.recipe, state.processes
        self.reporter = state.reporter
        device, seed = self.processes.device, self.recipe.seed
        self.batches = EpochBatches(
            len(patches), self.recipe.batch, seed, self.processes.rank, self.processes.world
        )
        position = state.position
        if position.epoch > self.recipe.epochs or position.step > self.batches.steps:
            raise TrainingError(f"{state.job.out} holds a checkpoint of a longer run; restore it")
        forward = build_forward(state.network, self.recipe, self.processes)
        files = [patch.path for patch in patches]
        self.trainer = Trainer(forward, state.optimiser, device, files)
        workers = state.job.workers
        if workers is None:
            workers = default_workers(device.type, self.processes.world_here)
        self.loader = open_loader(
            patches,
            self.batches,
            self.recipe.augmentation,
            seed,
            workers=workers,
            pin_memory=device.type == "cuda",
        )

    def train(self, stop_wanted: Callable[[], bool]) -> bool:
        """All epochs that are left; returns whether it was stopped before the end."""
        epochs = self.recipe.epochs
        if self.processes.first:
            done = self.state.position.epoch
            self.reporter.run_started(self.recipe.title, epochs, self.batches.steps, done)
        while self.state.position.epoch < epochs:
            try:
                self._train_epoch(stop_wanted)
                self._finish_epoch(stop_wanted)
            except Stopped:
                return True
        return False

    def _train_epoch(self, stop_wanted: Callable[[], bool]) -> None:
        """The rest of the current epoch.

        Raises:
            Stopped: as wished, after a checkpoint.
        """
        state = self.state
        epoch, step = state.position.epoch, state.position.step
        state.network.train()
        self.batches.set_position(epoch, step)
        if self.processes.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        set_rate(state.optimiser, self._rate_factor(step))
        for losses in self.trainer.steps(iter(self.loader), state.meter):
            step += 1
            state.step_done(step, self.batches.steps)
            self._report_step(losses)
            set_rate(state.optimiser, self._rate_factor(step))
            due = time.monotonic() - state.saved_at > 60 * self.recipe.checkpoint_minutes
            stopped, due = self._agreed(stop_wanted(), due)
            if stopped or (due and step < self.batches.steps):
                state.save_last()
            if stopped:
                raise Stopped

    def _finish_epoch(self, stop_wanted: Callable[[], bool]) -> None:
        """Score and record the epoch that has just been trained.

        Raises:
            Stopped: as wished, while scoring; the checkpoint is from after the last step.
        """
        state, scores = self.state, None
        started = time.perf_counter()
        if self.val:
            state.save_last()
        state.settle_norms()
        if self.val:
            scores = self._validate(stop_wanted)
        on_cuda = self.processes.device.type == "cuda"
        row = epoch_row(
            epoch_means(self.processes.total(state.meter.sums), self.processes.world),
            epoch=state.position.epoch + 1,
            steps=(state.position.epoch + 1) * self.batches.steps,
            learning_rate=self.recipe.learning_rate * self._rate_factor(self.batches.steps - 1),
            val=scores,
            validation_s=time.perf_counter() - started,
            peak_memory_mb=torch.cuda.max_memory_allocated() / 1e6 if on_cuda else None,
        )
        state.finish_epoch(row)

    def _validate(self, stop_wanted: Callable[[], bool]) -> ValScores:
        def on_image(done: int, total: int) -> None:
            if self.processes.first:
                self.reporter.validating(done, total)
            if stop_wanted() and self.processes.world == 1:  # several would wait for each other
                raise Stopped

        job = self.state.job
        try:
            return validate(self.state.scored, self.val, job.profile, self.processes, on_image)
        except SessionError as error:
            raise self.state.diverged() from error

    def _report_step(self, losses: Tensor) -> None:
        if self.processes.first:
            means = epoch_means(self.state.meter.sums)
            news = StepNews(
                epoch=self.state.position.epoch + 1,
                step=self.state.position.step,
                loss=total_loss(losses).item(),
                patches_per_s=self.processes.world * means.patches / means.seconds,
                data_wait_share=means.data_wait_s / means.seconds,
            )
            self.reporter.step_done(news)

    def _rate_factor(self, step_in_epoch: int) -> float:
        step = self.state.position.epoch * self.batches.steps + step_in_epoch
        return rate_factor(step, self.recipe.epochs * self.batches.steps, self.recipe)

    def _agreed(self, *wishes: bool) -> tuple[bool, ...]:
        """Whether any process wishes it, so that all do the same."""
        return tuple((self.processes.total(torch.tensor(wishes, dtype=torch.int64)) > 0).tolist())
