from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sshr_deploy.benchmarks.roofline.layers import PROFILERS, Layer, profile_layers
from sshr_deploy.benchmarks.roofline.work import GraphWork, graph_work
from sshr_deploy.bundle import load_bundle
from sshr_deploy.errors import SessionError
from sshr_deploy.precision import Precision
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
