"""Records of a training run, one an epoch, and the reporter that watches it.

`metrics.jsonl` holds one JSON object a line, one line an epoch; `tensorboard/` the same numbers.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

from pydantic import ConfigDict, TypeAdapter

from sshr_deploy.atomic import atomic_path, output_errors
from sshr_deploy.errors import MissingExtraError, TrainingError, first_line

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


METRICS_NAME, EVENTS_NAME = "metrics.jsonl", "tensorboard"


@dataclass(frozen=True)
class ValScores:
    """Agreement with the val split, network in evaluation mode; shares and means 0-1."""

    mean_iou: float
    """Over the classes that occur."""
    mean_dice: float
    pixel_accuracy: float
    """Of tissue pixels."""
    label_accuracy: float
    """Share of patch labels that `probability > 0.5` gets right."""
    exact_match: float
    """Share of patches whose labels are all right."""
    class_iou: tuple[float | None, ...]
    """In the profile's order; None for a class in neither truth nor prediction."""
    images: int | None = None
    """None in a record of an older release, as the next."""
    mean_iou_error: float | None = None
    """Standard error of `mean_iou` over images; None for fewer than two."""


@dataclass(frozen=True)
class EpochRow:
    """One finished epoch."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", allow_inf_nan=False)

    epoch: int
    """From 1."""
    steps: int
    """Since the beginning of the run."""
    learning_rate: float
    """Of the backbone's weights, at the epoch's last step."""
    loss: float
    """Mean over the epoch of the weighted sum of the four below."""
    loss_56: float
    loss_28_1: float
    loss_28_2: float
    loss_deep: float
    exact_match: float
    """Share of training patches whose labels are all right: deep head, dropout on, `p > 0.5`."""
    label_accuracy: float
    """Share of training labels that are right, likewise."""
    val: ValScores | None
    """None where there is no val split."""
    patches_per_s: float
    """In training, all processes together."""
    data_wait_share: float
    """Share of the training time in which the device waited for data, 0-1."""
    seconds: float
    """Wall time of the epoch, validation included."""
    peak_memory_mb: float | None
    """Of the CUDA device, in 10^6 bytes; None on a CPU."""

    def to_json(self) -> str:
        """One line; `ValueError` if a number is NaN or infinite, which JSON does not have."""
        return json.dumps(asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> EpochRow:
        """Equal to the row that `to_json` wrote; `ValueError` if `text` is not such a row."""
        return _ADAPTER.validate_python(json.loads(text))

    def without_timings(self) -> Self:
        """The fields that two runs with one seed on one CPU share: all but time and memory."""
        return replace(
            self, patches_per_s=0.0, data_wait_share=0.0, seconds=0.0, peak_memory_mb=None
        )


_ADAPTER = TypeAdapter(EpochRow)


@dataclass(frozen=True)
class StepNews:
    """A step of training that ended; epoch and step count from 1."""

    epoch: int
    step: int
    loss: float
    patches_per_s: float
    """Mean of the epoch so far, all processes together."""
    data_wait_share: float
    """Likewise, 0-1."""


class TrainingReporter(Protocol):
    """Watches a training run."""

    def run_started(
        self, description: str, epochs: int, steps_per_epoch: int, epochs_done: int
    ) -> None:
        """`epochs_done` of `epochs` were finished by an earlier, interrupted run."""

    def message(self, text: str) -> None:
        """One line of news."""

    def warning(self, text: str) -> None:
        """One line that even a quiet run shows."""

    def checking(self, done: int, total: int) -> None:
        """So many of the training files were read for the first time."""

    def step_done(self, news: StepNews) -> None:
        """A step of training ended."""

    def validating(self, done: int, total: int) -> None:
        """So many of the val split's patches are done."""

    def epoch_finished(self, row: EpochRow, is_best: bool) -> None:
        """An epoch ended, validation included."""


