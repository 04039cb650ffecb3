"""Output of `sshr-deploy train`: progress and news on stderr, the result on stdout."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from sshr_deploy.cli.tables import print_table
from sshr_deploy.cli.terminal import stderr_console, stdout_console
from sshr_deploy.errors import counted
from sshr_deploy.train.best import WINDOW, best_row, is_small, smoothed_iou, told_apart
from sshr_deploy.train.history import EpochRow, StepNews, TrainingReporter, ValScores

_LINE_EVERY_S = 10.0


@contextmanager
def make_training_reporter(*, quiet: bool) -> Iterator[TrainingReporter]:
    """A progress bar on a terminal, plain lines elsewhere, warnings only when quiet."""
    console = stderr_console()
    if quiet:
        yield QuietTrainingReporter(console)
    elif console.is_terminal:
        with _progress(console) as progress:
            yield BarTrainingReporter(progress)
    else:
        yield PlainTrainingReporter(console)


class QuietTrainingReporter:
    """Shows warnings only."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def run_started(
        self, description: str, epochs: int, steps_per_epoch: int, epochs_done: int
    ) -> None:
        """Nothing to say."""

    def message(self, text: str) -> None:
        """Nothing to say."""

    def warning(self, text: str) -> None:
        """One line."""
        self._print(f"warning: {text}")

    def checking(self, done: int, total: int) -> None:
        """Nothing to say."""

    def step_done(self, news: StepNews) -> None:
        """Nothing to say."""

    def validating(self, done: int, total: int) -> None:
        """Nothing to say."""

    def epoch_finished(self, row: EpochRow, is_best: bool) -> None:
        """Nothing to say."""

    def _print(self, line: str) -> None:
        self.console.print(line, markup=False)


class _SpokenReporter(QuietTrainingReporter):
    """Base of the bar and the plain lines: a line for each epoch and piece of news."""

    def run_started(
        self, description: str, epochs: int, steps_per_epoch: int, epochs_done: int
    ) -> None:
        """Say what is trained and for how long."""
        self.epochs, self.steps, self.epoch = epochs, steps_per_epoch, epochs_done
        length = f"{counted(epochs, 'epoch')} of {counted(steps_per_epoch, 'step')}"
        earlier = f", {epochs_done} done earlier" if epochs_done else ""
        self._print(f"{description}: {length}{earlier}")

    def message(self, text: str) -> None:
        """One line."""
        self._print(text)

    def epoch_finished(self, row: EpochRow, is_best: bool) -> None:
        """One line of losses, scores and speed."""
        self._print(epoch_line(row, self.epochs, is_best))


