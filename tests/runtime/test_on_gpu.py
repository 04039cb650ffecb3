"""The contract on real hardware: each library that can run on this machine's NVIDIA GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pydantic")
pytest.importorskip("onnxruntime")

from sshr_deploy.export.engine_from_onnx import BuildOptions, build_engine
from sshr_deploy.precision import Precision
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.qualification import TOLERANCES, misses, qualify
from sshr_deploy.runtime.reference_set import read_reference
from sshr_deploy.runtime.sessions.onnxruntime import OnnxRuntimeSession
from sshr_deploy.runtime.sessions.session import CamBatch, Session
from sshr_deploy.runtime.sessions.tensorrt import TensorRtSession
from sshr_deploy.runtime.tensorrt_library import LIBRARIES
from tests.gpu_here import why_not
from tests.runtime.session_contract import Patches, SessionContract, Subject

BATCHES = (1, 4)


def _subject(bundle: Path, checkpoint: Path, engine: str, opened: Any) -> Subject:
    from sshr_deploy.model import predict
    from sshr_deploy.model.checkpoint import load_checkpoint

    model = load_checkpoint(checkpoint)

    def expected(patches: Patches) -> CamBatch:
        return CamBatch(*predict(model, patches))

    return Subject(lambda: opened(bundle, Precision.FP32), expected, engine)


def _graph(bundle: Path, precision: Precision) -> Path:
    if precision is Precision.FP32:
        return bundle / "model.onnx"
    from sshr_deploy.export.typed_graph import write_typed_graph

    path = bundle / "engines" / f"typed-{precision}.onnx"
    write_typed_graph(bundle / "model.onnx", path, precision)
    return path


def _cuda(bundle: Path, precision: Precision) -> Session:
    graph = _graph(bundle, precision)
    return OnnxRuntimeSession(graph, 3, engine="onnx-cuda", precision=precision.value, batch=4)


def _planned(engine: str) -> Any:
    def opened(bundle: Path, precision: Precision) -> Session:
        plan = bundle / "engines" / f"{engine}-{precision}.plan"
        if not plan.exists():
            build_engine(
                _graph(bundle, precision),
                plan,
                engine=engine,  # type: ignore[arg-type]
                precision=precision,
                options=BuildOptions(batches=BATCHES),
                on_progress=lambda *_: None,
            )
        return TensorRtSession(plan, 3, engine=engine, precision=precision.value, batches=BATCHES)

    return opened


OPENED = {"onnx-cuda": _cuda, **{engine: _planned(engine) for engine in LIBRARIES}}


def _skip_where_it_cannot_run(engine: str) -> None:
    if reason := why_not(engine):
        pytest.skip(reason)


class TestOnGpu(SessionContract):
    @pytest.fixture(scope="class", params=list(OPENED))
    @classmethod
    def subject(cls, request: pytest.FixtureRequest) -> Subject:
        _skip_where_it_cannot_run(request.param)
        bundle, checkpoint = map(request.getfixturevalue, ("small_bundle_dir", "small_checkpoint"))
        return _subject(bundle, checkpoint, request.param, OPENED[request.param])


@pytest.mark.parametrize("engine", OPENED)
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16])
def test_masks_agree_with_pytorch(
    engine: str, precision: Precision, request: pytest.FixtureRequest, profile: Profile
) -> None:
    _skip_where_it_cannot_run(engine)
    bundle = request.getfixturevalue("small_bundle_dir")
    reference = read_reference(bundle / "reference.npz", 3)
    with OPENED[engine](bundle, precision) as session:
        found = qualify(session, reference, profile)
    assert misses(found, TOLERANCES[precision]) == []
