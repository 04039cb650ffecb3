"""The full-size network against the authors' numbers: PyTorch, and the exported graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from sshr_deploy.export.graph.conv_layers import conv_layers
from sshr_deploy.export.graph.deploy import HfrmForm
from sshr_deploy.export.graph.onnx_from_network import write_onnx
from sshr_deploy.export.graph.typed import write_typed_graph
from sshr_deploy.export.int8.activation_ranges import LayerRange, Range
from sshr_deploy.export.int8.qdq_from_onnx import QdqKind, QdqScheme, write_qdq
from sshr_deploy.export.reference import torch_cams
from sshr_deploy.geometry import Geometry
from sshr_deploy.model import SSHR, predict
from sshr_deploy.model.checkpoint import load_checkpoint
from sshr_deploy.precision import Precision
from sshr_deploy.profiles import load_profile
from sshr_deploy.runtime.contract import CAM_NAMES, CamBatch, Session
from sshr_deploy.runtime.engines.building.from_onnx import BuildOptions, build_engine
from sshr_deploy.runtime.engines.kinds import TENSORRT_RTX
from sshr_deploy.runtime.engines.qualification import relative_rms_error
from sshr_deploy.runtime.masks import gate, reference_mask
from sshr_deploy.runtime.patches import resize_to_patch
from sshr_deploy.runtime.sessions.onnxruntime.session import OnnxRuntimeSession

Infer = Callable[[NDArray[np.uint8]], CamBatch]
CAM_TOLERANCE = 1e-4
MASK_AGREEMENT = 0.9995
GATE_FILES = {
    0.2: "official_inference",
    0.5: "official_inference_gate_0.5",
    0.8: "official_inference_gate_0.8",
}


@pytest.fixture(scope="module")
def golden(golden_dir: Path) -> dict[float, dict[str, NDArray[Any]]]:
    return {
        threshold: dict(np.load(golden_dir / f"{name}.npz"))
        for threshold, name in GATE_FILES.items()
    }


@pytest.fixture(scope="module")
def model(seeded_checkpoint: Path) -> SSHR:
    return load_checkpoint(seeded_checkpoint)


class OneWindow(Geometry):
    """A field of the size of a patch, computed by the way of fields."""

    is_patch = False


FIELD = OneWindow()


@pytest.fixture
def session(model: SSHR, tmp_path: Path) -> Iterator[Session]:
    """The exported graph in the form that processors get."""
    write_onnx(model, tmp_path / "model.onnx", form=HfrmForm.DEPTHWISE)
    with OnnxRuntimeSession(tmp_path / "model.onnx", model.config.num_classes) as session:
        yield session


@pytest.fixture
def field_session(model: SSHR, tmp_path: Path) -> Iterator[Session]:
    """The graph for fields, for one of the size of a patch."""
    path = tmp_path / "field.onnx"
    write_onnx(model, path, geometry=FIELD)
    with OnnxRuntimeSession(path, model.config.num_classes, geometry=FIELD) as session:
        yield session


@pytest.mark.parametrize("engine", ["pytorch", "onnx"])
def test_cams_gates_and_masks_are_the_authors(
    engine: str,
    golden: dict[float, dict[str, NDArray[Any]]],
    model: SSHR,
    request: pytest.FixtureRequest,
) -> None:
    infer: Infer = (
        (lambda patches: torch_cams(model, patches))
        if engine == "pytorch"
        else request.getfixturevalue("session").infer
    )
    reference = golden[0.2]
    compared = 0
    for i in range(6):
        original = reference[f"{i}/original_rgb"]
        patch = resize_to_patch(original)
        assert np.array_equal(patch, reference[f"{i}/input_rgb_224"])
        cams = infer(patch[None])
        for name in CAM_NAMES:
            assert (
                relative_rms_error(getattr(cams, name)[0], reference[f"{i}/{name}"])
                <= CAM_TOLERANCE
            )
        np.testing.assert_allclose(cams.prob[0], reference[f"{i}/prob"], atol=1e-5)
        for threshold, file in golden.items():
            if f"{i}/mask" in file:
                _compare(cams, threshold, file[f"{i}/mask"], file[f"{i}/label"])
                compared += 1
    assert compared == 6 + 6 + 2


@pytest.mark.parametrize("engine", ["pytorch", "onnx"])
def test_a_field_of_the_size_of_a_patch_is_the_authors_network(
    engine: str,
    golden: dict[float, dict[str, NDArray[Any]]],
    model: SSHR,
    request: pytest.FixtureRequest,
) -> None:
    reference = golden[0.2]
    for i in (0, 3) if engine == "onnx" else (0,):
        patch = reference[f"{i}/input_rgb_224"][None]
        if engine == "pytorch":
            found = CamBatch(*predict(model, patch, FIELD))
        else:
            found = request.getfixturevalue("field_session").infer(patch)
        prob = found.prob[0]
        np.testing.assert_allclose(prob, np.broadcast_to(prob[:, :1, :1], prob.shape), atol=1e-6)
        cams = replace(found, prob=found.prob[:, :, 0, 0])
        for name in CAM_NAMES:
            error = relative_rms_error(getattr(cams, name)[0], reference[f"{i}/{name}"])
            assert error <= CAM_TOLERANCE
        np.testing.assert_allclose(cams.prob[0], reference[f"{i}/prob"], atol=1e-5)
        _compare(cams, 0.2, reference[f"{i}/mask"], reference[f"{i}/label"])


def _compare(
    cams: CamBatch, threshold: float, mask: NDArray[np.uint8], label: NDArray[np.uint8]
) -> None:
    assert np.array_equal(gate(cams.prob[0], threshold), label.astype(bool))
    got = reference_mask(
        cams,
        0,
        load_profile("luad").model_copy(update={"gate_threshold": threshold}),
        height_px=mask.shape[0],
        width_px=mask.shape[1],
    )
    assert (got == mask).mean() >= MASK_AGREEMENT


def test_tensorrt_rtx_builds_the_full_network_in_int8(model: SSHR, tmp_path: Path) -> None:
    """In fixed batches of 4, without a GPU; other precisions: tests of `engines/building`."""
    trt = pytest.importorskip("tensorrt_rtx")
    graph, wide_nodes = _int8(model, tmp_path)
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)  # the parser does not hold on to it
    parser = trt.OnnxParser(network, logger)
    assert parser.supports_model_v2(graph.read_bytes(), str(graph)), [
        parser.get_subgraph_nodes(index) for index in range(parser.num_subgraphs)
    ]

    plan = tmp_path / "engine.plan"
    library = TENSORRT_RTX.library
    assert library is not None
    report = build_engine(
        graph,
        plan,
        library=library,
        precision=Precision.INT8,
        options=BuildOptions(batches=(4,)),
        on_progress=lambda *_: None,
        wider=wide_nodes,
    )
    assert 110 < report.engine_bytes / 1e6 < 1.4 * 110
    assert report.layers["int8"] == 44
    assert plan.stat().st_size == report.engine_bytes


def _int8(model: SSHR, folder: Path) -> tuple[Path, frozenset[str]]:
    """The INT8 graph for TensorRT, and its convolutions that are wider."""
    fp32, fp16, int8 = (folder / f"{name}.onnx" for name in ("fp32", "fp16", "int8"))
    write_onnx(model, fp32, form=HfrmForm.SEPARABLE)
    write_typed_graph(fp32, fp16, Precision.FP16)
    layers = conv_layers(onnx.load(fp32, load_external_data=False).graph)
    whole = Range(-1.0, 1.0)  # what the ranges are makes no difference to a build
    ranges = {layer.name: LayerRange(whole, whole) for layer in layers}
    scheme = QdqScheme(QdqKind.S8S8)
    return int8, frozenset(write_qdq(fp16, int8, list(ranges), ranges, scheme))
