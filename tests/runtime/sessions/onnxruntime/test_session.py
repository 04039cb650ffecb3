from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from sshr_deploy.errors import MissingExtraError, SessionError
from sshr_deploy.runtime.contract import INPUT_NAME, OUTPUT_NAMES, CamBatch
from sshr_deploy.runtime.engines.kinds import find_kind
from sshr_deploy.runtime.machine import gpus as gpu
from sshr_deploy.runtime.machine.gpus import Gpu
from sshr_deploy.runtime.sessions.onnxruntime.binding import KEPT_SIZES, BoundRuns
from sshr_deploy.runtime.sessions.onnxruntime.providers import CPU_PROVIDER, Provider
from sshr_deploy.runtime.sessions.onnxruntime.session import OnnxRuntimeSession, library_text
from tests.runtime.doctor.fake_packages import put_metadata
from tests.runtime.session_contract import SessionContract, Subject, noise, relative_rms
from tests.runtime.sessions.small_graph import Graph, expected, writer


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    return writer(tmp_path_factory.mktemp("graphs"))


class TestCpu(SessionContract):
    @pytest.fixture(scope="class")
    @classmethod
    def subject(cls, small_bundle_dir: Path, small_checkpoint: Path) -> Subject:
        from sshr_deploy.model import predict
        from sshr_deploy.model.checkpoint import load_checkpoint

        model = load_checkpoint(small_checkpoint)
        return Subject(
            open=lambda: OnnxRuntimeSession(small_bundle_dir / "model.onnx", 3),
            expected=lambda patches: CamBatch(*predict(model, patches)),
            engine="onnx-cpu",
        )


class TestBound(SessionContract):
    """What the GPU engines do, on buffers of the CPU: bound, in parts, with another's options."""

    @pytest.fixture(scope="class")
    @classmethod
    def subject(cls, graph: Graph) -> Subject:
        path = graph("FLOAT")
        provider = Provider(CPU_PROVIDER, "gpu", buffers="cpu", prefix="trt")

        def opened() -> OnnxRuntimeSession:
            return OnnxRuntimeSession(path, 3, engine="onnx-tensorrt", provider=provider, batch=4)

        return Subject(opened, expected, "onnx-tensorrt")


class TestStreams(SessionContract):
    """Calls at the same time."""

    @pytest.fixture(scope="class")
    @classmethod
    def subject(cls, graph: Graph) -> Subject:
        path = graph("FLOAT")
        return Subject(lambda: OnnxRuntimeSession(path, 3, streams=2), expected, "onnx-cpu")


def test_streams_change_no_byte(small_bundle_dir: Path) -> None:
    batches = [noise(size, seed=size) for size in (1, 2, 5, 8)]
    found = []
    for streams in (1, 2, 3):
        with OnnxRuntimeSession(small_bundle_dir / "model.onnx", 3, streams=streams) as session:
            assert session.info.streams == streams
            results = session.stream(enumerate(batches))
            found.append([getattr(c, name).tobytes() for _, c in results for name in OUTPUT_NAMES])
    assert found[0] == found[1] == found[2]


@pytest.fixture
def two_streams(graph: Graph) -> Iterator[OnnxRuntimeSession]:
    with OnnxRuntimeSession(graph("FLOAT"), 3, streams=2) as session:
        yield session


def test_the_parts_of_a_batch_are_computed_at_the_same_time(
    two_streams: OnnxRuntimeSession,
) -> None:
    both, sizes = threading.Barrier(2, timeout=30), list[int]()
    run = two_streams._run
    assert run is not None

    def met(patches: Any) -> Any:
        sizes.append(len(patches))
        both.wait()
        return run(patches)

    two_streams._run = met
    assert len(two_streams.infer(noise(5))) == 5
    assert sorted(sizes) == [2, 3]


