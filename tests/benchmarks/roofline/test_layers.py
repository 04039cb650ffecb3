from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import helper
from onnx.numpy_helper import from_array

from sshr_deploy.benchmarks.roofline.layers import PROFILERS, Layer, _of_calls, profile_layers
from sshr_deploy.benchmarks.roofline.work import GraphWork, graph_work
from sshr_deploy.bundle import load_bundle
from sshr_deploy.errors import SessionError
from sshr_deploy.precision import Precision
from sshr_deploy.runtime.sessions.openvino import compile_options, openvino_core
from tests.benchmarks.roofline.test_ceilings import CEILINGS

BATCH = 2


@pytest.fixture(scope="module")
def graph(small_bundle_dir: Path) -> Path:
    bundle = load_bundle(small_bundle_dir)
    return bundle.file(bundle.manifest.artifacts[0].file)


@pytest.fixture(scope="module")
def work(graph: Path) -> GraphWork:
    return graph_work(graph)


def _profiled(engine: str, graph: Path, work: GraphWork) -> list[Layer]:
    patches = np.zeros((BATCH, 224, 224, 3), np.uint8)
    return profile_layers(engine, graph, Precision.FP32, work, patches, calls=2, threads=1)


@pytest.mark.parametrize("engine", PROFILERS)
def test_the_kernels_of_an_engine_do_the_work_of_the_graph(
    engine: str, graph: Path, work: GraphWork
) -> None:
    layers = _profiled(engine, graph, work)

    assert sum(layer.flop for layer in layers) == BATCH * work.flop
    assert sum(layer.moved_bytes for layer in layers) > work.moved_bytes(BATCH)
    assert {len(layer.samples_ms) for layer in layers} == {2}
    named = {layer.layer for layer in layers if layer.flop}
    assert named == {work.layers[name] for name in work.products}
    (first,) = (layer for layer in layers if layer.layer == "conv1a")
    assert first.flop == BATCH * work.products[_node_of("conv1a", work)].flop


def test_openvino_tells_means_over_all_calls() -> None:
    """A release that tells each call's own time would make `_of_calls` wrong."""
    square = from_array(np.ones((512, 512), np.float32), "square")
    node = helper.make_node("MatMul", ["x", "square"], ["y"])
    x, y = (helper.make_tensor_value_info(name, 1, ["n", 512]) for name in "xy")
    graph = helper.make_graph([node], "product", [x], [y], [square])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    core = openvino_core()
    options = {**compile_options("fp32", 1), "PERF_COUNT": "YES"}
    network = core.compile_model(core.read_model(model.SerializeToString()), "CPU", options)
    request = network.create_infer_request()
    means_us = []
    for rows in (4000, 1, 1):
        request.infer({"x": np.ones((rows, 512), np.float32)})
        times = [found.real_time.total_seconds() * 1e6 for found in request.get_profiling_info()]
        means_us.append(max(times))
    first, second, third = means_us
    assert second >= first / 2 - 1 and third >= first / 3 - 1


def test_times_of_calls_from_their_means() -> None:
    assert _of_calls([4.0, 3.0, 4.0]) == [4.0, 2.0, 6.0]


def test_an_engine_without_a_profiler_is_refused(graph: Path, work: GraphWork) -> None:
    with pytest.raises(SessionError, match="onnx-cuda: layers are profiled of onnx-cpu, openvino"):
        _profiled("onnx-cuda", graph, work)


@pytest.mark.parametrize("engine", PROFILERS)
def test_a_graph_that_does_not_open_is_one_line(
    engine: str, tmp_path: Path, work: GraphWork
) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(SessionError, match=f"{engine} fp32 was not profiled: "):
        _profiled(engine, tmp_path / "model.onnx", work)


def test_what_a_layer_loses_is_above_its_ceiling() -> None:
    layer = Layer("k", "l", "Conv", Precision.FP32, 2 * 10**9, 1000, [25.0, 26.0, 24.0])
    assert layer.floor_ms(CEILINGS) == pytest.approx(20.0)
    assert layer.lost_ms(CEILINGS) == pytest.approx(5.0)
    faster = Layer("k", "l", "Conv", Precision.FP32, 2 * 10**9, 1000, [10.0])
    assert faster.lost_ms(CEILINGS) == 0


def _node_of(layer: str, work: GraphWork) -> str:
    return next(node for node, name in work.layers.items() if name == layer)
