from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sshr_deploy.runtime.doctor import examine as examine_module
from sshr_deploy.runtime.doctor.examine import check_bundle, judge
from sshr_deploy.runtime.doctor.report import ArtifactFacts, BundleFacts
from sshr_deploy.runtime.kernels.manifest import load_manifest
from sshr_deploy.runtime.machine.gpus import Gpu
from tests.conftest import FIELD_PX
from tests.runtime.doctor.machines import RTX, laptop, workstation
from tests.runtime.kernels.kernel_folder import OP, VARIANT, make_kernels

IMPORT = """
import sys
for name in ("numpy", "cv2", "onnxruntime", "torch", "openslide", "PIL", "tifffile"):
    sys.modules[name] = None
import sshr_deploy.cli.doctor, sshr_deploy.runtime.doctor.examine, sshr_deploy.bundle
"""


def test_the_doctor_imports_nothing_that_may_be_broken() -> None:
    subprocess.run([sys.executable, "-c", IMPORT], check=True)


def test_the_document_is_json_with_these_keys() -> None:
    document = judge(workstation(), BundleFacts("somewhere", None, ())).document()
    assert json.loads(json.dumps(document))["engines"][0]["lacks"] == []
    assert list(document) == [
        "schema", "ready", "usable", "version", "machine", "gpus", "no_gpu", "libraries",
        "onnxruntime", "engines", "commands", "conflicts", "bundle", "slides",
    ]  # fmt: skip
    assert document["schema"] == 1
    assert set(document["machine"]) == {"platform", "python", "processor", "memory_mib"}
    assert set(document["gpus"][0]) == {
        "index", "name", "sm", "driver", "memory_mib", "uuid", "kernels"
    }  # fmt: skip
    assert set(document["engines"][0]) == {
        "name", "ready", "tried", "not_tried", "lacks", "notes"
    }  # fmt: skip
    assert set(judge(laptop()).document()["engines"][0]["lacks"][0]) == {"reason", "mend"}


@pytest.mark.parametrize(
    ("bundle", "usable", "ready"),
    [
        (None, ("onnx-cpu",), True),
        (BundleFacts("b", None, (ArtifactFacts("fp32", "f", ("onnx-cpu",), True),)),
         ("onnx-cpu",), True),
        (BundleFacts("b", None, (ArtifactFacts("fp16", "f", ("onnx-cuda",), True),)), (), False),
        (BundleFacts("b", "model.onnx was changed", ()), (), False),
    ],
)  # fmt: skip
def test_ready_means_that_infer_can_run(
    bundle: BundleFacts | None, usable: tuple[str, ...], ready: bool
) -> None:
    report = judge(laptop(), bundle)
    assert (report.usable, report.ready) == (usable, ready)


def test_a_bundle_is_verified(small_bundle_dir: Path, tmp_path: Path) -> None:
    whole = check_bundle(small_bundle_dir)
    assert whole.error is None
    assert "fp32" in whole.precisions("onnx-cpu")
    assert whole.precisions("onnx-cpu", of_fields=True) == ("fp32",)
    assert whole.field_px == FIELD_PX
    missing = check_bundle(tmp_path / "nothing")
    assert missing.error is not None and "nothing" in missing.error
    assert missing.precisions("onnx-cpu") == ()


def test_kernels_are_counted_for_each_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_kernels(tmp_path / "kernels")  # no cam_to_mask for SM 7.5
    monkeypatch.setattr(examine_module, "default_folder", lambda: folder)
    facts = replace(workstation(), gpus=(RTX, Gpu(1, "T4", 75, "580.1", 1)))
    ada, turing = ({item.op: item for item in gpu.kernels} for gpu in judge(facts).gpus)
    for kernels in (ada["cam_to_mask"], ada["hfrm_cam"], turing["hfrm_cam"]):
        assert (kernels.available, kernels.total, kernels.reason) == (1, 1, None)
    assert (turing["cam_to_mask"].available, turing["cam_to_mask"].total) == (0, 1)
    assert "no cam_to_mask n4 kernel for SM 7.5" in str(turing["cam_to_mask"].reason)
    (folder / load_manifest(folder).find(OP, VARIANT, 75).file).write_bytes(b"other")
    reasons = [str(item.reason) for item in judge(facts).gpus[1].kernels]
    assert "was changed" in reasons[1]
    (folder / "manifest.json").unlink()
    assert "has no manifest.json" in str(judge(facts).gpus[0].kernels[0].reason)