class PlainTrainingReporter(_SpokenReporter):
    """One line an epoch, and one every ten seconds within it."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.said = time.monotonic()

    def checking(self, done: int, total: int) -> None:
        """Say how far the check is, at most every ten seconds."""
        if done < total and self._is_time():
            self._print(f"  checked {done}/{total} files")

    def run_started(
        self, description: str, epochs: int, steps_per_epoch: int, epochs_done: int
    ) -> None:
        """Say what is trained and for how long."""
        super().run_started(description, epochs, steps_per_epoch, epochs_done)
        self.said = time.monotonic()
        self.first = (0, self.said)

    def step_done(self, news: StepNews) -> None:
        """Say how far the epoch is, at most every ten seconds."""
        if news.epoch != self.epoch:
            self.epoch, self.first = news.epoch, (news.step, time.monotonic())
        if news.step < self.steps and self._is_time():
            how = f"loss {news.loss:.4f}, {_speed(news.patches_per_s, news.data_wait_share)}"
            done = news.step - self.first[0]
            if done > 0:
                a_step = (time.monotonic() - self.first[1]) / done
                how += f", {_duration(a_step * (self.steps - news.step))} left"
            where = f"epoch {news.epoch}/{self.epochs}: {news.step}/{self.steps} steps"
            self._print(f"  {where}, {how}")

    def validating(self, done: int, total: int) -> None:
        """Say how far the validation is, at most every ten seconds."""
        if done < total and self._is_time():
            self._print(f"  epoch {self.epoch}/{self.epochs}: {done}/{total} val patches")

    def epoch_finished(self, row: EpochRow, is_best: bool) -> None:
        """One line of losses, scores and speed."""
        super().epoch_finished(row, is_best)
        self.said = time.monotonic()

    def _is_time(self) -> bool:
        now = time.monotonic()
        if now - self.said < _LINE_EVERY_S:
            return False
        self.said = now
        return True


class BarTrainingReporter(_SpokenReporter):
    """One bar: the steps of the epoch, then the patches of its validation."""

    def __init__(self, progress: Progress) -> None:
        super().__init__(progress.console)
        self.progress = progress
        self.bar = progress.add_task("", total=None, visible=False, figures="")
        self.shown = ""

    def checking(self, done: int, total: int) -> None:
        """Move the bar, which counts files first."""
        self._begin("checking files", total)
        self.progress.update(self.bar, completed=done, visible=done < total)

    def step_done(self, news: StepNews) -> None:
        """Move the bar."""
        self.epoch = news.epoch
        self._begin(f"epoch {news.epoch}/{self.epochs}", self.steps)
        figures = f"loss {news.loss:.4f}, {_speed(news.patches_per_s, news.data_wait_share)}"
        self.progress.update(self.bar, completed=news.step, figures=figures)

    def validating(self, done: int, total: int) -> None:
        """Move the bar, which now counts patches."""
        self._begin(f"epoch {self.epoch}/{self.epochs} val", total)
        self.progress.update(self.bar, completed=done, figures="patches")

    def epoch_finished(self, row: EpochRow, is_best: bool) -> None:
        """Replace the bar by a line until the next step."""
        self.progress.update(self.bar, visible=False)
        self.shown = ""
        super().epoch_finished(row, is_best)

    def _begin(self, what: str, total: int) -> None:
        if self.shown != what:
            self.shown = what
            self.progress.reset(self.bar, total=total, description=what, visible=True, figures="")


def epoch_line(row: EpochRow, epochs: int, is_best: bool) -> str:
    """A finished epoch in one line, with the time that the others will take."""
    heads = ", ".join(
        f"{name} {loss:.3f}"
        for name, loss in (
            ("56", row.loss_56),
            ("28_1", row.loss_28_1),
            ("28_2", row.loss_28_2),
            ("deep", row.loss_deep),
        )
    )
    parts = [
        f"loss {row.loss:.4f} ({heads})",
        f"labels {row.label_accuracy:.1%} (all of a patch {row.exact_match:.1%})",
        f"val mIoU {_mean_iou(row.val)}, Dice {row.val.mean_dice:.3f}" if row.val else "",
        "best" if is_best else "",
        _speed(row.patches_per_s, row.data_wait_share),
        _duration(row.seconds),
    ]
    if row.epoch < epochs:
        parts.append(f"{_duration(row.seconds * (epochs - row.epoch))} left")
    return f"epoch {row.epoch}/{epochs}: {', '.join(part for part in parts if part)}"


def print_training_result(rows: Sequence[EpochRow], out: Path) -> None:
    """A table of the best and the last epoch on stdout, its doubts, then what lies in `out`."""
    best = best_row(rows)
    table = Table("", "epoch", "loss", "labels", "val mIoU", "val Dice", "val pixels", "val labels")
    for column in table.columns[1:]:
        column.justify = "right"
    if best is not None:
        table.add_row("best", *_cells(best))
    if rows:
        table.add_row("last", *_cells(rows[-1]))
        print_table(stdout_console(), table)
        for line in _doubts(rows):
            print(line)
    for path in sorted(out.iterdir()):
        if not path.name.startswith("."):
            print(path)


def _doubts(rows: Sequence[EpochRow]) -> Iterator[str]:
    """What chance may have done to the val mIoU, and how the best epoch was chosen for that."""
    best, last = best_row(rows), rows[-1]
    if best is None or best.val is None or last.val is None:
        return
    if best.val.images is not None and best.val.mean_iou_error is not None:
        images = counted(best.val.images, "val image")
        scores = f"{_mean_iou(best.val)} (best), {_mean_iou(last.val)} (last)"
        yield f"val mIoU {scores}: standard errors over {images}"
    if is_small(best.val) and best is not last:
        means = [smoothed_iou(rows, row.epoch - 1) or 0.0 for row in (best, last)]
        yield f"best by the mean of {WINDOW} epochs: {means[0]:.3f} (last {means[1]:.3f})"
    if not told_apart(best, last):
        yield (
            "best and last cannot be told apart: their val mIoU differ by less than the standard "
            "error of one; see how both do on other images"
        )


def _mean_iou(val: ValScores) -> str:
    """With its standard error, where that is known."""
    error = "" if val.mean_iou_error is None else f" ± {val.mean_iou_error:.3f}"
    return f"{val.mean_iou:.3f}{error}"


def _cells(row: EpochRow) -> list[str]:
    cells = [str(row.epoch), f"{row.loss:.4f}", f"{row.label_accuracy:.1%}"]
    if row.val is None:
        return [*cells, "-", "-", "-", "-"]
    val = row.val
    means = [f"{val.mean_iou:.3f}", f"{val.mean_dice:.3f}"]
    return [*cells, *means, f"{val.pixel_accuracy:.1%}", f"{val.label_accuracy:.1%}"]


def _speed(patches_per_s: float, data_wait_share: float) -> str:
    return f"{patches_per_s:.1f} patches/s, data wait {data_wait_share:.0%}"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeRemainingColumn(),
        console=console,
        expand=True,
    )
