"""`watch` and `queue` as a technician uses them, with the real network."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import tifffile

from tests.cli.command import run_here
from tests.runtime.small_slides import small_picture, small_slide

QUICK = [
    "--once", "--mode", "reference", "--settle", "0.1", "--poll", "0.1", "--min-free-gib", "0",
]  # fmt: skip


def test_a_night_beside_the_scanner(small_bundle_dir: Path, tmp_path: Path) -> None:
    scans, out = tmp_path / "scans", tmp_path / "out"
    scans.mkdir()
    whole = small_slide(scans / "whole.tif")
    (scans / "cut.tif").write_bytes(whole.read_bytes()[:20_000])
    (scans / "empty.svs").touch()
    places: list[Path | str] = [scans, "--model", small_bundle_dir, "--out", out]
    first = run_here("watch", *places, *QUICK)
    assert first.returncode == 1, first.stderr
    assert "whole.tif: done in" in first.stderr
    assert "cut.tif: failed: ends before image 1 does" in first.stderr
    assert (out / "whole.tif" / "overlay.png").is_file()
    assert not (out / "cut.tif").exists()
    assert not (out / "run.json").exists()
    rows = list(csv.DictReader((out / "summary.csv").read_text("utf-8").splitlines()))
    assert {Path(r["input"]).name: r["status"] for r in rows} == {
        "whole.tif": "done",
        "cut.tif": "failed",
    }
    assert "ends before image 1 does" in (out / "report.html").read_text("utf-8")
    assert (out / "whole.tif" / "report.html").is_file()

    table = run_here("queue", "list", out)
    assert table.returncode == 0
    assert "1 failed, 1 settling, 1 done" in table.stdout
    assert "the file is empty" in table.stdout
    found = json.loads(run_here("queue", "list", out, "--json").stdout)
    states = {slide["relative"]: slide["state"] for slide in found["slides"]}
    assert states == {"whole.tif": "done", "cut.tif": "failed", "empty.svs": "settling"}

    assert run_here("queue", "skip", out, "CUT.*").returncode == 0
    assert run_here("queue", "skip", out, "whole.tif").returncode == 2
    again = run_here("watch", *places, *QUICK)
    assert again.returncode == 0, again.stderr
    assert run_here("queue", "retry", out, "cut.tif").returncode == 0
    report = json.loads(run_here("queue", "report", out, "--json").stdout)
    assert report["slides"]["waiting"] == 1
    assert [(f["code"], f["attempts"]) for f in report["failures"]] == [("input", 1)]
    assert "longest" in run_here("queue", "report", out).stdout


def test_pixel_sizes_come_from_a_table(small_bundle_dir: Path, tmp_path: Path) -> None:
    scans, out = tmp_path / "scans", tmp_path / "out"
    scans.mkdir()
    tifffile.imwrite(scans / "a.tif", small_picture(), tile=(128, 128), photometric="rgb")
    table = tmp_path / "sizes.csv"
    table.write_text("name,mpp\na.tif,1.0\n")
    places = (scans, "--model", small_bundle_dir, "--out", out, "--mpp-table", table)
    done = run_here("watch", *places, *QUICK)
    assert done.returncode == 0, done.stderr
    summary = json.loads((out / "a.tif" / "summary.json").read_text("utf-8"))
    source = "--mpp-table (the file has none)"
    assert summary["mpp"] == {"x_um": 1.0, "y_um": 1.0, "source": source}


@pytest.mark.parametrize("command", ["list", "report"])
def test_no_queue_is_one_line(tmp_path: Path, command: str) -> None:
    done = run_here("queue", command, tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        f"sshr-deploy: error: there is no queue at {tmp_path / 'queue.sqlite'}; give the --queue "
        "of a watched folder\n"
    )
