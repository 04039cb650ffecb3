from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from sshr_deploy.bundle import MANIFEST_NAME, Bundle, load_bundle, sealed_json
from sshr_deploy.errors import ExportError, MissingExtraError, SessionError
from sshr_deploy.export import proof
from sshr_deploy.export.graph import timing as graph_timing
from sshr_deploy.precision import Precision
from sshr_deploy.runtime.contract import Session
from sshr_deploy.runtime.engines.building import from_onnx as engine_from_onnx
from sshr_deploy.runtime.machine.gpus import Gpu
from tests.runtime.qualifying import KnownSession

ADA = Gpu(0, "NVIDIA RTX 4000 Ada Generation", 89, "580.95.05", 20475)
H100 = Gpu(0, "NVIDIA H100 80GB HBM3", 90, "580.95.05", 81559)


def _no_gpu() -> Gpu:
    raise SessionError("no NVIDIA GPU: none")


@pytest.fixture
def rtx_bundle(small_bundle_dir: Path, tmp_path: Path) -> Path:
    """The small bundle, as if it had been exported for both TensorRTs, without fields."""
    folder = Path(shutil.copytree(small_bundle_dir, tmp_path / "bundle"))
    _edit(folder, engines=["tensorrt", "tensorrt-rtx", "onnx-cpu"])
    return folder


def _edit(folder: Path, *more: dict[str, Any], **artifact: Any) -> None:
    """Change the only artefact for patches, and add `more` that differ from it."""
    file = folder / MANIFEST_NAME
    content = json.loads(file.read_text())
    content.pop("self_sha256")
    content["fields"] = None
    content["artifacts"][0] |= artifact
    content["artifacts"] += [content["artifacts"][0] | other for other in more]
    file.write_text(sealed_json(content))