def test_the_error_of_a_stream_is_one_line_and_it_works_on(
    two_streams: OnnxRuntimeSession,
) -> None:
    run = two_streams._run
    assert run is not None

    def broken(patches: Any) -> Any:
        if len(patches) == 2:
            raise RuntimeError("out of memory\nin a node")
        return run(patches)

    two_streams._run = broken
    batches = [(n, noise(size)) for n, size in enumerate((1, 5, 1, 1))]
    results = two_streams.stream(batches)
    assert next(results)[0] == 0
    with pytest.raises(SessionError, match=r"onnxruntime .* failed: out of memory$"):
        next(results)
    two_streams._run = run
    assert len(two_streams.infer(noise(5))) == 5


def test_closing_waits_for_what_runs_and_drops_the_rest(two_streams: OnnxRuntimeSession) -> None:
    """As after Ctrl-C: nothing may still use the network once it is closed."""
    running, go_on, ended = threading.Semaphore(0), threading.Event(), list[int]()
    run = two_streams._run
    assert run is not None

    def slow(patches: Any) -> Any:
        running.release()
        assert go_on.wait(30)
        ended.append(len(patches))
        return run(patches)

    two_streams._run = slow
    two_streams._start(noise(2), None)
    assert all(running.acquire(timeout=30) for _ in range(2))
    waiting: Any = two_streams._start(noise(2), None)
    waiting.args[0][-1].add_done_callback(lambda _: go_on.set())  # it is dropped
    two_streams.close()
    assert ended == [1, 1]
    with pytest.raises(SessionError, match="closed"):
        waiting()


def test_fp16_runs_on_the_cpu(graph: Graph) -> None:
    with OnnxRuntimeSession(graph("FLOAT16"), 3, precision="fp16") as session:
        found, wanted = session.infer(noise(2)), expected(noise(2))
        assert session.info.precision == "fp16"
    assert 1e-6 < relative_rms(found.cam_28_1, wanted.cam_28_1) < 1e-3


def test_bf16_on_the_cpu_is_refused_by_name(graph: Graph) -> None:
    with pytest.raises(
        SessionError, match=r"CPUExecutionProvider cannot run bf16 here.* `precision`"
    ):
        OnnxRuntimeSession(graph("BFLOAT16"), 3, precision="bf16")


def test_bound_runs_give_what_plain_runs_give_and_reuse_their_buffers(graph: Graph) -> None:
    session = onnxruntime.InferenceSession(graph("FLOAT"), providers=[CPU_PROVIDER])
    made: list[int] = []

    class Ort:
        class OrtValue:
            @staticmethod
            def ortvalue_from_shape_and_type(shape: Any, dtype: Any, device: str) -> Any:
                new = onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, dtype, device)
                made.append(shape[0])
                return new

    runs = BoundRuns(Ort, session, 3, "cpu")
    for size in (2, 1, 2, 2, 1):
        patches = noise(size, seed=len(made))
        plain = session.run(list(OUTPUT_NAMES), {INPUT_NAME: patches})
        for got, wanted in zip(runs.run(patches), plain, strict=True):
            assert np.array_equal(got, wanted)
    assert made == [2] * 5 + [1] * 5, "an input and four outputs for each size, once"
    for size in range(3, 3 + KEPT_SIZES):
        runs.run(noise(size))
    made.clear()
    runs.run(noise(3))
    assert made == [], "the last sizes are kept"
    runs.run(noise(2))
    assert made == [2] * 5, "the oldest is not"


def test_a_batch_beyond_the_profile_is_run_in_parts(graph: Graph) -> None:
    provider = Provider(CPU_PROVIDER, "rtx", prefix="nv")
    session = OnnxRuntimeSession(graph("FLOAT"), 3, provider=provider, batch=2)
    sizes: list[int] = []
    run = session._run
    assert run is not None

    def counted(patches: Any) -> Any:
        sizes.append(len(patches))
        return run(patches)

    session._run = counted
    assert len(session.infer(noise(5))) == 5
    assert sizes == [2, 2, 1]