class History:
    """Keeps `metrics.jsonl` and TensorBoard events of one run in step.

    Append an epoch's row before its checkpoint is written: then a run that is killed in between
    only repeats the epoch. Nothing is written before the first row. Needs tensorboard.
    """

    def __init__(self, folder: Path, class_names: Sequence[str]) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtraError("tensorboard", "train") from error
        self.path = folder / METRICS_NAME
        self.events_dir = folder / EVENTS_NAME
        self._class_names = tuple(class_names)
        self._new_writer = SummaryWriter
        self._writer: SummaryWriter | None = None
        self._rows: list[EpochRow] = []
        self._resumed = False

    @property
    def rows(self) -> tuple[EpochRow, ...]:
        """Epochs 1 to the last one finished."""
        return tuple(self._rows)

    def resume(self, epochs_done: int) -> None:
        """Take over the rows of epochs 1 to `epochs_done`; whatever comes after them goes.

        That includes the half line of a killed process. TensorBoard follows with the next row.

        Raises:
            TrainingError: one of these rows is missing or damaged.
            OutputError: the file cannot be rewritten.
        """
        content = self._read()
        lines = content.splitlines(keepends=True)
        self._rows = [self._row(lines, epoch) for epoch in range(1, epochs_done + 1)]
        kept = b"".join(lines[:epochs_done])
        if kept != content:
            with atomic_path(self.path) as partial:
                partial.write_bytes(kept)
        self._resumed = True

    def append(self, row: EpochRow) -> None:
        """Record one more epoch; it is on the disk when this returns.

        Raises:
            TrainingError: a number is not finite; nothing is written.
            OutputError: disk full and the like. No half line stays behind.
        """
        scalars = _scalars(row, self._class_names)
        bad = ", ".join(tag for tag, value in scalars.items() if not math.isfinite(value))
        if bad:
            raise TrainingError(f"epoch {row.epoch} has values that are not finite: {bad}")
        self._append_line(row.to_json().encode() + b"\n")
        self._write_events(row)
        self._rows.append(row)

    def close(self) -> None:
        """Close the TensorBoard file; `OutputError` where it cannot be written."""
        writer, self._writer = self._writer, None
        if writer is not None:
            with output_errors(self.events_dir):
                writer.close()

    def _read(self) -> bytes:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise TrainingError(f"cannot read {self.path}: {error.strerror or error}") from error

    def _row(self, lines: Sequence[bytes], epoch: int) -> EpochRow:
        try:
            if len(lines) < epoch or not lines[epoch - 1].endswith(b"\n"):
                raise ValueError("missing or cut off")
            row = EpochRow.from_json(lines[epoch - 1])
            _scalars(row, self._class_names)  # refuses another number of classes
            if row.epoch != epoch:
                raise ValueError(f"it is that of epoch {row.epoch}")
        except (ValueError, RecursionError) as error:
            raise TrainingError(
                f"{self.path} lacks a usable line for epoch {epoch} ({first_line(error)}); restore "
                "the file, or begin a new run in another folder"
            ) from error
        return row

    def _append_line(self, line: bytes) -> None:
        with output_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # A new run never adds to another run's file.
            mode = "ab" if self._resumed or self._rows else "xb"
            with self.path.open(mode, buffering=0) as file:
                size = file.tell()
                try:
                    while line:
                        line = line[file.write(line) :]
                    os.fsync(file.fileno())
                except BaseException:
                    file.truncate(size)
                    raise

    def _write_events(self, row: EpochRow) -> None:
        with output_errors(self.events_dir):
            if self._writer is None:
                self._writer = self._open_events(time.time() - row.seconds)
            try:
                self._add(self._writer, row, time.time())
                self._writer.flush()
            except OSError:
                self._writer = None  # its thread has ended
                raise

    def _open_events(self, now: float) -> SummaryWriter:
        """A new event file; a resumed run writes its earlier epochs anew and drops older files.

        TensorBoard can also hide events after a step, but it tells what came later from the
        clock in the file's name, and a killed process may have lost events that the rows have.
        """
        if self._resumed:
            for old in self.events_dir.glob("events.out.tfevents.*"):
                old.unlink()
        writer = self._new_writer(str(self.events_dir))
        ended = now - sum(row.seconds for row in self._rows)
        for row in self._rows:
            ended += row.seconds
            self._add(writer, row, ended)
        return writer

    def _add(self, writer: SummaryWriter, row: EpochRow, ended: float) -> None:
        for tag, value in _scalars(row, self._class_names).items():
            writer.add_scalar(tag, value, row.epoch, walltime=ended)


def _scalars(row: EpochRow, class_names: Sequence[str]) -> dict[str, float]:
    """All numbers of a row by TensorBoard tag; absent ones are left out."""
    named: dict[str, Any] = {
        "loss/total": row.loss,
        "loss/56": row.loss_56,
        "loss/28_1": row.loss_28_1,
        "loss/28_2": row.loss_28_2,
        "loss/deep": row.loss_deep,
        "train/exact_match": row.exact_match,
        "train/label_accuracy": row.label_accuracy,
        "learning_rate": row.learning_rate,
        "speed/patches_per_s": row.patches_per_s,
        "speed/data_wait_share": row.data_wait_share,
        "speed/epoch_s": row.seconds,
        "speed/peak_memory_mb": row.peak_memory_mb,
    }
    if row.val is not None:
        scores = asdict(row.val)
        class_iou, _ = scores.pop("class_iou"), scores.pop("images")
        named |= {f"val/{name}": value for name, value in scores.items()}
        pairs = zip(class_names, class_iou, strict=True)
        named |= {f"val/iou/{name}": iou for name, iou in pairs}
    return {tag: value for tag, value in named.items() if value is not None}
