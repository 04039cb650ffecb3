from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper, shape_inference

from sshr_deploy.errors import ExportError
from sshr_deploy.export.graph.typed import write_typed_graph
from sshr_deploy.precision import Precision
from sshr_deploy.runtime.contract import CAM_NAMES, OUTPUT_NAMES
from sshr_deploy.runtime.engines.qualification import relative_rms_error
from sshr_deploy.runtime.engines.reference import read_reference
from sshr_deploy.runtime.sessions.onnxruntime.session import OnnxRuntimeSession

TYPES = {Precision.FP16: TensorProto.FLOAT16, Precision.BF16: TensorProto.BFLOAT16}


@pytest.fixture(scope="module", params=list(TYPES))
def typed(
    request: pytest.FixtureRequest, small_bundle_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Precision, Path]:
    path = tmp_path_factory.mktemp("typed") / "typed.onnx"
    write_typed_graph(small_bundle_dir / "model.onnx", path, request.param)
    return request.param, path


def _types(path: Path) -> tuple[onnx.GraphProto, dict[str, int]]:
    """The graph and the type of every tensor, as ONNX's own strict inference finds it."""
    graph = shape_inference.infer_shapes(onnx.load(path), strict_mode=True).graph
    types = {t.name: t.data_type for t in graph.initializer}
    for value in (*graph.value_info, *graph.input, *graph.output):
        types[value.name] = value.type.tensor_type.elem_type
    return graph, types


def test_convolutions_are_narrow_and_the_rest_is_fp32(typed: tuple[Precision, Path]) -> None:
    precision, path = typed
    onnx.checker.check_model(path, full_check=True)
    graph, types = _types(path)
    narrow = TYPES[precision]
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 48
    for node in convolutions:
        assert {types[name] for name in (*node.input, *node.output)} == {narrow}, node.name
    for op in ("ReduceMean", "Gemm", "Sigmoid"):
        nodes = [node for node in graph.node if node.op_type == op]
        assert nodes
        for node in nodes:
            floats = [types[name] for name in node.input if types[name] != TensorProto.INT64]
            assert {*floats, types[node.output[0]]} == {TensorProto.FLOAT}, node.name
    assert {types[name] for name in OUTPUT_NAMES} == {TensorProto.FLOAT}
    assert types["patches"] == TensorProto.UINT8
    assert not [node for node in graph.node if node.op_type == "BatchNormalization"]


def test_nothing_is_converted_back_and_forth(typed: tuple[Precision, Path]) -> None:
    """One conversion in, one for each gate, and back for the mean and the three heads."""
    graph, _ = _types(typed[1])
    casts = [node for node in graph.node if node.op_type == "Cast"]
    assert len(casts) == 1 + 1 + 2 + 1 + 3  # uint8 to FP32; in; gates; mean; heads


def test_weights_are_rounded_once(typed: tuple[Precision, Path], small_bundle_dir: Path) -> None:
    precision, path = typed
    wide = {t.name: t for t in onnx.load(small_bundle_dir / "model.onnx").graph.initializer}
    compared = 0
    for tensor in onnx.load(path).graph.initializer:
        source = wide.get(tensor.name.removesuffix("_narrow"))
        if source is None or not tensor.name.endswith("_narrow"):
            continue
        got = numpy_helper.to_array(tensor)
        expected = numpy_helper.to_array(source).astype(got.dtype)
        assert np.array_equal(got.view(np.uint16), expected.view(np.uint16))
        compared += 1
    assert compared >= 45
    assert precision.value in ("fp16", "bf16")


def test_fp16_gives_nearly_the_cams_of_fp32(small_bundle_dir: Path, tmp_path: Path) -> None:
    write_typed_graph(small_bundle_dir / "model.onnx", tmp_path / "m.onnx", Precision.FP16)
    reference = read_reference(small_bundle_dir / "reference.npz", 3)
    with OnnxRuntimeSession(tmp_path / "m.onnx", 3, precision="fp16") as session:
        got = session.infer(reference.patches)
    for name in CAM_NAMES:
        error = relative_rms_error(getattr(got, name), getattr(reference.cams, name))
        assert 1e-6 < error < 1e-2, name


def test_weights_that_fp16_cannot_hold_are_refused(small_bundle_dir: Path, tmp_path: Path) -> None:
    model = onnx.load(small_bundle_dir / "model.onnx")
    (tensor,) = (t for t in model.graph.initializer if t.name == "model.b7.conv_branch1.weight")
    array = numpy_helper.to_array(tensor).copy()
    array[0, 0, 0, 0] = 1e5
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    onnx.save_model(model, tmp_path / "m.onnx")
    with pytest.raises(ExportError, match=r"conv_branch1\.weight holds 1e\+05.*`precision` bf16"):
        write_typed_graph(tmp_path / "m.onnx", tmp_path / "typed.onnx", Precision.FP16)
    write_typed_graph(tmp_path / "m.onnx", tmp_path / "typed.onnx", Precision.BF16)


def test_equal_graphs_are_equal_bytes(small_bundle_dir: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        path = tmp_path / name / "m.onnx"
        write_typed_graph(small_bundle_dir / "model.onnx", path, Precision.FP16)
        write_typed_graph(small_bundle_dir / "model.onnx", path, Precision.FP16)  # over the first
    for file in ("m.onnx", "m.onnx.data"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
