"""A bundle's class names are those of the training, unless the export may change them."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from sshr_deploy.cli.engine import open_model
from sshr_deploy.errors import UsageError
from sshr_deploy.export.bundle import export_bundle
from sshr_deploy.export.reference import (
    PatchSet,
    patches_from_folder,
    shipped_patches,
)
from sshr_deploy.model.checkpoint import load_checkpoint, save_checkpoint
from sshr_deploy.profiles import Profile, load_profile
from sshr_deploy.runtime.pipeline.documents import Context
from sshr_deploy.runtime.pipeline.spec import RunSpec
from sshr_deploy.runtime.settings import InferSettings, Mode, OpenOptions


@pytest.mark.usefixtures("exported_before")
def test_other_class_names_are_recorded_with_those_of_the_training(
    small_checkpoint: Path, profile: Profile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = load_profile("luad")
    trained = trained.model_copy(update={"name": "mine", "classes": trained.classes[:3]})
    checkpoint, one = tmp_path / "own.safetensors", PatchSet(shipped_patches().images[:1], "one")
    header = {"profile": trained.model_dump_json()}
    save_checkpoint(load_checkpoint(small_checkpoint), checkpoint, metadata=header)
    with pytest.raises(UsageError, match="but profile wsss4luad has tumour, stroma, normal; leave"):
        export_bundle(checkpoint, profile, tmp_path / "b", one)
    assert not (tmp_path / "b").exists()
    said: list[str] = []
    bundle = export_bundle(
        checkpoint, profile, tmp_path / "b", one, relabel=True, on_step=said.append
    )
    assert bundle.manifest.carried_profile == trained
    names = ["tumour epithelium", "necrosis", "lymphocyte"]
    assert bundle.manifest.relabelled_from == {"profile": "mine", "classes": names}
    assert any(text.startswith(f"renaming the classes, which were {names[0]}") for text in said)
    spec = RunSpec(bundle.path, InferSettings(), "onnx-cpu", OpenOptions())
    with open_model(spec, quiet=True) as model:
        context = Context(bundle, model.sessions, InferSettings(Mode.REFERENCE))
        provenance = context.provenance(context.engine("slide"))
    assert provenance.relabelled_from == bundle.manifest.relabelled_from
    assert f"the network was trained on {', '.join(names)}" in capsys.readouterr().err

    own_scale = trained.model_copy(update={"mpp_um": 0.5})
    said.clear()
    bundle = export_bundle(checkpoint, own_scale, tmp_path / "c", one, on_step=said.append)
    assert bundle.manifest.carried_profile == trained
    assert bundle.manifest.relabelled_from is None
    assert any("differs from the checkpoint's own in mpp_um;" in text for text in said)


def test_a_truth_of_other_classes_does_not_qualify(profile: Profile, tmp_path: Path) -> None:
    for part in ("val/img", "val/mask", "training"):
        (tmp_path / part).mkdir(parents=True)
    Image.new("RGB", (64, 64)).save(tmp_path / "val/img/a.png")
    Image.new("L", (64, 64)).save(tmp_path / "val/mask/a.png")
    (tmp_path / "training" / "x[1 0].png").touch()
    with pytest.raises(UsageError, match="has 2 labels, profile wsss4luad has 3 classes"):
        patches_from_folder(tmp_path / "val", profile)
    assert len(patches_from_folder(tmp_path / "val", profile, relabel=True).images) == 1