def test_without_a_gpu_rtx_builds_on_trial(
    rtx_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorrt_rtx")
    monkeypatch.setattr(proof, "first_gpu", _no_gpu)
    said: list[str] = []
    proof.prove_here(load_bundle(rtx_bundle), said.append)
    trials = [text for text in said if "builds the FP32 graph (convolutions: 48 fp32)" in text]
    assert len(trials) == 1
    assert "no tensorrt engine kept: no NVIDIA GPU: none" in said
    assert list((rtx_bundle / "engines").glob("tensorrt*")) == []


def test_a_graph_of_another_type_than_it_says_is_refused(
    rtx_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorrt_rtx")
    _edit(rtx_bundle, precision="fp16")
    monkeypatch.setattr(proof, "first_gpu", _no_gpu)
    with pytest.raises(ExportError, match=r"node_Conv_\d+"):
        proof.prove_here(load_bundle(rtx_bundle), lambda _: None)


def test_a_missing_library_is_told_and_the_bundle_is_made(
    rtx_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(engine: str) -> Any:
        raise MissingExtraError("tensorrt-rtx", "rtx")

    monkeypatch.setattr(engine_from_onnx, "import_tensorrt", missing)
    monkeypatch.setattr(proof, "first_gpu", _no_gpu)
    said: list[str] = []
    proof.prove_here(load_bundle(rtx_bundle), said.append)
    assert any("pip install 'sshr-deploy[rtx]'" in text for text in said)


class Machine:
    """What was opened on a machine with a GPU, and timed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, gpu: Gpu, int8_ms: float = 1.0) -> None:
        self.opened: list[tuple[str, Precision | None]] = []
        self.graphs: list[str] = []
        self.timed: list[tuple[str, str, int]] = []
        self.closed = 0
        self.int8_ms = int8_ms
        self.fault: SessionError | None = None
        monkeypatch.setattr(proof, "first_gpu", lambda: gpu)
        monkeypatch.setattr(proof, "open_session", self.open_session)
        monkeypatch.setattr(graph_timing, "time_sessions", self.time_sessions)

    def open_session(self, bundle: Bundle, engine: str, options: Any, **more: Any) -> Session:
        if self.fault is not None and engine.startswith("tensorrt"):
            raise self.fault
        self.opened.append((engine, options.precision))
        self.graphs.append(bundle.artifacts(engine)[0].file)
        machine = self

        class Opened(KnownSession):
            def close(self) -> None:
                machine.closed += 1

        session = Opened()
        session.info = replace(session.info, engine=engine, precision=options.precision)
        return session

    def time_sessions(self, pair: Sequence[Session], rounds: int, batch: int) -> list[list[float]]:
        assert self.closed < len(self.opened) - 1  # both are still open
        wide, narrow = (session.info for session in pair)
        assert narrow.engine == wide.engine and narrow.precision == Precision.INT8
        self.timed.append((wide.engine, wide.precision, batch))
        return [[2.0] * rounds, [self.int8_ms] * rounds]


@pytest.fixture
def all_precisions(rtx_bundle: Path) -> Path:
    _edit(rtx_bundle, {"precision": "fp16"}, {"precision": "int8"})
    return rtx_bundle


def test_with_a_gpu_every_precision_is_opened_and_timed(
    all_precisions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(monkeypatch, ADA)
    proof.prove_here(load_bundle(all_precisions), lambda _: None)
    engines = ("onnx-cpu", "tensorrt", "tensorrt-rtx")
    precisions = (Precision.FP32, Precision.FP16, Precision.INT8)
    assert machine.opened == list(product(engines, precisions))
    assert machine.timed == [
        (engine, "fp16", batch) for engine in ("tensorrt", "tensorrt-rtx") for batch in (1, 32)
    ]
    assert machine.closed == len(machine.opened)
    slow = Machine(monkeypatch, ADA, int8_ms=2.0)
    with pytest.raises(
        ExportError, match=r"INT8 is not clearly faster with tensorrt here at batch 1: 2 to 2 ms"
    ):
        proof.prove_here(load_bundle(all_precisions), lambda _: None)
    assert slow.closed == len(slow.opened)


def test_graphs_for_fields_are_opened_and_built_too(
    small_bundle_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(small_bundle_dir, tmp_path / "bundle"))
    machine = Machine(monkeypatch, ADA)
    bundle = load_bundle(folder)
    assert bundle.manifest.fields is not None
    proof.prove_here(bundle, lambda _: None)
    assert machine.opened == [("onnx-cpu", Precision.FP32)] * 2
    assert machine.graphs == ["model.onnx", "field.onnx"]


def test_a_gpu_that_rtx_does_not_list_gets_a_trial(
    rtx_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorrt_rtx")
    machine = Machine(monkeypatch, H100)
    said: list[str] = []
    proof.prove_here(load_bundle(rtx_bundle), said.append)
    assert machine.opened == [("onnx-cpu", Precision.FP32), ("tensorrt", Precision.FP32)]
    assert sum("builds the FP32 graph (convolutions: 48 fp32)" in text for text in said) == 1
    assert any(
        text.startswith("no tensorrt-rtx engine kept: NVIDIA H100 80GB HBM3 has SM 9.0")
        for text in said
    )


def test_an_engine_that_misses_its_tolerance_is_an_error(
    rtx_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for gpu in (ADA, H100):
        machine = Machine(monkeypatch, gpu)
        machine.fault = SessionError("it does not equal the reference here: cam_28_1 is off")
        with pytest.raises(SessionError, match="cam_28_1 is off"):
            proof.prove_here(load_bundle(rtx_bundle), lambda _: None)


@pytest.mark.parametrize("slow_batch", [1, 32])
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
    slow_batch: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sessions: dict[Precision, Session] = {precision: KnownSession() for precision in there}

    def time_sessions(pair: Sequence[Session], rounds: int, batch: int) -> list[list[float]]:
        wide = Precision.FP16 if Precision.FP16 in there else Precision.FP32
        assert list(pair) == [sessions[wide], sessions[Precision.INT8]]
        # One of the two sizes is fast enough in any case.
        return [[ms] * rounds for ms in (times if batch == slow_batch else (2.0, 1.0))]

    monkeypatch.setattr(graph_timing, "time_sessions", time_sessions)
    if refused:
        said = f"INT8 is not (clearly )?faster with tensorrt-rtx here at batch {slow_batch}: "
        with pytest.raises(ExportError, match=said):
            proof.check_int8_faster(sessions, "tensorrt-rtx")
    else:
        proof.check_int8_faster(sessions, "tensorrt-rtx")
