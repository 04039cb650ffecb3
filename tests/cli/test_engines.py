from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sshr_deploy.atomic import partial_name
from tests.bundles import copy_without_field_engines


@pytest.fixture
def bundle_dir(small_bundle_dir: Path, tmp_path: Path) -> Path:
    return copy_without_field_engines(small_bundle_dir, tmp_path / "bundle")


def _run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sshr_deploy", "engines", *map(str, arguments)],
        capture_output=True,
        encoding="utf-8",
    )


def _stale(bundle_dir: Path) -> Path:
    """The bundle's record, as it would be of another release of ONNX Runtime."""
    from sshr_deploy.bundle import sealed_json
    from sshr_deploy.runtime.engines.key import EngineKey

    (record,) = (bundle_dir / "engines").glob("*/record.json")
    content = json.loads(record.read_text())
    content.pop("self_sha256")
    content["key"] |= {"library": "onnxruntime 1.2.3"}
    folder = bundle_dir / "engines" / EngineKey(**{**content["key"], "batches": ()}).slot
    folder.mkdir()
    (folder / "record.json").write_text(sealed_json(content))
    return folder


def _engines(bundle_dir: Path) -> list[Path]:
    """All in the store but the lock's file."""
    return sorted(p for p in (bundle_dir / "engines").iterdir() if p.name != ".renames.lock")


def test_list_verify_and_clean(bundle_dir: Path) -> None:
    (ready,) = _engines(bundle_dir)
    stale = _stale(bundle_dir)
    damaged = bundle_dir / "engines" / "onnx-cpu-int8-000000000000"
    damaged.mkdir()
    (damaged / "record.json").write_text("{")

    listed = _run("list", bundle_dir)
    assert listed.returncode == 0, listed.stderr
    for word in ("onnx-cpu", "ready", "stale", "damaged", "onnxruntime 1.2.3 -> onnxruntime"):
        assert word in listed.stdout
    states = {
        item["name"]: item["state"]
        for item in json.loads(_run("list", bundle_dir, "--json").stdout)
    }
    assert states == {ready.name: "ready", stale.name: "stale", damaged.name: "damaged"}

    verified = _run("verify", bundle_dir)
    assert verified.returncode == 1
    assert "2 engines that cannot be used" in verified.stdout

    cleaned = _run("clean", bundle_dir)
    assert cleaned.returncode == 0 and "removed 2 of 3" in cleaned.stdout
    assert _engines(bundle_dir) == [ready]
    assert _run("verify", bundle_dir).returncode == 0
    assert "removed 1 of 1" in _run("clean", bundle_dir, "--all").stdout
    assert "no engines yet" in _run("list", bundle_dir).stdout


def test_an_altered_bundle_is_one_line(bundle_dir: Path) -> None:
    data = bundle_dir / "model.onnx.data"
    content = bytearray(data.read_bytes())
    content[100] ^= 1
    data.write_bytes(content)
    done = _run("verify", bundle_dir)
    assert done.returncode == 2
    assert done.stderr.startswith("sshr-deploy: error: ") and done.stderr.count("\n") == 1
    assert "model.onnx.data was changed" in done.stderr


def test_what_a_user_put_there_is_spared(bundle_dir: Path) -> None:
    stale = _stale(bundle_dir)
    (stale / "notes.txt").write_text("mine")
    done = _run("clean", bundle_dir)
    assert done.returncode == 1
    assert "holds notes.txt; move it away" in done.stderr
    assert (stale / "notes.txt").read_text() == "mine"


@pytest.mark.skipif(os.name == "nt", reason="there it takes a day to tell that nobody writes")
def test_clean_removes_what_a_killed_build_left_and_nothing_else(bundle_dir: Path) -> None:
    (ready,) = _engines(bundle_dir)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    living = bundle_dir / "engines" / partial_name(ready.name)
    killed = living.with_name(living.name.replace(f"-{os.getpid()}-", f"-{ended.pid}-"))
    for folder in (living, killed):
        folder.mkdir()
        (folder / "engine.plan").write_bytes(b"x" * 2_000_000)
    done = _run("clean", bundle_dir)
    assert done.returncode == 0, done.stderr
    assert "removed 0 of 1, 2.0 MB" in done.stdout
    assert _engines(bundle_dir) == sorted([living, ready])


def test_folders_that_are_not_ours_are_spared(bundle_dir: Path) -> None:
    mine = bundle_dir / "engines" / "mydata"
    mine.mkdir()
    (mine / "record.json").write_text('{"my": "own"}')
    (mine / "slides.csv").write_text("precious")
    assert _run("clean", bundle_dir, "--all").returncode == 1
    assert (mine / "slides.csv").read_text() == "precious"


def test_a_file_in_place_of_the_folder_is_told(bundle_dir: Path) -> None:
    shutil.rmtree(bundle_dir / "engines")
    (bundle_dir / "engines").write_text("in the way")
    done = _run("verify", bundle_dir)
    assert done.returncode == 2
    assert done.stderr.endswith("engines is not a folder; move it away\n")


def test_text_of_a_foreign_record_is_not_interpreted(bundle_dir: Path) -> None:
    from sshr_deploy.bundle import sealed_json

    (record,) = (bundle_dir / "engines").glob("*/record.json")
    content = json.loads(record.read_text())
    content.pop("self_sha256")
    record.write_text(sealed_json({**content, "created_utc": "[/bold]\x1b[31m"}))
    done = _run("list", bundle_dir)
    assert done.returncode == 0 and "damaged" in done.stdout
    assert "\x1b" not in done.stdout


def test_engines_of_fields_are_told_apart(small_bundle_dir: Path, tmp_path: Path) -> None:
    from sshr_deploy.bundle import load_bundle
    from sshr_deploy.runtime.engines.choosing import open_session
    from sshr_deploy.runtime.engines.states import State, engine_states

    copy = copy_without_field_engines(small_bundle_dir, tmp_path / "bundle")
    bundle = load_bundle(copy)
    told: list[str] = []
    open_session(bundle.on_fields(), "onnx-cpu", on_step=told.append).close()
    assert told[0].startswith("onnx-cpu fp32: not qualified on this machine yet; comparing it with")
    states = engine_states(bundle)
    assert [state.state for state in states] == [State.READY] * 2
    keys = [state.entry.key for state in states]
    assert {key.inputs for key in keys if key} == {"patches", "fields of 560 px"}
    table = _run("list", copy).stdout
    assert table.count("ready") == 2 and "560 px" in table and "patches" in table
