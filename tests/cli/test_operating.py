"""Options of what runs unattended, on `infer`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.cli.command import run_here
from tests.runtime.running import patch_folder

SAVE = "import sys; open(sys.argv[1], 'a').write(' '.join(sys.argv[2:]) + chr(10))"


def test_a_run_that_tells_of_itself(
    small_bundle_dir: Path, demo_slide: Path, tmp_path: Path
) -> None:
    source, out, log, told = (tmp_path / name for name in ("in", "out", "log.jsonl", "told"))
    patch_folder(source, demo_slide, 2)
    (source / "bad.png").write_bytes(b"nonsense")
    command = f"'{sys.executable}' -c \"{SAVE}\" '{told}' {{status}} {{slide}}"
    done = run_here(
        "infer", source, "--model", small_bundle_dir, "--out", out, "--engine", "onnx-cpu",
        "--log-json", log, "--serve", "0", "--on-done", command,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    events = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    codes = [event["code"] for event in events]
    assert codes[0] == "started" and codes[-1] == "stopped"
    assert sorted(codes[1:-1]) == [
        "slide_done", "slide_done", "slide_failed", "slide_started", "slide_started"
    ]  # fmt: skip
    ended = [f"{e['code'][6:]} {e['slide']}" for e in events if "folder" in e or "failure" in e]
    assert told.read_text().splitlines() == ended
    assert "http://127.0.0.1:" in done.stderr and "/metrics" in done.stderr


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--serve", "host", "--serve 'host' has no port"),
        ("--on-done", "no-such-program", "names no program"),
        ("--on-done-url", "ftp://host", "--on-done-url"),
        ("--log-json", ".", "cannot write"),
    ],
)
def test_options_are_refused_before_anything_is_opened(
    small_bundle_dir: Path,
    tmp_path: Path,
    demo_slide: Path,
    option: str,
    value: str,
    says: str,
) -> None:
    done = run_here(
        "infer", demo_slide, "--model", small_bundle_dir, "--out", tmp_path / "out", option, value
    )
    assert done.returncode in (1, 2) and says in done.stderr, done.stderr
    assert not (tmp_path / "out").exists()


def test_metrics_need_their_package(
    small_bundle_dir: Path, tmp_path: Path, demo_slide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "sshr_deploy.runtime.operation.metrics", raising=False)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    done = run_here(
        "infer", demo_slide, "--model", small_bundle_dir, "--out", tmp_path / "out", "--serve", "0"
    )
    assert done.returncode == 2 and "pip install 'sshr-deploy[watch]'" in done.stderr
