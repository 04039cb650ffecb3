"""`--threads` of the commands, and how OpenMP's threads wait."""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import NoReturn

import cv2
import pytest
import torch
from typer.testing import CliRunner

from sshr_deploy.cli import app, main
from sshr_deploy.runtime.machine import threads
from tests.train.dataset_of_textures import DEMO_PROFILE, write_textures, write_tiny_recipe


@pytest.mark.parametrize(("before", "after"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_sleep_unless_the_user_says_else(
    before: str | None, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "restored at the end")
    monkeypatch.delenv("OMP_WAIT_POLICY")
    if before is not None:
        monkeypatch.setenv("OMP_WAIT_POLICY", before)
    monkeypatch.setattr(sys, "argv", ["sshr-deploy", "--version"])
    with pytest.raises(SystemExit):
        main()
    assert os.environ["OMP_WAIT_POLICY"] == after


def test_infer_says_and_records_its_threads(
    small_bundle_dir: Path, repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "_in_use", None)
    libraries = cv2.getNumThreads(), torch.get_num_threads()
    patch = next((repo_root / "export" / "qualification").glob("*.png"))
    out = tmp_path / "out"
    options = ["--model", str(small_bundle_dir), "--out", str(out), "--threads", "2"]
    try:
        done = CliRunner().invoke(app, ["infer", str(patch), *options])
    finally:
        cv2.setNumThreads(libraries[0])
        torch.set_num_threads(libraries[1])
    assert "2 threads, masks equal" in done.stderr, done.output
    assert json.loads((out / "run.json").read_text("utf-8"))["engine"]["threads"] == 2
    assert "2 streams, 2 threads" in done.stderr
    assert json.loads((out / "run.json").read_text("utf-8"))["engine"]["streams"] == 2


def test_streams_are_no_more_than_threads(
    small_bundle_dir: Path, repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "_in_use", None)
    libraries = cv2.getNumThreads(), torch.get_num_threads()
    patch = next((repo_root / "export" / "qualification").glob("*.png"))
    options = ["--model", str(small_bundle_dir), "--out", str(tmp_path / "out")]
    options += ["--threads", "1", "--streams", "2", "--engine", "onnx-cpu"]
    try:
        done = CliRunner().invoke(app, ["infer", str(patch), *options])
    finally:
        cv2.setNumThreads(libraries[0])
        torch.set_num_threads(libraries[1])
    assert str(done.exception).startswith("`streams` is 2, each needs a CPU thread and there is 1;")


@pytest.mark.parametrize(
    "command",
    [
        *(["train"], ["evaluate"], ["export"], ["infer"]),
        *(["benchmark", "latency"], ["benchmark", "int8"], ["benchmark", "training"]),
        ["benchmark", "robustness"],
    ],
)
def test_every_command_that_computes_has_the_option(command: list[str]) -> None:
    done = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "200"})
    assert "--threads" in done.output
    refused = CliRunner().invoke(app, [*command, "--threads", "0"])
    assert refused.exit_code == 2


class _ArrivedError(Exception):
    pass


@pytest.mark.parametrize(
    ("command", "module"),
    [
        ("train {data} --profile {demo} --recipe {recipe} --out {out}", "train.run"),
        ("evaluate {split} --model {bundle}", "api"),
        ("evaluate {split} --model {checkpoint} --profile wsss4luad", "runtime.machine.threads"),
        ("export {checkpoint} --profile wsss4luad --out {out}", "export.bundle"),
        ("benchmark latency {bundle}", "benchmarks.latency.measure"),
        ("benchmark int8 {checkpoint} --profile wsss4luad", "benchmarks.int8"),
        ("benchmark training --width 1", "benchmarks.training"),
    ],
)
def test_the_number_reaches_what_sets_it(
    small_bundle_dir: Path, small_checkpoint: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, command: str, module: str,
) -> None:  # fmt: skip
    def stop(chosen: threads.Threads) -> NoReturn:
        raise _ArrivedError(chosen.count)

    paths = {
        "data": tmp_path / "data", "split": tmp_path / "data" / "val", "demo": DEMO_PROFILE,
        "recipe": write_tiny_recipe(tmp_path / "tiny.toml"), "out": tmp_path / "out",
        "bundle": small_bundle_dir, "checkpoint": small_checkpoint,
    }  # fmt: skip
    if "{data}" in command or "{split}" in command:
        write_textures(paths["data"], training=4, val=1)
    monkeypatch.setattr(importlib.import_module(f"sshr_deploy.{module}"), "use_threads", stop)
    words = [word.format(**paths) for word in command.split()]
    done = CliRunner().invoke(app, [*words, "--threads", "3"])
    assert isinstance(done.exception, _ArrivedError), done.output
    assert done.exception.args == (3,)
