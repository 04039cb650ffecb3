"""What a training run prints, where, and how much of it."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from sshr_deploy.cli import training_console
from sshr_deploy.cli.training_console import (
    BarTrainingReporter,
    PlainTrainingReporter,
    epoch_line,
    make_training_reporter,
    print_training_result,
)
from sshr_deploy.train.history import EpochRow, StepNews, TrainingReporter, ValScores

VAL = ValScores(0.4125, 0.55, 0.7, 0.81, 0.6, (0.5, None))
ROW = EpochRow(
    epoch=1,
    steps=40,
    learning_rate=0.01,
    loss=0.41234,
    loss_56=0.521,
    loss_28_1=0.43,
    loss_28_2=0.4,
    loss_deep=0.39,
    exact_match=0.5,
    label_accuracy=0.8721,
    val=VAL,
    patches_per_s=41.24,
    data_wait_share=0.031,
    seconds=72.0,
    peak_memory_mb=None,
)
LINE = (
    "epoch 1/3: loss 0.4123 (56 0.521, 28_1 0.430, 28_2 0.400, deep 0.390), labels 87.2% "
    "(all of a patch 50.0%), val mIoU 0.412, Dice 0.550, best, 41.2 patches/s, data wait 3%, "
    "72 s, 2 min left"
)


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


def train(reporter: TrainingReporter, clock: Clock | None = None) -> None:
    """One epoch of 40 steps at 1 s, 20 val patches at 1 s."""
    reporter.run_started("wsss4luad, [b]fast[/b]", 3, 40, 0)
    reporter.message("initial weights: random [x]")
    reporter.warning("no [/val]")
    for step in range(1, 41):
        if clock is not None:
            clock.now += 1.0
        reporter.step_done(StepNews(1, step, 0.5, 41.2, 0.03))
    for done in range(1, 21):
        if clock is not None:
            clock.now += 1.0
        reporter.validating(done, 20)
    reporter.epoch_finished(ROW, True)


def test_epoch_line() -> None:
    assert epoch_line(ROW, 3, True) == LINE
    last = epoch_line(replace(ROW, epoch=3, val=None, seconds=7500.0), 3, False)
    assert last == (
        "epoch 3/3: loss 0.4123 (56 0.521, 28_1 0.430, 28_2 0.400, deep 0.390), labels 87.2% "
        "(all of a patch 50.0%), 41.2 patches/s, data wait 3%, 2 h 05 min"
    )


def test_plain_lines_every_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    reporter = PlainTrainingReporter(Console(file=out, soft_wrap=True, highlight=False))
    train(reporter, Clock(monkeypatch))
    speed = "loss 0.5000, 41.2 patches/s, data wait 3%"
    assert out.getvalue().splitlines() == [
        "wsss4luad, [b]fast[/b]: 3 epochs of 40 steps",
        "initial weights: random [x]",
        "warning: no [/val]",
        f"  epoch 1/3: 10/40 steps, {speed}, 30 s left",
        f"  epoch 1/3: 20/40 steps, {speed}, 20 s left",
        f"  epoch 1/3: 30/40 steps, {speed}, 10 s left",
        "  epoch 1/3: 1/20 val patches",
        "  epoch 1/3: 11/20 val patches",
        LINE,
    ]


def test_a_run_resumed_within_an_epoch_tells_the_time_left_of_its_own_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = io.StringIO()
    clock = Clock(monkeypatch)
    reporter = PlainTrainingReporter(Console(file=out, soft_wrap=True, highlight=False))
    reporter.run_started("x", 3, 100, 1)
    clock.now += 60.0  # a slow start
    reporter.step_done(StepNews(2, 51, 0.5, 41.2, 0.03))
    for step in range(52, 62):
        clock.now += 1.0
        reporter.step_done(StepNews(2, step, 0.5, 41.2, 0.03))
    lines = out.getvalue().splitlines()
    assert lines[0] == "x: 3 epochs of 100 steps, 1 done earlier"
    assert lines[1].endswith("51/100 steps, loss 0.5000, 41.2 patches/s, data wait 3%")
    assert lines[2].endswith("61/100 steps, loss 0.5000, 41.2 patches/s, data wait 3%, 39 s left")


def test_quiet_prints_warnings_only(capsys: pytest.CaptureFixture[str]) -> None:
    with make_training_reporter(quiet=True) as reporter:
        train(reporter)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "warning: no [/val]\n"


def test_without_a_terminal_everything_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with make_training_reporter(quiet=False) as reporter:
        assert isinstance(reporter, PlainTrainingReporter)
        train(reporter)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines()[-1] == LINE


@pytest.mark.parametrize("width", [40, 80, 200])
def test_bar_on_a_terminal(width: int) -> None:
    out = io.StringIO()
    console = Console(
        file=out,
        force_terminal=True,
        width=width,
        soft_wrap=True,
        highlight=False,
        color_system=None,
    )
    progress = training_console._progress(console)
    reporter = BarTrainingReporter(progress)
    progress.start()
    try:
        train(reporter)
        reporter.step_done(StepNews(2, 7, 0.25, 41.2, 0.03))
        progress.refresh()
        frame = out.getvalue().splitlines()[-1]
    finally:
        progress.stop()
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
    for line in ("initial weights: random [x]", "warning: no [/val]", LINE):
        assert line in text
    frame = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", frame)
    assert len(frame.split("\r")[-1]) <= width
    if width >= 80:
        assert "epoch 2/3" in frame and " 7/40 loss 0.2500, 41.2 patches/s, data wait 3%" in frame


def test_bar_counts_steps_then_val_patches() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    reporter = BarTrainingReporter(training_console._progress(console))
    task = reporter.progress.tasks[0]
    reporter.run_started("x", 3, 40, 0)
    assert not task.visible
    reporter.step_done(StepNews(1, 12, 0.5, 41.2, 0.03))
    assert (task.visible, task.description, task.completed, task.total) == (
        True,
        "epoch 1/3",
        12,
        40,
    )
    reporter.validating(5, 20)
    assert (task.description, task.completed, task.total) == ("epoch 1/3 val", 5, 20)
    reporter.epoch_finished(ROW, False)
    assert not task.visible
    reporter.step_done(StepNews(2, 1, 0.5, 41.2, 0.03))
    assert (task.visible, task.description, task.completed, task.total) == (
        True,
        "epoch 2/3",
        1,
        40,
    )


def test_result_is_the_best_and_the_last_epoch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("last.safetensors", "metrics.jsonl", ".x.partial"):
        (tmp_path / name).touch()
    last = replace(ROW, epoch=2, val=replace(VAL, mean_iou=0.3))
    print_training_result([ROW, last], tmp_path)
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    rows = [re.findall(r"[\w.%]+", line) for line in lines if line.startswith(("best ", "last "))]
    assert rows == [
        ["best", "1", "0.4123", "87.2%", "0.412", "0.550", "70.0%", "81.0%"],
        ["last", "2", "0.4123", "87.2%", "0.300", "0.550", "70.0%", "81.0%"],
    ]
    files = [line for line in captured.out.splitlines() if line.startswith(str(tmp_path))]
    assert files == [str(tmp_path / "last.safetensors"), str(tmp_path / "metrics.jsonl")]
    assert captured.err == ""
    print_training_result([replace(ROW, val=None)], tmp_path)
    only = capsys.readouterr().out
    assert re.search(r"last .* 1 .* 87.2% .* - ", only)
    assert re.search(r"best .* 1 .* 87.2% .* - ", only)


def test_a_best_epoch_of_few_images_is_not_praised_beyond_its_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    val = replace(VAL, images=11, mean_iou_error=0.031)
    close = replace(ROW, epoch=4, val=replace(val, mean_iou=0.400))
    rows = [replace(ROW, epoch=e, val=replace(val, mean_iou=0.4125)) for e in (1, 2, 3)]
    print_training_result([*rows, close], tmp_path)
    said = capsys.readouterr().out
    errors = "0.412 ± 0.031 (best), 0.400 ± 0.031 (last): standard errors over 11 val images"
    assert f"val mIoU {errors}\n" in said
    assert "best by the mean of 3 epochs: 0.412 (last 0.408)\n" in said
    assert "best and last cannot be told apart" in said
    apart = replace(close, val=replace(val, mean_iou=0.3))
    print_training_result([*rows, apart], tmp_path)
    assert "told apart" not in capsys.readouterr().out
    assert "val mIoU 0.300 ± 0.031" in epoch_line(apart, 4, is_best=False)


def test_needs_neither_torch_nor_matplotlib(repo_root: Path) -> None:
    code = (
        "import sys; import sshr_deploy.cli.training_console;"
        "print({'torch', 'matplotlib', 'tensorboard', 'numpy'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=repo_root, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
