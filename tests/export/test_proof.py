from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sshr_deploy.bundle import MANIFEST_NAME, Bundle, load_bundle, sealed_json
from sshr_deploy.errors import ExportError, MissingExtraError
from sshr_deploy.export import engine_from_onnx, proof
from sshr_deploy.precision import Precision
from sshr_deploy.runtime.sessions import Session
from tests.runtime.qualifying import KnownSession


@pytest.fixture
def rtx_bundle(small_bundle_dir: Path, tmp_path: Path) -> Path:
    """The small bundle, as if it had been exported for TensorRT-RTX and TensorRT."""
    folder = Path(shutil.copytree(small_bundle_dir, tmp_path / "bundle"))
    _edit(folder, engines=["tensorrt", "tensorrt-rtx", "onnx-cpu"])
    return folder


def _edit(folder: Path, **artifact: Any) -> None:
    file = folder / MANIFEST_NAME
    content = json.loads(file.read_text())
    content.pop("self_sha256")
    content["artifacts"][0] |= artifact
    file.write_text(sealed_json(content))


def test_without_a_gpu_rtx_builds_on_trial(
    rtx_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorrt_rtx")
    monkeypatch.setattr(proof, "find_gpus", lambda: ())
    said: list[str] = []
    proof.prove_here(load_bundle(rtx_bundle), said.append)
    trials = [text for text in said if "builds the FP32 graph (convolutions: 48 fp32)" in text]
    assert len(trials) == 1
    assert any("no tensorrt engine built" in text for text in said)
    assert list((rtx_bundle / "engines").glob("tensorrt*")) == []


def test_a_graph_of_another_type_than_it_says_is_refused(
    rtx_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorrt_rtx")
    _edit(rtx_bundle, precision="fp16")
    monkeypatch.setattr(proof, "find_gpus", lambda: ())
    with pytest.raises(ExportError, match=r"node_Conv_\d+"):
        proof.prove_here(load_bundle(rtx_bundle), lambda _: None)


def test_a_missing_library_is_told_and_the_bundle_is_made(
    rtx_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(engine: str) -> Any:
        raise MissingExtraError("tensorrt-rtx", "rtx")

    monkeypatch.setattr(engine_from_onnx, "import_tensorrt", missing)
    monkeypatch.setattr(proof, "find_gpus", lambda: ())
    said: list[str] = []
    proof.prove_here(load_bundle(rtx_bundle), said.append)
    assert any("pip install 'sshr-deploy[rtx]'" in text for text in said)


def test_with_a_gpu_every_precision_is_opened_and_timed(
    rtx_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[str, Precision | None]] = []

    def open_session(bundle: Bundle, engine: str, options: Any, **more: Any) -> Session:
        opened.append((engine, options.precision))
        return KnownSession()

    monkeypatch.setattr(proof, "find_gpus", lambda: ("a GPU",))
    monkeypatch.setattr(proof, "open_session", open_session)
    proof.prove_here(load_bundle(rtx_bundle), lambda _: None)
    assert opened == [
        ("onnx-cpu", Precision.FP32),
        ("tensorrt", Precision.FP32),
        ("tensorrt-rtx", Precision.FP32),
    ]


@pytest.mark.parametrize(
    ("there", "times", "refused"),
    [
        ((Precision.FP16, Precision.INT8), (2.0, 1.0), False),
        ((Precision.FP32, Precision.FP16, Precision.INT8), (2.0, 2.0), True),
        ((Precision.FP32, Precision.INT8), (1.0, 3.0), True),
        ((Precision.FP32, Precision.FP16), (1.0, 3.0), False),
    ],
)
def test_eight_bits_that_are_not_faster_are_refused(
    there: Sequence[Precision],
    times: tuple[float, float],
    refused: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sessions: dict[Precision, Session] = {precision: KnownSession() for precision in there}

    def time_sessions(pair: Sequence[Session], rounds: int) -> list[list[float]]:
        wide = Precision.FP16 if Precision.FP16 in there else Precision.FP32
        assert list(pair) == [sessions[wide], sessions[Precision.INT8]]
        return [[ms] * rounds for ms in times]

    monkeypatch.setattr(proof, "time_sessions", time_sessions)
    if refused:
        with pytest.raises(ExportError, match=r"INT8 is not faster with tensorrt-rtx here"):
            proof.check_int8_faster(sessions, "tensorrt-rtx")
    else:
        proof.check_int8_faster(sessions, "tensorrt-rtx")
