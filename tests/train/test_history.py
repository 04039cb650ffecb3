"""metrics.jsonl and TensorBoard events, read back by others' readers."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from sshr_deploy.errors import OutputError, TrainingError
from sshr_deploy.train.best import best_row
from sshr_deploy.train.history import EpochRow, History, ValScores

accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
pytest.importorskip("torch")

CLASSES = ("tumour epithelium", "necrosis")


def make_row(epoch: int, mean_iou: float | None = 0.4) -> EpochRow:
    val = None
    if mean_iou is not None:
        val = ValScores(mean_iou, 0.55, 0.7, 0.8, 0.6, (mean_iou, None))
    return EpochRow(
        epoch=epoch,
        steps=5 * epoch,
        learning_rate=0.01 / epoch,
        loss=0.1 * epoch,
        loss_56=0.2,
        loss_28_1=1 / 3,
        loss_28_2=0.4,
        loss_deep=0.5,
        exact_match=0.25,
        label_accuracy=0.75,
        val=val,
        patches_per_s=40.0,
        data_wait_share=0.03,
        seconds=12.5,
        peak_memory_mb=None,
    )


@contextmanager
def opened(folder: Path, epochs_done: int | None = None) -> Iterator[History]:
    history = History(folder, CLASSES)
    if epochs_done is not None:
        history.resume(epochs_done)
    try:
        yield history
    finally:
        history.close()


def record(folder: Path, *rows: EpochRow, epochs_done: int | None = None) -> None:
    with opened(folder, epochs_done) as history:
        for row in rows:
            history.append(row)


def events(folder: Path) -> dict[str, dict[int, float]]:
    """Value by step by tag, as TensorBoard shows it."""
    reader = accumulator.EventAccumulator(str(folder / "tensorboard"))
    reader.Reload()
    tags = reader.Tags()["scalars"]
    return {tag: {e.step: e.value for e in reader.Scalars(tag)} for tag in tags}


@pytest.mark.parametrize("mean_iou", [0.1 + 0.2, None])
def test_a_row_survives_json(mean_iou: float | None) -> None:
    row = make_row(3, mean_iou)
    assert EpochRow.from_json(row.to_json()) == row
    assert "\n" not in row.to_json()


def test_a_row_with_nan_is_no_json_and_no_row() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        replace(make_row(1), loss=math.nan).to_json()
    good = make_row(1).to_json()
    for bad in (
        good.replace("0.75", "NaN"),
        good.replace("0.75", "1e999"),
        good.replace("0.75", "null"),
        good.replace('"epoch"', '"epok"'),
        good[:-9],
        "[]",
    ):
        with pytest.raises(ValueError, match=r"."):
            EpochRow.from_json(bad)


def test_a_row_of_an_older_release_lacks_what_it_did_not_know() -> None:
    row = make_row(1)
    assert row.val is not None
    older = json.loads(row.to_json())
    for name in ("images", "mean_iou_error"):
        assert older["val"].pop(name) is None
    assert EpochRow.from_json(json.dumps(older)) == row
    newer = replace(row, val=replace(row.val, images=11, mean_iou_error=0.03))
    assert EpochRow.from_json(newer.to_json()) == newer


def test_timings_are_all_that_may_differ() -> None:
    row = make_row(1)
    slower = replace(
        row, patches_per_s=1.0, data_wait_share=0.5, seconds=99.0, peak_memory_mb=800.0
    )
    assert slower.without_timings() == row.without_timings()
    assert replace(row, loss=0.1000001).without_timings() != row.without_timings()


def test_best_row_is_the_first_of_the_highest() -> None:
    rows = [make_row(1, 0.3), make_row(2, None), make_row(3, 0.5), make_row(4, 0.5)]
    assert best_row(rows) is rows[2]
    assert best_row([]) is None


def test_without_a_val_split_the_best_row_is_that_of_the_least_loss() -> None:
    rows = [replace(make_row(i, None), loss=loss) for i, loss in enumerate((0.4, 0.2, 0.2, 0.3), 1)]
    assert best_row(rows) is rows[1]


def test_both_files_hold_every_epoch(tmp_path: Path) -> None:
    rows = [make_row(1), make_row(2), replace(make_row(3, None), peak_memory_mb=512.0)]
    with opened(tmp_path) as history:
        for count, row in enumerate(rows, 1):
            history.append(row)
            lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
            assert len(lines) == count  # at once, not when closed
            assert events(tmp_path)["loss/total"].keys() == set(range(1, count + 1))
        assert history.rows == tuple(rows)
    documents = [json.loads(line) for line in lines]
    assert [d["loss"] for d in documents] == [row.loss for row in rows]
    assert documents[0]["val"]["class_iou"] == [0.4, None]
    assert documents[2]["val"] is None
    seen = events(tmp_path)
    assert seen["loss/total"] == pytest.approx({1: 0.1, 2: 0.2, 3: 0.3})
    assert seen["loss/28_1"] == pytest.approx({1: 1 / 3, 2: 1 / 3, 3: 1 / 3})
    assert seen["learning_rate"] == pytest.approx({1: 0.01, 2: 0.005, 3: 0.01 / 3})
    assert seen["val/mean_iou"] == pytest.approx({1: 0.4, 2: 0.4})
    assert seen["val/iou/tumour epithelium"] == pytest.approx({1: 0.4, 2: 0.4})
    assert seen["speed/peak_memory_mb"] == {3: 512.0}
    assert "val/iou/necrosis" not in seen
    assert {"loss/56", "loss/28_2", "loss/deep", "train/exact_match"} <= seen.keys()
    assert {"train/label_accuracy", "speed/patches_per_s", "speed/data_wait_share"} <= seen.keys()


def test_resuming_drops_what_the_checkpoint_does_not_know(tmp_path: Path) -> None:
    record(tmp_path, *[make_row(epoch) for epoch in (1, 2, 3, 4)])
    kept = (tmp_path / "metrics.jsonl").read_bytes().splitlines(keepends=True)[:2]
    with opened(tmp_path, epochs_done=2) as history:
        assert history.rows == (make_row(1), make_row(2))
        assert (tmp_path / "metrics.jsonl").read_bytes() == b"".join(kept)
        history.append(replace(make_row(3), loss=9.0))
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3]
    assert events(tmp_path)["loss/total"] == pytest.approx({1: 0.1, 2: 0.2, 3: 9.0})
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize("cut", [1, 40, 200])
def test_a_killed_process_leaves_half_a_line_and_half_an_event(tmp_path: Path, cut: int) -> None:
    record(tmp_path, make_row(1), make_row(2))
    for path in (tmp_path / "metrics.jsonl", *(tmp_path / "tensorboard").iterdir()):
        path.write_bytes(path.read_bytes()[:-cut])
    record(tmp_path, replace(make_row(2), loss=9.0), epochs_done=1)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["loss"] for line in lines] == [0.1, 9.0]
    assert events(tmp_path)["loss/total"] == pytest.approx({1: 0.1, 2: 9.0})


def test_a_resumed_run_brings_back_lost_events_in_the_order_of_time(tmp_path: Path) -> None:
    record(tmp_path, make_row(1), make_row(2))
    others = tmp_path / "tensorboard" / "notes.txt"
    others.touch()
    for path in (tmp_path / "tensorboard").glob("events*"):
        path.unlink()
    record(tmp_path, make_row(3), epochs_done=2)
    assert events(tmp_path)["loss/total"] == pytest.approx({1: 0.1, 2: 0.2, 3: 0.3})
    reader = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    reader.Reload()
    first, second, third = [e.wall_time for e in reader.Scalars("loss/total")]
    assert second - first == pytest.approx(12.5, abs=1e-3)  # the epoch's seconds
    assert third - second == pytest.approx(12.5, abs=5.0)
    assert others.exists()


def test_resuming_in_the_first_epoch(tmp_path: Path) -> None:
    record(tmp_path, make_row(1), epochs_done=0)  # nothing was written yet
    record(tmp_path, replace(make_row(1), loss=9.0), epochs_done=0)
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["loss"] == 9.0
    assert events(tmp_path)["loss/total"] == {1: 9.0}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda lines: lines[:2], r"epoch 3 \(missing or cut off\)"),
        (lambda _: [], r"epoch 1 \(missing or cut off\)"),
        (lambda lines: [lines[0], lines[2]], r"epoch 2 \(it is that of epoch 3\)"),
        (lambda lines: [lines[0], b"\0" * 50 + b"\n", lines[2]], r"epoch 2 \("),
        (lambda lines: [lines[0], b"[" * 9999 + b"\n", lines[2]], r"epoch 2 \("),
        (lambda lines: [*lines[:2], lines[2][:-30]], r"epoch 3 \(missing or cut off\)"),
    ],
)
def test_a_row_that_should_be_there_and_is_not(
    tmp_path: Path, damage: object, message: str
) -> None:
    record(tmp_path, make_row(1), make_row(2), make_row(3))
    path = tmp_path / "metrics.jsonl"
    assert callable(damage)
    content = b"".join(damage(path.read_bytes().splitlines(keepends=True)))
    path.write_bytes(content)
    with pytest.raises(TrainingError, match=message) as caught:
        History(tmp_path, CLASSES).resume(3)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == content  # as it was


def test_a_new_run_never_adds_to_another_runs_file(tmp_path: Path) -> None:
    record(tmp_path, make_row(1))
    before = (tmp_path / "metrics.jsonl").read_bytes()
    with opened(tmp_path) as history, pytest.raises(OutputError, match="File exists"):
        history.append(make_row(1))
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_values_that_are_not_finite_are_named_and_not_written(tmp_path: Path) -> None:
    row = replace(make_row(1, math.nan), loss_deep=math.inf)
    with (
        opened(tmp_path) as history,
        pytest.raises(TrainingError, match=r"epoch 1 .*: loss/deep, val/mean_iou, val/iou/tumour"),
    ):
        history.append(row)
    assert list(tmp_path.iterdir()) == []


# Two runs in which no file may grow beyond a limit, as on a full disk: in one the lines meet it, in
# the other the events of the first line.
_FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from sshr_deploy.errors import OutputError
from sshr_deploy.train.history import EpochRow, History

folder, row = Path(sys.argv[1]), EpochRow.from_json(sys.argv[2])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
for name, lines in (("lines", 2), ("events", 1)):
    history = History(folder / name, ("a", "b"))
    if name == "lines":
        history._write_events = lambda *args: None
    resource.setrlimit(resource.RLIMIT_FSIZE, (lines * len(row.to_json()) + 40, hard))
    try:
        for _ in range(3):
            history.append(row)
    except OutputError as error:
        print(error)
    history.close()
"""


def test_full_disk_is_an_output_error_and_no_half_line(tmp_path: Path) -> None:
    pytest.importorskip("resource", reason="file-size limits are POSIX")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    row = make_row(1)
    command = [sys.executable, "-c", _FULL_DISK, str(tmp_path), row.to_json()]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines, events = done.stdout.splitlines()
    assert lines.startswith(f"cannot write {tmp_path / 'lines' / 'metrics.jsonl'}: ")
    assert events.startswith(f"cannot write {tmp_path / 'events' / 'tensorboard'}: ")
    assert all(e.endswith("; free space or choose another place") for e in (lines, events))
    line = row.to_json() + "\n"
    assert (tmp_path / "lines" / "metrics.jsonl").read_text() == 2 * line
    assert (tmp_path / "events" / "metrics.jsonl").read_text() == line
