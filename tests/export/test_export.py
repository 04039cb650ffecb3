from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from sshr_deploy.atomic import partial_name
from sshr_deploy.bundle import load_bundle
from sshr_deploy.errors import CheckpointError, ExportError, InputError, UsageError
from sshr_deploy.export import artifacts
from sshr_deploy.export.bundle import export_bundle
from sshr_deploy.export.graph.deploy import HfrmForm
from sshr_deploy.export.graph.onnx_from_network import flop_per_input, write_onnx
from sshr_deploy.export.job import ExportOptions
from sshr_deploy.export.reference import (
    PatchSet,
    patches_from_folder,
    shipped_patches,
    torch_cams,
)
from sshr_deploy.known_tissue import KNOWN_TISSUE_KEY, Appearance, KnownTissue
from sshr_deploy.manifest import EngineOptions, Tolerance
from sshr_deploy.model import SSHR, ModelConfig
from sshr_deploy.model.checkpoint import load_checkpoint, save_checkpoint
from sshr_deploy.precision import Precision
from sshr_deploy.profiles import Profile, load_profile
from sshr_deploy.runtime.contract import CAM_NAMES
from sshr_deploy.runtime.engines.choosing import open_session
from sshr_deploy.runtime.engines.qualification import relative_rms_error
from sshr_deploy.runtime.sessions.onnxruntime.session import OnnxRuntimeSession


def test_the_graph_is_what_the_bundle_promises(small_bundle_dir: Path) -> None:
    proto = onnx.load(small_bundle_dir / "model.onnx", load_external_data=False)
    onnx.checker.check_model(small_bundle_dir / "model.onnx", full_check=True)
    assert [o.version for o in proto.opset_import if not o.domain] >= [20]
    (patches,) = proto.graph.input
    tensor = patches.type.tensor_type
    assert (patches.name, tensor.elem_type) == ("patches", onnx.TensorProto.UINT8)
    assert [d.dim_value for d in tensor.shape.dim] == [0, 224, 224, 3]
    assert tensor.shape.dim[0].dim_param
    shapes = {
        o.name: [d.dim_value for d in o.type.tensor_type.shape.dim][1:] for o in proto.graph.output
    }
    assert shapes == {**{name: [3, 28, 28] for name in CAM_NAMES}, "prob": [3]}
    names = {t.name for t in proto.graph.initializer}
    assert not [n for n in names if "hfrm_56" in n or "ic_56" in n]


def test_the_graph_tells_nothing_of_the_machine_that_made_it(small_bundle_dir: Path) -> None:
    content = (small_bundle_dir / "model.onnx").read_bytes()
    assert b".py" not in content
    assert str(Path.home()).encode() not in content


def test_manifest_tells_what_the_bundle_is(small_bundle_dir: Path, small_checkpoint: Path) -> None:
    manifest = load_bundle(small_bundle_dir).manifest
    assert manifest.profile == load_profile("wsss4luad")
    assert (manifest.model.width, manifest.model.num_classes) == (2, 3)
    assert manifest.model.checkpoint_name == small_checkpoint.name
    assert manifest.model.metadata == {"trained_on": "nothing, random weights"}
    qualification = manifest.artifacts[0].qualification
    assert qualification is not None
    assert qualification.patches == 6
    assert 0 < max(qualification.cam_relative_error.values()) < 1e-4
    assert qualification.gates_equal
    assert qualification.mask_agreement >= qualification.mask_agreement_worst >= 0.9995
    assert {"torch", "onnx", "onnxruntime", "sshr-deploy"} <= set(manifest.tool_versions)


@pytest.mark.parametrize("form", [HfrmForm.PLAIN, HfrmForm.DEPTHWISE])  # separable: test_gpu_graph
def test_hfrm_forms_equal_pytorch_at_any_batch(
    small_checkpoint: Path, small_bundle_dir: Path, tmp_path: Path, form: HfrmForm
) -> None:
    model = load_checkpoint(small_checkpoint)
    path = small_bundle_dir / "model.onnx"
    if form is HfrmForm.PLAIN:
        path = tmp_path / "model.onnx"
        write_onnx(model, path, form=form)
    rng = np.random.default_rng(3)
    with OnnxRuntimeSession(path, 3) as session:
        for batch in (1, 3):
            patches = rng.integers(0, 256, (batch, 224, 224, 3), np.uint8)
            ref, got = torch_cams(model, patches), session.infer(patches)
            for name in (*CAM_NAMES, "prob"):
                assert relative_rms_error(getattr(got, name), getattr(ref, name)) < 1e-5


