"""A reporter that watches, and jobs on a few textures, for the tests of whole runs."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

from sshr_deploy.profiles import load_profile
from sshr_deploy.train.history import EpochRow, StepNews
from sshr_deploy.train.job import TrainingJob
from sshr_deploy.train.recipe import Optimiser, Recipe, TrainingPrecision, load_recipe

STEPS_PER_EPOCH = 3
SGD = replace(load_recipe("smoke"), checkpoint_minutes=1e6)
ADAMW = replace(
    SGD, optimiser=Optimiser.ADAMW, learning_rate=1e-3, precision=TrainingPrecision.BF16
)


class Watcher:
    """A reporter that keeps what it hears, and interrupts after a step if it is told to."""

    def __init__(self, interrupt_after: int | None = None) -> None:
        self.news: list[str] = []
        self.steps = 0
        self.interrupt_after = interrupt_after

    def run_started(self, description: str, epochs: int, steps_per_epoch: int, done: int) -> None:
        self.news.append(f"{epochs} epochs of {steps_per_epoch} steps, {done} done")

    def message(self, text: str) -> None:
        self.news.append(text)

    def warning(self, text: str) -> None:
        self.news.append(f"warning: {text}")

    def checking(self, done: int, total: int) -> None:
        assert 1 <= done <= total

    def step_done(self, news: StepNews) -> None:
        self.steps += 1
        assert news.patches_per_s > 0
        assert 0 <= news.data_wait_share <= 1
        if self.steps == self.interrupt_after:
            signal.raise_signal(signal.SIGINT)

    def validating(self, done: int, total: int) -> None:
        assert 1 <= done <= total

    def epoch_finished(self, row: EpochRow, is_best: bool) -> None:
        self.news.append(f"epoch {row.epoch}")


def make_job(dataset: Path, out: Path, recipe: Recipe = SGD, **changes: object) -> TrainingJob:
    profile = load_profile("demo/profile.toml")
    job = TrainingJob(dataset, profile, recipe, out, width=1, workers=0)
    return replace(job, **changes)  # type: ignore[arg-type]
