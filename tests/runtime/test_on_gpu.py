"""The contract on real hardware: each library that can run on this machine's NVIDIA GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pydantic")
pytest.importorskip("onnxruntime")

from sshr_deploy.errors import MissingExtraError
from sshr_deploy.precision import Precision
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.contract import CamBatch, Session
from sshr_deploy.runtime.cuda.opening import open_device
from sshr_deploy.runtime.engines.building.from_onnx import BuildOptions, build_engine
from sshr_deploy.runtime.engines.kinds import KINDS, ONNX_CUDA
from sshr_deploy.runtime.engines.qualification import TOLERANCES, misses, qualify
from sshr_deploy.runtime.engines.reference import read_reference
from sshr_deploy.runtime.kernels.cam_to_mask import plan
from sshr_deploy.runtime.kernels.manifest import cubins_or_reason
from sshr_deploy.runtime.machine import gpus as gpu_module
from sshr_deploy.runtime.machine.gpus import Gpu, first_gpu
from sshr_deploy.runtime.sessions.onnxruntime.cuda import OnnxRuntimeCudaSession
from sshr_deploy.runtime.sessions.onnxruntime.providers import CPU_PROVIDER, Provider
from sshr_deploy.runtime.sessions.tensorrt.library import Library
from sshr_deploy.runtime.sessions.tensorrt.session import TensorRtSession
from tests.gpu_here import why_not
from tests.runtime.fake_gpu import SM
from tests.runtime.fake_kernels import make_mask_kernels
from tests.runtime.session_contract import Patches, SessionContract, Subject
from tests.runtime.sessions import small_graph
from tests.runtime.sessions.fake_tensorrt_session import install_fake_tensorrt

BATCHES = (1, 4)
FP32_GRAPH = "model-gpu.onnx"


def _subject(graphs: Path, checkpoint: Path, engine: str, opened: Any) -> Subject:
    from sshr_deploy.model import predict
    from sshr_deploy.model.checkpoint import load_checkpoint

    model = load_checkpoint(checkpoint)

    def expected(patches: Patches) -> CamBatch:
        return CamBatch(*predict(model, patches))

    return Subject(lambda: opened(graphs, Precision.FP32), expected, engine)


def _write_graph(checkpoint: Path, folder: Path) -> None:
    """The FP32 graph that `sshr-deploy export` makes for GPUs."""
    from sshr_deploy.export.graph import onnx_from_network
    from sshr_deploy.export.job import ExportOptions
    from sshr_deploy.model.checkpoint import load_checkpoint

    form = ExportOptions().form_for(tuple(OPENED))
    onnx_from_network.write_onnx(load_checkpoint(checkpoint), folder / FP32_GRAPH, form=form)


@pytest.fixture(scope="session")
def graphs(small_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of that graph; typed graphs and engines are made beside it."""
    folder = tmp_path_factory.mktemp("graphs")
    _write_graph(small_checkpoint, folder)
    return folder


def _graph(graphs: Path, precision: Precision) -> Path:
    if precision is Precision.FP32:
        return graphs / FP32_GRAPH
    from sshr_deploy.export.graph.typed import write_typed_graph

    path = graphs / f"typed-{precision}.onnx"
    write_typed_graph(graphs / FP32_GRAPH, path, precision)
    return path


def _cuda(
    graphs: Path, precision: Precision, provider: Provider | None = ONNX_CUDA.provider
) -> Session:
    graph = _graph(graphs, precision)
    assert provider is not None
    return OnnxRuntimeCudaSession(
        graph,
        3,
        engine=ONNX_CUDA.name,
        provider=provider,
        precision=precision.value,
        batch=max(BATCHES),
    )


