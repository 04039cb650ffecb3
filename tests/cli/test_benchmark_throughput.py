from __future__ import annotations

import json
from pathlib import Path

import pytest

from sshr_deploy.benchmarks.throughput import engine
from sshr_deploy.runtime.machine import threads
from tests.cli.command import run_here


@pytest.fixture(autouse=True)
def _threads_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "use_threads", lambda _: None)
    monkeypatch.setattr(threads, "_in_use", threads.Threads(2, "--threads"))


def test_rates_and_windows_of_a_real_engine(small_bundle_dir: Path, tmp_path: Path) -> None:
    file, options = tmp_path / "found.json", ["--mode", "reference", "--engine", "onnx-cpu"]
    options += ["--threads", "2", "--slide-mm2", "150", "--json", str(file)]
    command = ["benchmark", "throughput", str(small_bundle_dir)]
    few = ["--batches", "1,2", "--seconds", "0.1"]
    done = run_here(*command, *few, *options)
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text("utf-8"))
    assert (found["benchmark"], found["complete"]) == ("throughput", True)
    names = [row["name"] for row in found["rows"]]
    assert names == [f"batch {batch}, streams {s}" for s in (1, 2) for batch in (1, 2)]
    for row in found["rows"]:
        assert row["samples"] and row["agreement"]["misses"] == []
        assert row["name"] in done.stdout
    assert "slides/h" in done.stdout and "150 mm2 of tissue" in done.stdout

    done = run_here(*command, "--soak", "0.01", "--batches", "1", *options)
    assert done.returncode == 0, done.stderr
    soaked = json.loads(file.read_text("utf-8"))
    assert (soaked["settings"]["batches"], soaked["settings"]["streams"]) == ([1], [])
    assert soaked["facts"]["slide"]["mm2"] == 150
    assert "until" in done.stdout and "last third over first: not told" in done.stdout


def test_one_slide_is_stated(small_bundle_dir: Path, demo_slide: Path) -> None:
    both = ["--slide-mm2", "150", "--slide", str(demo_slide)]
    done = run_here("benchmark", "throughput", small_bundle_dir, *both)
    assert done.returncode != 0
    assert "--slide-mm2 and --slide both state a slide; give one" in done.stderr


def test_a_wrong_list_is_blamed_on_its_option(small_bundle_dir: Path) -> None:
    done = run_here("benchmark", "throughput", small_bundle_dir, "--streams", "x")
    assert done.returncode != 0
    assert "--streams 'x': give whole numbers" in done.stderr
