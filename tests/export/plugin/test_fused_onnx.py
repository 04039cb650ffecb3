"""The graph for TensorRT with the plugin, run by ONNX's reference with a plain form of the node."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from torch import Tensor

from sshr_deploy.errors import KernelArgumentError, MissingExtraError
from sshr_deploy.export.graph.deploy import DeployGraph, HfrmForm
from sshr_deploy.export.graph.fused_head import fused_heads
from sshr_deploy.export.graph.onnx_from_network import export_module, write_onnx
from sshr_deploy.export.plugin import fused_onnx
from sshr_deploy.export.plugin.fused_onnx import fused_translations, plugin_rows, write_fused_onnx
from sshr_deploy.export.reference import torch_cams
from sshr_deploy.model import HFRM, SSHR, ModelConfig
from sshr_deploy.model.checkpoint import load_checkpoint
from sshr_deploy.runtime.contract import CAM_NAMES
from sshr_deploy.runtime.engines.qualification import relative_rms_error
from sshr_deploy.runtime.kernels.hfrm_cam.naive import hfrm_cam as naive_hfrm_cam
from sshr_deploy.runtime.kernels.hfrm_cam.plan import Config, pack
from tests import tolerances

ATTRIBUTES = {"plugin_namespace": "sshr_deploy", "plugin_version": "1", "aot": 1}
FLOAT, HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
Array = NDArray[Any]


def _plain_hfrm_cam(
    self: OpRun,
    feature: Array,
    gate: Array,
    head: Array,
    context: Array,
    bias: Array,
    **attributes: object,
) -> tuple[Array]:
    """A direct 15x15 convolution with the taps that the last of a lane's rows reads."""
    assert attributes == ATTRIBUTES
    channels, classes = feature.shape[1], len(bias)
    rows = len(context) - 14
    by_tap = context.reshape(14 + rows, channels, rows, 16, -1)
    taps = by_tap[rows - 1 :, :, rows - 1, :15, :classes].astype(np.float64)
    padded = np.pad(feature.astype(np.float64), ((0, 0), (0, 0), (7, 7), (7, 7)))
    windows = sliding_window_view(padded, (15, 15), axis=(2, 3))
    convolved = np.einsum("bchwyx,ycxn->bnhw", windows, taps, optimize=True)
    gated = np.einsum("bchw,bc,cn->bnhw", feature, gate, head[:, :classes], dtype=np.float64)
    return ((gated + convolved + bias[:, None, None]).astype(np.float32),)


def evaluator(path: Path) -> ReferenceEvaluator:
    node = type("hfrm_cam", (OpRun,), {"op_domain": "sshr_deploy", "_run": _plain_hfrm_cam})
    return ReferenceEvaluator(str(path), new_ops=[node])


def fused_nodes(proto: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in proto.graph.node if node.domain]


def initialisers(proto: onnx.ModelProto) -> dict[str, Array]:
    return {item.name: numpy_helper.to_array(item) for item in proto.graph.initializer}


def value_types(proto: onnx.ModelProto) -> dict[str, tuple[int, list[int | str]]]:
    """Element type and sizes, of which the free ones are names."""
    graph = proto.graph
    return {
        item.name: (
            item.type.tensor_type.elem_type,
            [size.dim_param or size.dim_value for size in item.type.tensor_type.shape.dim],
        )
        for item in (*graph.value_info, *graph.input, *graph.output)
    }


@pytest.fixture(scope="module")
def model(small_checkpoint: Path) -> SSHR:
    return load_checkpoint(small_checkpoint)


