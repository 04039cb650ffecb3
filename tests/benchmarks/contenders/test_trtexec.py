"""trtexec as a peer, with a stand-in for the program."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sshr_deploy.benchmarks.contenders import trtexec as module
from sshr_deploy.benchmarks.contenders.judging import reference_of
from sshr_deploy.benchmarks.contenders.trtexec import TrtexecPeer, trtexec_peers
from sshr_deploy.bundle import Bundle, load_bundle
from sshr_deploy.runtime.contract import OUTPUT_NAMES
from tests.benchmarks.contenders import fake_trtexec

Install = Callable[..., TrtexecPeer]


@pytest.fixture(scope="module")
def bundle(small_bundle_dir: Path) -> Bundle:
    """As if its graph were for TensorRT."""
    bundle = load_bundle(small_bundle_dir)
    (graph,) = bundle.artifacts("onnx-cuda")
    artifacts = [graph.model_copy(update={"engines": ("tensorrt",)})]
    return replace(bundle, manifest=bundle.manifest.model_copy(update={"artifacts": artifacts}))


@pytest.fixture
def install(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a stand-in on the PATH that gives the reference's outputs, or those of wrong classes."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(module, "find_gpus", tuple)

    def put(*, reverse: bool = False, fails: str = "") -> TrtexecPeer:
        reference = reference_of(bundle)
        patches: dict[str, Any] = {}
        for index, patch in enumerate(reference.patches):
            outputs = {name: getattr(reference.cams, name)[index] for name in OUTPUT_NAMES}
            patches[hashlib.sha256(patch.tobytes()).hexdigest()] = {
                name: (values[::-1] if reverse else values).ravel().tolist()
                for name, values in outputs.items()
            }
        answers = {"fails": fails, "patches": patches}
        (tmp_path / "answers.json").write_text(json.dumps(answers), "utf-8")
        program = tmp_path / "trtexec"
        source = Path(fake_trtexec.__file__).read_text("utf-8")
        program.write_text(f"#!{sys.executable}\n{source}", "utf-8")
        program.chmod(0o755)
        (peer,) = trtexec_peers(bundle)
        return peer

    return put


def test_without_the_program_there_is_no_peer(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert trtexec_peers(bundle) == []


def test_its_row_has_the_warm_calls_with_both_copies(install: Install, tmp_path: Path) -> None:
    row = install().measure(6, seconds=1)
    assert (row.name, row.unit) == ("trtexec fp32, batch 6", "ms")
    assert row.samples == (4.0,) * 10, "the first half second does not count"
    assert row.agreement is not None
    assert (row.agreement.masks, row.agreement.misses) == (1.0, ())
    assert [row.figures[name] for name in ("copy_in_ms", "engine_ms", "copy_out_ms")] == [
        *(1.0, 2.5, 0.5)
    ]
    assert row.facts["batch"] == 6 and "no label maps" in row.facts["covers"]
    assert not list(tmp_path.glob("sshr-trtexec-*")), "its files are gone"


def test_wrong_masks_get_no_speed(install: Install) -> None:
    peer = install(reverse=True)
    row = peer.measure(6, seconds=1)
    assert row.samples == () and row.not_measured is not None
    assert row.not_measured.startswith("its masks disagree: ")
    allowed = peer.measure(6, seconds=1, allow_unqualified=True)
    assert allowed.samples and allowed.facts["unqualified"] == row.not_measured


def test_a_failure_is_its_first_error(install: Install) -> None:
    row = install(fails="Could not parse the graph").measure(1, seconds=1)
    assert (row.samples, row.agreement) == ((), None)
    assert row.not_measured == "trtexec failed: Could not parse the graph"


def test_a_program_that_cannot_be_started_is_one_line(bundle: Bundle, tmp_path: Path) -> None:
    program = shutil.copy(sys.executable, tmp_path / "trtexec")
    Path(program).write_bytes(b"no program")
    (artifact,) = bundle.artifacts("tensorrt")
    row = TrtexecPeer(str(program), bundle, artifact).measure(1, seconds=1)
    assert row.not_measured is not None and "cannot be run" in row.not_measured
