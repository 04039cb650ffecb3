"""Runs that are killed at any moment: the next one goes on, and nobody can tell from the results.

`SSHR_KILLS=30` kills so often (with `-o faulthandler_timeout=0`: minutes); without, a few times.
"""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from sshr_deploy.runtime.pipeline.run_lock import SHARING_NAME
from sshr_deploy.runtime.results.file_names import REPORT_NAME, SLIDE_RESULTS, SUMMARY_NAME
from tests.cli.command import SETTINGS

KILLS = int(os.environ.get("SSHR_KILLS", "5"))
LIMIT_S = 240

pytestmark = pytest.mark.skipif(os.name == "nt", reason="SIGKILL")


@pytest.fixture(scope="module")
def source(demo_slide: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killing") / "in"
    folder.mkdir()
    for index in range(5):
        shutil.copy(demo_slide, folder / f"{index}.svs")
    return folder


def start(source: Path, bundle: Path, out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "sshr_deploy", "infer", str(source), "--quiet"]
    command += ["--model", str(bundle), "--out", str(out), "--batch", "2", "--threads", "1"]
    log = out.with_name(f"{out.name}.jsonl")
    command += ["--log-json", str(log)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=SETTINGS)


def finish(process: subprocess.Popen[str]) -> None:
    _, stderr = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, stderr


def check_whole(out: Path, expected: Path) -> None:
    """Whatever has its final name is what an undisturbed run writes."""
    for path in out.rglob("*"):
        if path.name in SLIDE_RESULTS:
            assert path.read_bytes() == (expected / path.relative_to(out)).read_bytes(), path
        elif path.name == "summary.json":
            json.loads(path.read_text("utf-8"))


def table(out: Path) -> list[dict[str, str]]:
    with (out / "summary.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if "second" not in k and "utc" not in k} for row in rows]


def check_same(out: Path, expected: Path) -> None:
    check_whole(out, expected)
    assert table(out) == table(expected)
    for slide in expected.glob("*.svs"):
        names = {path.name for path in (out / slide.name).iterdir()}
        assert names == {*SLIDE_RESULTS, REPORT_NAME, SUMMARY_NAME}
    assert not (out / SHARING_NAME).exists()


def done_events(out: Path) -> list[str]:
    """Names of slides by the log, one for each time that one was done."""
    lines = out.with_name(f"{out.name}.jsonl").read_text("utf-8").splitlines()
    events = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
    return [
        Path(e["slide"]).name for e in events
        if e["code"] == "slide_done" and not e["earlier"]
    ]  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(source: Path, small_bundle_dir: Path) -> Path:
    out = source.parent / "undisturbed"
    finish(start(source, small_bundle_dir, out))
    return out


def stores(out: Path) -> set[tuple[str, int]]:
    """What is kept of slides; a run that goes on has a file of its own."""
    found = set()
    for path in out.glob("*.svs/.unfinished"):
        with suppress(FileNotFoundError):
            found.add((str(path), path.stat().st_ino))
    return found


def wait_for_work(process: subprocess.Popen[str], out: Path, before: set[tuple[str, int]]) -> None:
    """Until it computes: imports take the longest, and kill nothing of interest."""
    while process.poll() is None and stores(out) <= before:
        time.sleep(0.005)


def test_kills_leave_no_trace(
    source: Path, small_bundle_dir: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out, chance = tmp_path / "out", random.Random(15)
    kills = 0
    while kills < KILLS:
        before = stores(out)
        process = start(source, small_bundle_dir, out)
        wait_for_work(process, out, before)
        time.sleep(chance.random() * 0.4)
        process.kill()
        process.communicate()
        kills += process.returncode != 0
        check_whole(out, undisturbed)
        if process.returncode == 0:  # all was done: begin anew
            check_same(out, undisturbed)
            shutil.rmtree(out)
            out.with_name(f"{out.name}.jsonl").unlink()
    finish(start(source, small_bundle_dir, out))
    check_same(out, undisturbed)
    done = done_events(out)
    assert len(done) == len(set(done)) <= 5


def test_two_divide_the_slides_and_one_does_those_of_the_killed(
    source: Path, small_bundle_dir: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = start(source, small_bundle_dir, out)
    wait_for_work(first, out, set())
    second = start(source, small_bundle_dir, out)
    while second.poll() is None and len(list((out / SHARING_NAME).glob("run-*"))) < 2:
        time.sleep(0.005)
    first.kill()
    first.communicate()
    finish(second)
    check_same(out, undisturbed)
    done = done_events(out)
    assert len(done) == len(set(done)) <= 5
