"""`sshr-deploy infer --dry-run`."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.command import run_here
from tests.runtime.running import patch_folder


def test_it_shows_what_a_run_would_do_and_writes_nothing(
    small_bundle_dir: Path, demo_slide: Path, tmp_path: Path
) -> None:
    folder, out = patch_folder(tmp_path / "in", demo_slide, count=3), tmp_path / "out"
    (folder / "a.svs").symlink_to(demo_slide)
    (folder / "broken.svs").write_bytes(b"no slide")
    words = ("infer", folder, "--model", small_bundle_dir, "--out", out)
    shown = run_here(*words, "--dry-run")
    assert shown.returncode == 1, shown.stderr
    assert not out.exists()
    assert "4 to compute, 0 done earlier, 1 refused\n" in shown.stdout
    assert f"refused: {folder}/broken.svs is not a slide" in shown.stdout
    assert "estimated: " in shown.stdout

    assert run_here(*words, "--exclude", "*[[]1*").returncode == 1
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    shown = run_here(*words, "--dry-run", "--json", "--overwrite")
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    document = json.loads(shown.stdout)
    size = sum(path.stat().st_size for path in out.rglob("*.*") if path.is_file())
    assert size / 3 < document["result_bytes"] < size * 3
    slide = next(e for e in document["inputs"] if e["path"].endswith("a.svs"))
    summary = json.loads((out / "a.svs" / "summary.json").read_text("utf-8"))
    assert slide["amount"]["units"] == summary["tiles"]["computed"]
    assert slide["mpp"] == summary["mpp"]
    assert tuple(slide["size_px"]) == (summary["slide"]["width_px"], summary["slide"]["height_px"])

    shown = run_here(*words, "--dry-run", "--json")
    fates = {Path(e["path"]).name: e["fate"] for e in json.loads(shown.stdout)["inputs"]}
    assert fates == {
        "[0] patch.png": "done", "[1] patch.png": "compute", "[2] patch.png": "done",
        "a.svs": "done", "broken.svs": "refused",
    }  # fmt: skip
