"""`--threads` of the commands, and how OpenMP's threads wait."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import cv2
import pytest
import torch
from typer.testing import CliRunner

from sshr_deploy.cli import app, main
from sshr_deploy.runtime import threads


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


@pytest.mark.parametrize(
    "command",
    [
        *(["train"], ["evaluate"], ["export"], ["infer"]),
        *(["benchmark", "latency"], ["benchmark", "int8"], ["benchmark", "training"]),
    ],
)
def test_every_command_that_computes_has_the_option(command: list[str]) -> None:
    done = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "200"})
    assert "--threads" in done.output
    refused = CliRunner().invoke(app, [*command, "--threads", "0"])
    assert refused.exit_code == 2
