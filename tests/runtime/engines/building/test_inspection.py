"""Types of convolutions: in networks that the real parser read, and in what an inspector says."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sshr_deploy.errors import ExportError
from sshr_deploy.precision import Precision
from sshr_deploy.runtime.engines.building.inspection import (
    check_network,
    compare_layers,
    count_types,
    inspect_engine,
)
from sshr_deploy.runtime.sessions.tensorrt.library import error_logger
from tests.export.tiny_graphs import CONVOLUTIONS, write_tiny_graph
from tests.runtime.engines.building import fake_tensorrt_builder as fake

FP32, FP16, BF16, INT8 = Precision.FP32, Precision.FP16, Precision.BF16, Precision.INT8
STEM, BODY = CONVOLUTIONS


class Parsed:
    """A network and what must outlive it."""

    def __init__(self, trt: Any, path: Path) -> None:
        self.trt = trt
        self.logger = trt.Logger(trt.Logger.INTERNAL_ERROR)
        self.builder = trt.Builder(self.logger)
        flag = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        self.network = self.builder.create_network(flag)
        self.parser = trt.OnnxParser(self.network, self.logger)
        assert self.parser.parse_from_file(str(path))

    def check(self, precision: Precision, *wider: str) -> dict[str, Precision]:
        return check_network(self.trt, self.network, precision, frozenset(wider))


@pytest.fixture
def rtx() -> Any:
    return pytest.importorskip("tensorrt_rtx")


@pytest.mark.parametrize("precision", Precision)
def test_a_parsed_network_has_the_types_of_its_graph(
    rtx: Any, tmp_path: Path, precision: Precision
) -> None:
    parsed = Parsed(rtx, write_tiny_graph(tmp_path / "g.onnx", precision, precision))
    assert parsed.check(precision) == {STEM: precision, BODY: precision}
    for other in set(Precision) - {precision}:
        with pytest.raises(ExportError, match="2 of 2 convolutions") as caught:
            parsed.check(other)
        assert f"{STEM} ({precision}), {BODY} ({precision})" in str(caught.value)


def test_named_nodes_may_be_wider_but_not_narrower(rtx: Any, tmp_path: Path) -> None:
    parsed = Parsed(rtx, write_tiny_graph(tmp_path / "g.onnx", "fp16", "int8"))
    types = parsed.check(INT8, STEM)
    assert types == {STEM: FP16, BODY: INT8}
    assert count_types(types) == {"fp16": 1, "int8": 1}
    with pytest.raises(ExportError, match=rf"1 of 2 .* not int8: {STEM} \(fp16\);"):
        parsed.check(INT8, BODY)
    with pytest.raises(ExportError, match=rf"1 of 2 .* not fp16: {BODY} \(int8\);"):
        parsed.check(FP16, STEM, BODY)
    with pytest.raises(ExportError, match=rf"not bf16: {STEM} \(fp16\), {BODY} \(int8\);"):
        parsed.check(BF16, STEM, BODY)  # no wider, only another


@pytest.mark.parametrize("quantised", [(True, False), (False, True)])
def test_half_quantised_is_not_int8(rtx: Any, tmp_path: Path, quantised: tuple[bool, bool]) -> None:
    path = write_tiny_graph(tmp_path / "g.onnx", "int8", "int8", quantised=quantised)
    with pytest.raises(ExportError, match=rf"{STEM} \(fp32\), {BODY} \(fp32\)"):
        Parsed(rtx, path).check(INT8)


@pytest.mark.parametrize(("source", "found"), [("INT8", INT8), ("FP8", FP32)])
def test_int8_is_what_is_dequantised_from_int8(source: str, found: Precision) -> None:
    dtype = fake.DataType[source]
    data, weights = (fake.Tensor(name, fake.DataType.FLOAT) for name in ("data", "weights"))
    layers = [
        fake.Layer(
            f"dq_{tensor.name}", fake.LayerType.DEQUANTIZE, [fake.Tensor("q", dtype)], [tensor]
        )
        for tensor in (data, weights)
    ]
    output = fake.Tensor("out", fake.DataType.FLOAT)
    layers.append(fake.Layer("a", fake.LayerType.CONVOLUTION, [data, weights], [output]))
    network = SimpleNamespace(num_layers=3, get_layer=layers.__getitem__)
    assert check_network(fake, network, found) == {"a": found}


def test_a_network_without_convolutions_is_refused(rtx: Any) -> None:
    logger = rtx.Logger(rtx.Logger.ERROR)
    builder = rtx.Builder(logger)
    network = builder.create_network(1 << int(rtx.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    with pytest.raises(ExportError, match="no convolutions"):
        check_network(rtx, network, FP32)


def layer(
    name: str,
    inputs: tuple[str, ...] = (),
    *,
    weights: str | None = None,
    kind: str = "CaskConvolution",
    metadata: str = "",
    tactic: str = "sm86_xmma_fprop",
) -> dict[str, Any]:
    """One layer as the inspector describes it with detailed verbosity."""
    described: dict[str, Any] = {
        "Name": name,
        "LayerType": kind,
        "Inputs": [{"Name": "x", "Format/Datatype": text} for text in inputs],
        "TacticName": tactic,
        "Metadata": metadata,
    }
    if weights:
        described["Weights"] = {"Type": weights, "Count": 216}
    return described


@pytest.mark.parametrize(
    ("built", "precision"),
    [
        (layer("a", ("Row major linear FP32",)), FP32),
        (layer("a", ("Float",)), FP32),
        (layer("a", ("Channel major FP16 format where channel % 8 == 0",)), FP16),
        (layer("a", ("Half", "Float")), FP16),  # a wider addend
        (layer("a", ("BFloat16",)), BF16),
        (layer("a", ("Row major linear BF16 format",)), BF16),
        (layer("a", ("Thirty-two wide channel vectorized row major Int8 format",)), INT8),
        (layer("a", ("Int8", "Int64")), INT8),
        (layer("a", ("N/A due to dynamic shapes",), weights="Half"), FP16),
        (layer("a", ("Int8",), weights="Half"), FP16),  # dequantised in the same kernel
        (layer("a + relu_a [profile 1]", ("Half",)), FP16),
        (layer("__myl_Conv_0", ("Half",), metadata="[ONNX Layer: q]\x1e[ONNX Layer: a]"), FP16),
        (layer("a", ("Half",), kind="gemm"), FP16),
    ],
)
def test_the_type_of_a_built_layer_is_told(built: dict[str, Any], precision: Precision) -> None:
    assert compare_layers([built], {"a": precision}) == ""
    for other in set(Precision) - {precision}:
        with pytest.raises(ExportError, match=f"is {precision} .*, not {other}"):
            compare_layers([built], {"a": other})


def test_every_wrong_layer_is_listed_with_profile_and_tactic() -> None:
    layers = [
        layer("a + relu_a", ("Half",)),
        layer("b + relu_b", ("Half",)),
        layer("a + relu_a [profile 1]", ("Float",), tactic="sm80_f32"),
        layer("b + relu_b [profile 1]", ("Half",)),
        layer("c [profile 1]", weights="Float", tactic="", kind="CudnnConvolution"),
    ]
    with pytest.raises(ExportError) as caught:
        compare_layers(layers, dict.fromkeys("abc", FP16))
    assert str(caught.value) == (
        "the engine was not built in the precision of its graph: "
        "a in profile 1 is fp32 (sm80_f32), not fp16; "
        "c in profile 1 is fp32 (CudnnConvolution), not fp16; use another engine or precision"
    )


def test_what_surrounds_a_convolution_is_not_the_convolution() -> None:
    around = layer("copy", ("Float",), kind="kgen", metadata="[ONNX Layer: a]")
    reformat = layer("a", ("Float",), kind="Reformat")
    inside = layer("gemm", ("Half",), kind="gemm", metadata="[ONNX Layer: a]")
    assert compare_layers([around, reformat, layer("a", ("Half",))], {"a": FP16}) == ""
    assert compare_layers([around, inside], {"a": FP16}) == ""
    with pytest.raises(ExportError, match="a is fp32"):
        compare_layers([around], {"a": FP16})
    # Something of the right type does not excuse a convolution of the wrong one.
    for other in (inside, layer("a", ("Half",))):
        with pytest.raises(ExportError, match="a is fp32"):
            compare_layers([layer("a", ("Float",)), other], {"a": FP16})


@pytest.mark.parametrize(
    "layers",
    [
        [],
        ["a + relu_a"],  # without detailed verbosity
        [layer("other", ("Half",))],
        [layer("a", ("N/A due to dynamic shapes",))],
        [layer("a", ("Half",)), layer("a [profile 1]", ("N/A due to dynamic shapes",))],
    ],
)
def test_what_is_not_told_is_not_taken_for_right(layers: list[Any]) -> None:
    assert compare_layers(layers, {"a": FP16}) == "its layers do not tell the type of a"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "TypeError"),
        ("", "JSONDecodeError: Expecting value"),
        ('{"Layers": [', "JSONDecodeError"),
        ('{"layers": []}', "KeyError: 'Layers'"),
        ("[]", "TypeError: list indices"),
        ('{"Layers": 5}', "TypeError"),
        ('{"Layers": [{"Name": "a", "Inputs": null}]}', "TypeError"),
    ],
)
def test_an_inspector_that_speaks_otherwise_is_no_error(text: str | None, reason: str) -> None:
    inspector = SimpleNamespace(get_engine_information=lambda form: text)
    engine = SimpleNamespace(create_engine_inspector=lambda: inspector)
    trt = fake.fake_tensorrt(fake.World())
    runtime = SimpleNamespace(deserialize_cuda_engine=lambda plan: engine)
    trt.__dict__["Runtime"] = lambda logger: runtime
    said = inspect_engine(trt, error_logger(trt), b"plan", {"a": FP16})
    assert said.startswith(f"what the inspector says is not understood ({reason}")
    assert "\n" not in said


def test_an_engine_that_cannot_be_loaded_says_why() -> None:
    trt = fake.fake_tensorrt(fake.World())
    logger = error_logger(trt)

    class Runtime:
        def deserialize_cuda_engine(self, plan: bytes) -> None:
            for text in ("1", "2", "another GPU\nand more", "no driver"):
                logger.log(trt.ILogger.Severity.ERROR, text)

    trt.__dict__["Runtime"] = lambda logger: Runtime()
    said = inspect_engine(trt, logger, b"plan", {"a": FP16})
    assert said == "it cannot be loaded here: 2; another GPU; no driver"