@pytest.mark.parametrize(
    ("engine", "named"),
    [
        ("onnx-cpu", ""),
        ("onnx-cuda", ", nvidia-cudnn-cu13 9.1, nvidia-cublas-cu12 12.9.2, nvidia-cublas 13.1"),
        ("onnx-tensorrt", ", tensorrt 10.16.1, tensorrt-cu13 10.16.1, nvidia-cudnn-cu13 9.1"),
        ("onnx-rtx", ", onnxruntime-ep-nv-tensorrt-rtx-cu13 0.5.0"),
    ],
)
def test_the_library_text_names_what_the_provider_runs_on(
    engine: str, named: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, version in {
        "onnxruntime-ep-nv-tensorrt-rtx-cu13": "0.5.0",
        "nvidia-cudnn-cu13": "9.1",
        "nvidia-cublas": "13.1",
        "nvidia-cublas-cu12": "12.9.2",
        "tensorrt": "10.16.1",
        "tensorrt-cu13": "10.16.1",
        "numpy-of-another": "1",
    }.items():
        put_metadata(tmp_path, name, version)
    monkeypatch.syspath_prepend(tmp_path)
    kind = find_kind(engine)
    assert kind is not None and kind.provider is not None
    text = library_text(onnxruntime, kind.provider)
    assert text == f"onnxruntime {onnxruntime.__version__}{named}"


def test_a_gpu_has_the_name_of_the_first_visible_one(
    graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus = (Gpu(0, "NVIDIA T400", 75, "580.1", 1), Gpu(1, "NVIDIA RTX", 89, "580.1", 1, "GPU-1f"))
    monkeypatch.setattr(gpu, "find_gpus", lambda: gpus)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-1f")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "to be restored")
    monkeypatch.delenv("CUDA_DEVICE_ORDER")
    monkeypatch.setattr(
        "sshr_deploy.runtime.sessions.onnxruntime.session.open_graph",
        lambda *_: onnxruntime.InferenceSession(graph("FLOAT"), providers=[CPU_PROVIDER]),
    )
    provider = Provider("AnyExecutionProvider", "gpu")
    with OnnxRuntimeSession(graph("FLOAT"), 3, provider=provider) as session:
        assert session.info.device == "NVIDIA RTX"
    assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


def test_an_error_while_it_runs_is_a_session_error(graph: Graph) -> None:
    session = OnnxRuntimeSession(graph("FLOAT"), 3)

    def full(patches: object) -> Any:
        raise RuntimeError("out of memory\nand more")

    session._run = full
    with pytest.raises(SessionError, match=r"^onnxruntime .* failed: out of memory$"):
        session.infer(noise(1))


def test_a_graph_of_another_class_count_is_refused(graph: Graph) -> None:
    with pytest.raises(SessionError, match="SSHR graph of 5 classes"):
        OnnxRuntimeSession(graph("FLOAT"), 5)


def test_a_broken_graph_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(SessionError, match="onnxruntime cannot open") as caught:
        OnnxRuntimeSession(tmp_path / "model.onnx", 3)
    assert "\n" not in str(caught.value)


def test_weights_outside_the_folder_are_never_read(small_bundle_dir: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    proto = onnx.load(small_bundle_dir / "model.onnx", load_external_data=False)
    (tmp_path / "secret").write_bytes((small_bundle_dir / "model.onnx.data").read_bytes())
    folder = tmp_path / "bundle"
    folder.mkdir()
    for location in ("../secret", str(tmp_path / "secret")):
        for tensor in proto.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = location
        (folder / "model.onnx").write_bytes(proto.SerializeToString())
        with pytest.raises(SessionError, match="cannot open"):
            OnnxRuntimeSession(folder / "model.onnx", 3)


def test_without_onnxruntime_the_extra_is_named(
    graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'sshr-deploy\[cpu\]'"):
        OnnxRuntimeSession(graph("FLOAT"), 3)


def test_nothing_is_written_or_sent_about_the_user(graph: Graph, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from sshr_deploy.runtime.sessions.onnxruntime.session import OnnxRuntimeSession\n"
        "OnnxRuntimeSession(Path(sys.argv[1]), 3).close()"
    )
    home = {name: str(tmp_path) for name in ("HOME", "XDG_CACHE_HOME", "LOCALAPPDATA")}
    subprocess.run(
        [sys.executable, "-c", code, str(graph("FLOAT"))], env={**os.environ, **home}, check=True
    )
    assert list(tmp_path.rglob("*")) == []