@pytest.mark.usefixtures("exported_before")
def test_a_graph_that_misses_the_tolerance_leaves_nothing(
    small_checkpoint: Path, profile: Profile, tmp_path: Path
) -> None:
    out = tmp_path / "bundle"
    exact = Tolerance(mask_agreement=0.9995, cam_relative_error=0.0)
    options = ExportOptions(tolerances={Precision.FP32: exact})
    with pytest.raises(ExportError, match=r"cam_28_1 is off by .*nothing was written"):
        export_bundle(small_checkpoint, profile, out, shipped_patches(), options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("exported_before")
def test_a_wrong_graph_is_caught(small_checkpoint: Path, profile: Profile, tmp_path: Path) -> None:
    model = load_checkpoint(small_checkpoint)
    with torch.no_grad():
        model.ic2.weight[0] *= 1.01
    save_checkpoint(model, tmp_path / "other.safetensors")
    with pytest.raises(ExportError, match="cam_28_2 is off"):
        export_bundle(tmp_path / "other.safetensors", profile, tmp_path / "b", shipped_patches())
    assert [p.name for p in tmp_path.iterdir()] == ["other.safetensors"]


def test_an_exporter_that_fails_leaves_the_old_bundle(
    small_checkpoint: Path,
    small_bundle_dir: Path,
    profile: Profile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = Path(shutil.copytree(small_bundle_dir, tmp_path / "bundle"))

    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("no such operator\nlong story")

    monkeypatch.setattr(artifacts, "write_onnx", fail)
    with pytest.raises(ExportError, match=r"no such operator$"):
        export_bundle(small_checkpoint, profile, out, shipped_patches(), overwrite=True)
    assert load_bundle(out).manifest_sha256 == load_bundle(small_bundle_dir).manifest_sha256
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def test_what_is_at_out_is_kept_unless_it_is_a_bundle_to_replace(
    small_checkpoint: Path, small_bundle_dir: Path, profile: Profile, tmp_path: Path
) -> None:
    precious = tmp_path / "slides"
    precious.mkdir()
    (precious / "x.svs").write_text("slide")
    with pytest.raises(UsageError, match="exists and is not a bundle"):
        export_bundle(small_checkpoint, profile, precious, shipped_patches(), overwrite=True)
    with pytest.raises(UsageError, match="add `overwrite`"):
        export_bundle(small_checkpoint, profile, small_bundle_dir, shipped_patches())
    (precious / "manifest.json").write_text('{"name": "an app"}')
    with pytest.raises(UsageError, match=r"holds x\.svs, which is no part of a bundle"):
        export_bundle(small_checkpoint, profile, precious, shipped_patches(), overwrite=True)
    assert (precious / "x.svs").read_text() == "slide"


def test_a_note_beside_a_bundle_is_never_lost(
    small_checkpoint: Path, small_bundle_dir: Path, profile: Profile, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(small_bundle_dir, tmp_path / "bundle"))
    (out / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"holds notes\.txt"):
        export_bundle(small_checkpoint, profile, out, shipped_patches(), overwrite=True)
    assert (out / "notes.txt").read_text() == "mine"


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
@pytest.mark.usefixtures("exported_before")
def test_a_link_at_out_is_written_through(
    small_checkpoint: Path, profile: Profile, tmp_path: Path
) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    export_bundle(small_checkpoint, profile, tmp_path / "link", shipped_patches())
    assert (tmp_path / "link").is_symlink()
    load_bundle(tmp_path / "target")


@pytest.mark.usefixtures("exported_before")
def test_what_a_killed_export_left_is_removed(
    small_checkpoint: Path, profile: Profile, tmp_path: Path
) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = tmp_path / partial_name("b").replace(f"-{os.getpid()}-", f"-{ended.pid}-")
    left.mkdir()
    (left / "half").write_text("x")
    export_bundle(small_checkpoint, profile, tmp_path / "b", shipped_patches())
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_a_form_that_cannot_be_qualified_is_refused(
    small_checkpoint: Path, profile: Profile, tmp_path: Path
) -> None:
    out = tmp_path / "bundle"
    options = ExportOptions(form=HfrmForm.FUSED)
    with pytest.raises(ExportError, match=r"form fused runs in TensorRT alone.*export form dep"):
        export_bundle(small_checkpoint, profile, out, shipped_patches(), options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("targets", "engine_options", "told"),
    [
        (("tensorrt-rtx",), EngineOptions(version_compatible=True), "are for `engine` tensorrt;"),
        ((), EngineOptions(hardware_compatible=True), "are for `engine` tensorrt;"),
        (("onnx",), EngineOptions(workspace_mib=512), "`workspace_mib` is for"),
        (("openvino",), EngineOptions(), "no engine named 'openvino'; choose onnx, tensorrt"),
    ],
)
def test_options_without_effect_are_refused(
    small_checkpoint: Path,
    profile: Profile,
    tmp_path: Path,
    targets: tuple[str, ...],
    engine_options: EngineOptions,
    told: str,
) -> None:
    options = ExportOptions(targets=targets, engine_options=engine_options)
    with pytest.raises(UsageError, match=told):
        export_bundle(small_checkpoint, profile, tmp_path / "b", shipped_patches(), options)


@pytest.mark.usefixtures("exported_before")
def test_typed_graphs_are_qualified_where_they_can_run(
    small_checkpoint: Path, profile: Profile, tmp_path: Path
) -> None:
    one = PatchSet(shipped_patches().images[:1], "one")
    options = ExportOptions((Precision.FP16, Precision.BF16, Precision.FP16), ("tensorrt",))
    bundle = export_bundle(small_checkpoint, profile, tmp_path / "b", one, options)
    found = {a.precision: a for a in bundle.manifest.artifacts}
    assert list(found) == ["fp32", "fp16", "bf16"]
    assert {"onnx-cpu", "onnx-cuda", "tensorrt", "onnx-tensorrt"} == set(
        found[Precision.FP16].engines
    )
    assert found[Precision.FP16].qualification is not None
    assert "onnx-cpu" not in found[Precision.BF16].engines
    assert "cannot run bf16 here" in str(found[Precision.BF16].not_qualified_because)
    assert ".partial" not in (tmp_path / "b" / "manifest.json").read_text(), (
        "a path of this machine"
    )
    assert found[Precision.BF16].opset == 22
    with open_session(bundle, "onnx-cpu") as session:
        assert session.info.precision == "fp32", "FP16 is slower on processors"


@pytest.mark.usefixtures("exported_before")
def test_overwrite_replaces_a_bundle(
    small_checkpoint: Path, small_bundle_dir: Path, profile: Profile, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(small_bundle_dir, tmp_path / "bundle"))
    (out / "model.onnx").write_bytes(b"broken")
    one = PatchSet(shipped_patches().images[:1], "one")
    export_bundle(small_checkpoint, profile, out, one, overwrite=True)
    qualification = load_bundle(out).manifest.artifacts[0].qualification
    assert qualification is not None and qualification.patches == 1
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def test_the_profile_must_fit_the_checkpoint(small_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="3 classes, profile luad has 4"):
        export_bundle(small_checkpoint, load_profile("luad"), tmp_path / "b", shipped_patches())
    with pytest.raises(CheckpointError, match="No such file"):
        export_bundle(tmp_path / "no.pth", load_profile("luad"), tmp_path / "b", shipped_patches())


def test_patches_from_a_folder(tmp_path: Path, demo_slide: Path, profile: Profile) -> None:
    with pytest.raises(UsageError, match="holds no PNG or JPEG"):
        patches_from_folder(demo_slide.parent, profile)
    (tmp_path / "bad.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"bad\.png cannot be read"):
        patches_from_folder(tmp_path, profile)


def test_flops_are_those_of_the_published_cost() -> None:
    with torch.device("meta"):
        model = SSHR(ModelConfig(num_classes=4))
    assert flop_per_input(model) == pytest.approx(200.5e9, rel=0.005)


@pytest.mark.usefixtures("exported_before")
def test_a_network_that_states_its_tissue_brings_its_first_layer(
    small_checkpoint: Path, profile: Profile, tmp_path: Path
) -> None:
    look = Appearance(
        density_mean=(0.3, 0.6, 0.3),
        density_spread=(0.2, 0.3, 0.2),
        density_correlation=(0.9, 0.9, 0.9),
        layer_mean=(0.1, -0.1),
        layer_spread=(1.0, 2.0),
    )
    known = KnownTissue(source="a test", patches=4, class_shares=None, appearance=look)
    model, path = load_checkpoint(small_checkpoint), tmp_path / "knows.safetensors"
    save_checkpoint(model, path, metadata={KNOWN_TISSUE_KEY: known.model_dump_json()})
    options = ExportOptions(form=HfrmForm.DEPTHWISE)
    bundle = export_bundle(path, profile, tmp_path / "bundle", shipped_patches(), options)
    assert bundle.manifest.model.known_tissue == known
    first_layer = bundle.first_layer()
    assert first_layer is not None
    np.testing.assert_array_equal(first_layer, model.state_dict()["conv1a.weight"].numpy())


def test_manifest_is_plain_json(small_bundle_dir: Path) -> None:
    content = json.loads((small_bundle_dir / "manifest.json").read_text())
    assert content["schema_version"] == 5