@pytest.fixture(scope="module")
def graph(model: SSHR, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("triton")
    path = tmp_path_factory.mktemp("fused") / "model.onnx"
    write_fused_onnx(model, path)
    return path


def test_the_graph_holds_two_nodes_of_the_plugin(graph: Path) -> None:
    proto = onnx.load(graph)
    first, second = fused_nodes(proto)
    types = value_types(proto)
    for node, level, channels in ((first, 0, 16), (second, 1, 32)):
        assert (node.domain, node.op_type) == ("sshr_deploy", "hfrm_cam")
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        assert attributes == {
            name: value.encode() if isinstance(value, str) else value
            for name, value in ATTRIBUTES.items()
        }
        feature, gate, *weights = node.input
        assert types[feature] == (FLOAT, ["batch", channels, 28, 28])
        assert types[gate] == (FLOAT, ["batch", channels])
        assert weights == [f"fused.{level}.{name}" for name in ("head", "context", "bias")]
        assert [types[name] for name in node.output] == [(FLOAT, ["batch", 3, 28, 28])]
    assert {o.domain: o.version for o in proto.opset_import} == {"": 20, "sshr_deploy": 1}
    assert not proto.functions


def test_weights_are_packed_for_the_build_of_the_plugin(graph: Path, model: SSHR) -> None:
    found = initialisers(onnx.load(graph))
    levels = ((model.hfrm_28_1, model.ic1), (model.hfrm_28_2, model.ic2))
    for level, (hfrm, head) in enumerate(levels):
        assert head.bias is not None
        wanted = pack(
            head.weight.detach()[:, :, 0, 0].numpy(),
            head.bias.detach().numpy(),
            hfrm.context_conv.weight.detach()[:, 0].numpy(),
            hfrm.gamma_context.item(),
            rows=1,
        )
        for name in ("head", "context", "bias"):
            np.testing.assert_array_equal(found[f"fused.{level}.{name}"], getattr(wanted, name))
    assert not [name for name in found if "context_conv" in name or "ic_56" in name]


def test_weights_follow_the_block_sizes_of_the_plugin(
    model: SSHR, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("triton")
    graphs: list[DeployGraph] = []
    monkeypatch.setattr(fused_onnx, "plugin_config", lambda *_: Config(4, 64, 32, 4, 2))
    monkeypatch.setattr(fused_onnx, "write_graph", lambda graph, *_, **__: graphs.append(graph))
    write_fused_onnx(model, tmp_path / "model.onnx")
    (graph,) = graphs
    shapes = [tuple(head.get_buffer("context").shape) for head in graph.fused]
    assert shapes == [(18, 16, 256), (18, 32, 256)]


def test_only_the_batch_is_free_and_onnx_accepts_it(graph: Path) -> None:
    onnx.checker.check_model(graph, full_check=True)
    proto = onnx.load(graph, load_external_data=False)
    assert b".py" not in graph.read_bytes()
    inferred = onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True)
    types = value_types(inferred)
    assert {name for node in proto.graph.node for name in node.output} <= types.keys()
    for name, (_, sizes) in types.items():
        assert all(size == "batch" if isinstance(size, str) else size > 0 for size in sizes), name
    assert types["cam_28_1"] == types["cam_28_2"] == (FLOAT, ["batch", 3, 28, 28])


@pytest.mark.parametrize("batch", [1, 3])
def test_its_cams_are_those_of_the_plain_form(graph: Path, model: SSHR, batch: int) -> None:
    patches = np.random.default_rng(3).integers(0, 256, (batch, 224, 224, 3), np.uint8)
    found = evaluator(graph).run(None, {"patches": patches})
    assert isinstance(found, list)
    expected = torch_cams(model, patches)
    for name, got in zip((*CAM_NAMES, "prob"), found, strict=True):
        assert relative_rms_error(got, getattr(expected, name)) < 1e-5, name


def test_a_head_in_float16_is_packed_for_its_own_build(tmp_path: Path) -> None:
    pytest.importorskip("triton")
    torch.manual_seed(5)
    model = SSHR(ModelConfig(4, width=2)).eval()
    torch.nn.init.constant_(model.hfrm_28_1.gamma_context, 0.9)
    torch.nn.init.normal_(model.hfrm_28_1.context_conv.weight, std=0.05)
    expected, inputs = _exact_head(model.hfrm_28_1, model.ic1)
    half = model.half()
    assert plugin_rows(half) == 2
    fused = next(fused_heads(half, plugin_rows(half)))
    path = tmp_path / "head.onnx"
    batch = {0: torch.export.Dim("batch", min=1, max=64)}
    export_module(
        fused,
        inputs,
        path,
        input_names=("feature", "gate"),
        output_names=("cam",),
        dynamic_shapes={"feature": batch, "gate": batch},
        translations=fused_translations(),
    )
    onnx.checker.check_model(path, full_check=True)
    proto = onnx.load(path)
    shapes = {name: (item.dtype.name, item.shape) for name, item in initialisers(proto).items()}
    assert shapes == {
        "head": ("float16", (16, 4)),
        "context": ("float16", (16, 16, 128)),
        "bias": ("float32", (4,)),
    }
    assert value_types(proto)[fused_nodes(proto)[0].input[1]][0] == FLOAT
    feature, gate = (tensor.numpy() for tensor in inputs)
    found = evaluator(path).run(None, {"feature": feature, "gate": gate})
    assert isinstance(found, list)
    error = tolerances.relative_rms_error(torch.from_numpy(found[0]), expected)
    assert error < tolerances.RELATIVE_RMS[torch.float16]


def _exact_head(hfrm: HFRM, head: torch.nn.Conv2d) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """CAM float64 by the specification, and the feature and the gate, float16, that give it."""
    feature, gate = torch.randn(2, 16, 28, 28).half(), 1 + torch.rand(2, 16).half()
    assert head.bias is not None
    weight, bias = head.weight.detach()[:, :, 0, 0].double(), head.bias.detach().double()
    kernel = hfrm.context_conv.weight.detach()[:, 0].double()
    cam = naive_hfrm_cam(
        feature.double(), gate.double(), weight, bias, kernel, hfrm.gamma_context.item()
    )
    return cam, (feature, gate)


def test_types_without_a_plugin_are_named(tmp_path: Path) -> None:
    model = SSHR(ModelConfig(3, width=2)).bfloat16()
    with pytest.raises(KernelArgumentError, match=r"the weights are torch\.bfloat16; the TensorRT"):
        write_fused_onnx(model, tmp_path / "model.onnx")


def test_the_graphs_of_the_product_have_no_such_form(model: SSHR, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ONNX has no operator for form fused; write_fused_onnx"):
        write_onnx(model, tmp_path / "model.onnx", form=HfrmForm.FUSED)


def test_without_triton_the_extra_is_named(
    model: SSHR, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("op", "triton"):
        monkeypatch.delitem(
            sys.modules, f"sshr_deploy.runtime.kernels.hfrm_cam.{name}", raising=False
        )
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(MissingExtraError, match=r"triton .*pip install 'sshr-deploy\[kernels\]'"):
        write_fused_onnx(model, tmp_path / "model.onnx")
