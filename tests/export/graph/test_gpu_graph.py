"""The graphs for GPUs: HFRM in its separable form, beside the depthwise one for processors."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, shape_inference

from sshr_deploy.bundle import Bundle, file_entry
from sshr_deploy.export import artifacts
from sshr_deploy.export.bundle import export_bundle
from sshr_deploy.export.graph.conv_layers import conv_layers
from sshr_deploy.export.graph.deploy import HfrmForm
from sshr_deploy.export.graph.external_data import weight_files
from sshr_deploy.export.graph.onnx_from_network import write_onnx
from sshr_deploy.export.int8.search_state import search_keys
from sshr_deploy.export.job import ExportOptions
from sshr_deploy.export.reference import PatchSet, shipped_patches, torch_cams
from sshr_deploy.geometry import PATCH, Geometry
from sshr_deploy.manifest import Artifact
from sshr_deploy.model.checkpoint import load_checkpoint
from sshr_deploy.precision import Precision
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.engines.candidate import Candidate
from sshr_deploy.runtime.engines.kinds import ONNX_CPU
from sshr_deploy.runtime.engines.machine_key import machine_key
from sshr_deploy.runtime.sessions.onnxruntime.session import OnnxRuntimeSession
from tests.runtime.session_contract import check_close, noise


@pytest.fixture(scope="module")
def bundle(
    small_checkpoint: Path,
    small_bundle_dir: Path,
    profile: Profile,
    tmp_path_factory: pytest.TempPathFactory,
) -> Bundle:
    """As exported by default, with FP16; the depthwise graph is taken from the small bundle."""

    def write(model: object, path: Path, *, form: HfrmForm, geometry: Geometry) -> None:
        assert geometry == PATCH
        if form is HfrmForm.SEPARABLE:
            write_onnx(model, path, form=form)  # type: ignore[arg-type]
            return
        assert (path.name, form) == ("model.onnx", HfrmForm.DEPTHWISE)
        for name in ("model.onnx", "model.onnx.data"):
            shutil.copy(small_bundle_dir / name, path.with_name(name))

    patches = PatchSet(shipped_patches().images[:2], "two")
    options = ExportOptions((Precision.FP16,), ("tensorrt-rtx",), field_px=0)
    out = tmp_path_factory.mktemp("gpu") / "bundle"
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(artifacts, "write_onnx", write)
        return export_bundle(small_checkpoint, profile, out, patches, options)


def _graph(bundle: Bundle, name: str) -> onnx.GraphProto:
    return onnx.load(bundle.file(name), load_external_data=False).graph


def _groups(graph: onnx.GraphProto) -> Counter[int]:
    nodes = [node for node in graph.node if node.op_type == "Conv"]
    return Counter(next((a.i for a in node.attribute if a.name == "group"), 1) for node in nodes)


def test_processors_get_the_depthwise_form_and_gpus_the_separable_one(bundle: Bundle) -> None:
    found = [(a.precision, a.file, a.hfrm_form, a.engines) for a in bundle.manifest.artifacts]
    gpu = ("onnx-cuda", "tensorrt-rtx", "onnx-rtx")
    assert found == [
        ("fp32", "model.onnx", "depthwise", ("onnx-cpu",)),
        ("fp32", "model-gpu.onnx", "separable", gpu),
        ("fp16", "model-fp16.onnx", "separable", ("onnx-cuda", "onnx-cpu", *gpu[1:])),
    ]
    assert _groups(_graph(bundle, "model.onnx")) == {1: 46, 16: 1, 32: 1}
    for name in ("model-gpu.onnx", "model-fp16.onnx"):
        assert _groups(_graph(bundle, name)) == {1: 48}, "nothing is depthwise"
    for artifact in bundle.manifest.artifacts:
        assert artifact.qualification is not None
        assert artifact.qualification.mask_agreement >= 0.995


@pytest.mark.parametrize("batch", [1, 3])
def test_the_separable_graph_equals_pytorch(
    bundle: Bundle, small_checkpoint: Path, batch: int
) -> None:
    model = load_checkpoint(small_checkpoint)
    patches = noise(batch)
    with OnnxRuntimeSession(bundle.file("model-gpu.onnx"), 3) as session:
        check_close(session.infer(patches), torch_cams(model, patches), cam=1e-5, prob=1e-5)


def test_weights_that_are_equal_are_stored_once(bundle: Bundle) -> None:
    cpu, gpu, fp16 = bundle.manifest.artifacts
    assert (cpu.weights, gpu.weights, fp16.weights) == ((), ("model.onnx.data",), ())
    assert weight_files(bundle.file(gpu.file)) == [
        bundle.file("model-gpu.onnx.data"), bundle.file("model.onnx.data")
    ]  # fmt: skip
    own = [t for t in _graph(bundle, gpu.file).initializer if "gpu" in str(t.external_data)]
    assert {t.name.rpartition(".")[0] for t in own} == {"separable.0", "separable.1"}
    values = sum(4 * int(onnx.numpy_helper.to_array(t, str(bundle.path)).size) for t in own)
    assert values <= bundle.manifest.files["model-gpu.onnx.data"].bytes < values + 64 * len(own)


def test_shared_weights_are_a_part_of_every_identity(bundle: Bundle, tmp_path: Path) -> None:
    """Of the engine that is built from the graph, and of the INT8 search over it."""
    cpu, gpu, _ = bundle.manifest.artifacts
    files = bundle.manifest.files
    other = {**files, "model.onnx.data": files["model.onnx"]}
    changed = Bundle(bundle.path, bundle.manifest.model_copy(update={"files": other}), "")

    def on_cpu(artifact: Artifact) -> Candidate:
        return Candidate(ONNX_CPU, artifact, artifact.precision)

    # Engines of GPUs have the same identity of the model; this one needs no GPU to be asked for.
    keys = [machine_key(b, on_cpu(gpu), 8).model_sha256 for b in (bundle, changed)]
    assert keys[0] != keys[1]
    assert keys[0] != machine_key(bundle, on_cpu(cpu), 8).model_sha256

    for name in ("model-gpu.onnx", "model-gpu.onnx.data", "model.onnx.data"):
        shutil.copy(bundle.file(name), tmp_path)
    graph, patches = tmp_path / "model-gpu.onnx", shipped_patches().images[0][None]
    before = search_keys(graph, graph, patches, "judge")
    with (tmp_path / "model.onnx.data").open("r+b") as file:
        file.write(b"\x01")
    assert search_keys(graph, graph, patches, "judge").histograms != before.histograms


def test_an_fp16_graph_is_narrow_from_the_features_to_the_cams(bundle: Bundle) -> None:
    graph = shape_inference.infer_shapes(
        onnx.load(bundle.file("model-fp16.onnx")), strict_mode=True
    ).graph
    types = {t.name: t.data_type for t in graph.initializer}
    types |= {v.name: v.type.tensor_type.elem_type for v in graph.value_info}
    for op, count in (("Conv", 48), ("MatMul", 2), ("Reshape", 4)):
        nodes = [node for node in graph.node if node.op_type == op]
        assert len(nodes) == count
        for node in nodes:
            floats = {types[name] for name in (*node.input, *node.output)} - {TensorProto.INT64}
            assert floats == {TensorProto.FLOAT16}, node.name
    casts = [node for node in graph.node if node.op_type == "Cast"]
    assert len(casts) == 1 + 1 + 2 + 1 + 3  # uint8 to FP32; in; gates; mean; heads


def test_int8_leaves_both_forms_of_hfrm_wide(bundle: Bundle) -> None:
    separable = [layer.name for layer in conv_layers(_graph(bundle, "model-gpu.onnx"))]
    depthwise = [layer.name for layer in conv_layers(_graph(bundle, "model.onnx"))]
    assert len(separable) == 44
    assert set(depthwise) - set(separable) == {"ic1", "ic2"}, "the heads are products there"


@pytest.mark.usefixtures("exported_before")
@pytest.mark.parametrize("form", [HfrmForm.DEPTHWISE, HfrmForm.SEPARABLE])
def test_a_form_that_is_named_is_that_of_every_graph(
    small_checkpoint: Path, profile: Profile, tmp_path: Path, form: HfrmForm
) -> None:
    patches = PatchSet(shipped_patches().images[:1], "one")
    bundle = export_bundle(
        small_checkpoint, profile, tmp_path / "b", patches, ExportOptions(form=form)
    )
    (artifact,) = bundle.manifest.artifacts
    assert artifact.hfrm_form == form.value
    assert artifact.engines == ("onnx-cuda", "onnx-cpu")
    assert "model-gpu.onnx" not in bundle.manifest.files
    assert bundle.manifest.files["model.onnx"] == file_entry(bundle.file("model.onnx"))