def _planned(engine: str, library: Library) -> Any:
    def opened(graphs: Path, precision: Precision) -> Session:
        plan = graphs / f"{engine}-{precision}.plan"
        if not plan.exists():
            build_engine(
                _graph(graphs, precision),
                plan,
                library=library,
                precision=precision,
                options=BuildOptions(batches=BATCHES),
                on_progress=lambda *_: None,
            )
        return TensorRtSession(
            plan,
            3,
            engine=engine,
            made_by=library,
            precision=precision.value,
            batches=BATCHES,
        )

    return opened


OPENED = {
    ONNX_CUDA.name: _cuda,
    **{kind.name: _planned(kind.name, kind.library) for kind in KINDS if kind.library},
}


def _skip_where_it_cannot_run(engine: str) -> None:
    if reason := why_not(engine):
        pytest.skip(reason)


class TestOnGpu(SessionContract):
    @pytest.fixture(scope="class", params=list(OPENED))
    @classmethod
    def subject(cls, request: pytest.FixtureRequest) -> Subject:
        _skip_where_it_cannot_run(request.param)
        graphs, checkpoint = map(request.getfixturevalue, ("graphs", "small_checkpoint"))
        return _subject(graphs, checkpoint, request.param, OPENED[request.param])


@pytest.mark.parametrize("engine", OPENED)
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16])
def test_masks_agree_with_pytorch(
    engine: str, precision: Precision, request: pytest.FixtureRequest, profile: Profile
) -> None:
    _skip_where_it_cannot_run(engine)
    bundle, graphs = map(request.getfixturevalue, ("small_bundle_dir", "graphs"))
    reference = read_reference(bundle / "reference.npz", 3)
    with OPENED[engine](graphs, precision) as session:
        found = qualify(session, reference, profile)
    assert misses(found, TOLERANCES[precision]) == []


@pytest.mark.parametrize("engine", OPENED)
def test_the_gpu_makes_the_label_maps_where_there_are_kernels(
    engine: str, request: pytest.FixtureRequest
) -> None:
    _skip_where_it_cannot_run(engine)
    kernels = [(variant.op, variant.name) for variant in (plan.RANGES, plan.MASK)]
    if isinstance(reason := cubins_or_reason(kernels, first_gpu().sm), str):
        pytest.skip(reason)
    try:
        open_device(0).close()
    except MissingExtraError as error:
        pytest.skip(str(error))
    with OPENED[engine](request.getfixturevalue("graphs"), Precision.FP32) as session:
        assert not [note for note in session.info.notes if "no label maps on the GPU" in note]


def test_onnx_cuda_is_tested_as_it_ships(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a fake GPU and ONNX Runtime's CPU provider, with a graph that takes no time to write."""
    install_fake_tensorrt(monkeypatch, make_mask_kernels(tmp_path / "kernels", SM))
    provider = Provider(CPU_PROVIDER, "gpu", buffers="cpu")
    monkeypatch.setattr(gpu_module, "find_gpus", lambda: (Gpu(0, "a card", SM, "580", 1024),))
    small_graph.writer(tmp_path)("FLOAT").rename(tmp_path / FP32_GRAPH)
    with _cuda(tmp_path, Precision.FP32, provider) as session:
        assert type(session) is OnnxRuntimeCudaSession
        assert session.info.notes == ()


def test_gpus_are_tested_with_the_separable_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What would be written; writing it takes seconds."""
    for package in ("torch", "onnx", "onnxscript"):
        pytest.importorskip(package)
    from sshr_deploy.export.graph import onnx_from_network
    from sshr_deploy.model import checkpoint

    def write(model: Path, path: Path, *, form: str) -> None:
        written.append((model, path, form))

    written: list[tuple[Path, Path, str]] = []
    monkeypatch.setattr(checkpoint, "load_checkpoint", lambda path: path)
    monkeypatch.setattr(onnx_from_network, "write_onnx", write)
    _write_graph(tmp_path / "a.pth", tmp_path)
    graph = _graph(tmp_path, Precision.FP32)
    assert written == [(tmp_path / "a.pth", graph, "separable")]
