"""From a bundle to a proven session: what is built, reused, refused, and what is said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pytest

from sshr_deploy.bundle import MANIFEST_NAME, Bundle, load_bundle, sealed_json
from sshr_deploy.errors import BundleError, ExportError, SessionError, UsageError
from sshr_deploy.precision import Precision
from sshr_deploy.runtime.contract import Session
from sshr_deploy.runtime.engines import opening
from sshr_deploy.runtime.engines import store as engine_store
from sshr_deploy.runtime.engines.building.from_onnx import BuildOptions, BuildReport
from sshr_deploy.runtime.engines.choosing import open_session
from sshr_deploy.runtime.engines.kinds import TENSORRT_RTX
from sshr_deploy.runtime.machine import gpus as gpu_module
from sshr_deploy.runtime.machine.gpus import Gpu
from sshr_deploy.runtime.sessions.onnxruntime.session import OnnxRuntimeSession
from sshr_deploy.runtime.sessions.tensorrt import library
from sshr_deploy.runtime.sessions.tensorrt import session as tensorrt_session
from sshr_deploy.runtime.settings import OpenOptions
from tests.bundles import copy_without_field_engines

GPU = Gpu(0, "NVIDIA RTX 4000 Ada Generation", 89, "580.95.05", 20475)


@pytest.fixture
def bundle_dir(small_bundle_dir: Path, tmp_path: Path) -> Path:
    return copy_without_field_engines(small_bundle_dir, tmp_path / "bundle")


class Told(list[str]):
    """What was said while a session was opened."""

    def __call__(self, text: str) -> None:
        self.append(text)


def _opened(folder: Path, engine: str = "onnx-cpu", **options: Any) -> tuple[Session, Told]:
    told = Told()
    builder = options.pop("builder", None)
    with pytest.MonkeyPatch.context() as patch:
        if builder is not None:
            patch.setattr(opening, "build_engine", builder)
        session = open_session(load_bundle(folder), engine, OpenOptions(**options), on_step=told)
    session.close()
    return session, told


def _records(folder: Path) -> list[Path]:
    return sorted((folder / "engines").glob("*/record.json"))


def _edit_manifest(folder: Path, **artifact: Any) -> None:
    file = folder / MANIFEST_NAME
    content = json.loads(file.read_text())
    content.pop("self_sha256")
    content["artifacts"][0] |= artifact
    file.write_text(sealed_json(content))


def test_a_fresh_export_is_proven_here_already(bundle_dir: Path) -> None:
    session, told = _opened(bundle_dir)
    assert told == []
    assert session.info.unqualified is None
    assert session.info.mask_agreement == 1.0


def test_a_bundle_from_elsewhere_is_compared_once_and_kept(bundle_dir: Path) -> None:
    shutil.rmtree(bundle_dir / "engines")
    session, told = _opened(bundle_dir)
    assert len(told) == 1 and "comparing it with the reference on 6 patches" in told[0]
    assert session.info.mask_agreement is not None and session.info.mask_agreement > 0.9995
    assert len(_records(bundle_dir)) == 1
    assert _opened(bundle_dir)[1] == []


def test_without_build_what_is_not_proven_is_refused(bundle_dir: Path) -> None:
    shutil.rmtree(bundle_dir / "engines")
    with pytest.raises(SessionError, match="not qualified on this machine yet; run without `no_b"):
        _opened(bundle_dir, build=False)
    session, told = _opened(bundle_dir, build=False, allow_unqualified=True)
    assert session.info.unqualified == "not qualified on this machine yet"
    assert session.info.mask_agreement is None
    assert told == [] and _records(bundle_dir) == []


def test_another_library_version_is_told_and_compared_again(
    bundle_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    old = onnxruntime.__version__
    monkeypatch.setattr(onnxruntime, "__version__", "1.99.0")
    with pytest.raises(SessionError, match=rf"library onnxruntime {old} -> onnxruntime 1\.99\.0"):
        _opened(bundle_dir, build=False)
    _, told = _opened(bundle_dir)
    assert len(told) == 1 and "1.99.0" in told[0]
    assert len(_records(bundle_dir)) == 2


def test_a_network_that_is_not_the_checkpoint_is_refused_with_its_figures(
    bundle_dir: Path,
) -> None:
    """The reference is that of another network, every hash is right."""
    from sshr_deploy.bundle import file_entry
    from sshr_deploy.runtime.contract import CamBatch
    from sshr_deploy.runtime.engines.reference import read_reference, write_reference

    file = bundle_dir / "reference.npz"
    reference = read_reference(file, 3)
    cams = reference.cams
    turned = CamBatch(
        cams.cam_28_1[:, ::-1].copy(), cams.cam_28_2, cams.cam_deep, cams.prob[:, ::-1].copy()
    )
    write_reference(file, replace(reference, cams=turned))
    content = json.loads((bundle_dir / MANIFEST_NAME).read_text())
    content.pop("self_sha256")
    content["files"]["reference.npz"] = file_entry(file).model_dump()
    (bundle_dir / MANIFEST_NAME).write_text(sealed_json(content))

    with pytest.raises(SessionError, match=r"does not equal the reference here: cam_28_1 is off"):
        _opened(bundle_dir)
    with pytest.raises(SessionError, match="masks agree on"):  # the second time from the record
        _opened(bundle_dir)
    assert len(_records(bundle_dir)) == 2
    session, _ = _opened(bundle_dir, allow_unqualified=True)
    assert session.info.unqualified is not None and "cam_28_1" in session.info.unqualified


def test_what_was_good_enough_for_another_tolerance_is_judged_again(bundle_dir: Path) -> None:
    _edit_manifest(bundle_dir, tolerance={"mask_agreement": 1.0, "cam_relative_error": 1e-12})
    with pytest.raises(SessionError, match="does not equal the reference here: cam_28_1 is off"):
        _opened(bundle_dir, build=False)


def test_another_gate_is_compared_again(bundle_dir: Path) -> None:
    content = json.loads((bundle_dir / MANIFEST_NAME).read_text())
    content.pop("self_sha256")
    content["profile"]["gate_threshold"] = 0.9
    (bundle_dir / MANIFEST_NAME).write_text(sealed_json(content))
    with pytest.raises(SessionError, match=r"rule MaskRule\(.*0\.2\) -> MaskRule\(.*0\.9\)"):
        _opened(bundle_dir, build=False)


def test_what_is_proven_comes_before_what_is_only_allowed(bundle_dir: Path) -> None:
    content = json.loads((bundle_dir / MANIFEST_NAME).read_text())
    content.pop("self_sha256")
    wrong = {**content["artifacts"][0], "precision": "int8"}
    wrong["tolerance"] = {"mask_agreement": 1.0, "cam_relative_error": 1e-12}
    content["artifacts"].append(wrong)
    (bundle_dir / MANIFEST_NAME).write_text(sealed_json(content))
    session, _ = _opened(bundle_dir, allow_unqualified=True)
    assert (session.info.precision, session.info.unqualified) == ("fp32", None)
    assert "does not equal the reference" in session.info.rejected["onnx-cpu int8"]
    session, _ = _opened(bundle_dir, allow_unqualified=True, precision=Precision.INT8)
    assert session.info.unqualified is not None


def test_a_changed_record_is_made_again(bundle_dir: Path) -> None:
    (record,) = _records(bundle_dir)
    record.write_text(record.read_text().replace('"patches": 6', '"patches": 7'))
    with pytest.raises(SessionError, match="it was changed after it was written"):
        _opened(bundle_dir, build=False)
    _, told = _opened(bundle_dir)
    assert "it was changed after it was written" in told[0]
    assert _opened(bundle_dir)[1] == []


def test_a_folder_that_cannot_be_written_is_told_and_the_run_goes_on(bundle_dir: Path) -> None:
    shutil.rmtree(bundle_dir / "engines")
    (bundle_dir / "engines").write_text("in the way")
    session, told = _opened(bundle_dir)
    assert session.info.mask_agreement is not None
    assert any("cannot keep what was found out" in text for text in told)


def test_a_store_that_another_process_holds_is_waited_for(
    planned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_store, "_LOCK_TIMEOUT_S", 0.0)
    (planned / "engines").mkdir(exist_ok=True)
    held = filelock.FileLock(planned / "engines" / engine_store._LOCK_NAME)
    told = "another process has held .*lock for 0 s; wait for the other process, then run the same "
    with held, pytest.raises(SessionError, match=told):
        _opened(planned, "tensorrt-rtx", builder=Builder())


def test_a_broken_reference_is_told(bundle_dir: Path) -> None:
    from sshr_deploy.bundle import file_entry

    shutil.rmtree(bundle_dir / "engines")
    (bundle_dir / "reference.npz").write_bytes(b"no reference")
    content = json.loads((bundle_dir / MANIFEST_NAME).read_text())
    content.pop("self_sha256")
    content["files"]["reference.npz"] = file_entry(bundle_dir / "reference.npz").model_dump()
    (bundle_dir / MANIFEST_NAME).write_text(sealed_json(content))
    with pytest.raises(BundleError, match=r"reference\.npz is no reference set"):
        _opened(bundle_dir)


def test_a_precision_that_the_bundle_lacks_is_told(bundle_dir: Path) -> None:
    with pytest.raises(UsageError, match="has no int8 for onnx-cpu; it has fp32 for onnx-cuda, on"):
        _opened(bundle_dir, precision=Precision.INT8)


@pytest.fixture
def planned(bundle_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A bundle for TensorRT-RTX on a machine with a GPU; sessions are ONNX Runtime's on the CPU."""
    _edit_manifest(bundle_dir, engines=["tensorrt-rtx", "onnx-cpu"])

    def session(plan: Path, classes: int, **facts: Any) -> Session:
        if plan.read_bytes() == b"broken":
            raise SessionError("the engine cannot be loaded: broken")
        assert facts["engine"] == "tensorrt-rtx" and facts["batches"] == (1, 32)
        standing_in = OnnxRuntimeSession(bundle_dir / "model.onnx", classes)
        device = gpu_module.first_gpu().name
        standing_in.info = replace(standing_in.info, device=device)
        return standing_in

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(tensorrt_session, "TensorRtSession", session)
    monkeypatch.setattr(gpu_module, "find_gpus", lambda: (GPU,))
    monkeypatch.setattr(library, "import_tensorrt", lambda made_by: made_by)
    monkeypatch.setattr(library, "library_text", lambda made_by, trt: "tensorrt-rtx 1.7.1.116")
    yield bundle_dir


class Builder:
    """Writes what stands for an engine, and counts."""

    def __init__(self, plan: bytes = b"plan") -> None:
        self.plan = plan
        self.builds = 0

    def __call__(self, graph: Path, plan: Path, *, options: BuildOptions, **facts: Any) -> Any:
        assert graph.name == "model.onnx" and graph.is_file()
        assert (facts["library"], facts["precision"]) == (TENSORRT_RTX.library, Precision.FP32)
        assert options.batches == (1, 32) and options.timing_cache is not None
        self.builds += 1
        plan.write_bytes(self.plan)
        options.timing_cache.write_bytes(b"times")
        facts["on_progress"]("Building engine", 0.5)
        return BuildReport("tensorrt-rtx 1.7.1.116", 2.5, len(self.plan), {}, False, "new", ())


def test_an_engine_is_built_once_and_reused(planned: Path) -> None:
    builder = Builder()
    session, told = _opened(planned, "tensorrt-rtx", builder=builder)
    assert builder.builds == 1 and "building the engine" in told[0]
    (file,) = (planned / "engines").glob("tensorrt-rtx-*/record.json")
    record = json.loads(file.read_text())
    key = record["key"]
    assert (key["sm"], key["driver"], key["device"]) == (89, "580.95.05", GPU.name)
    assert record["build"]["seconds"] == 2.5
    assert session.info.mask_agreement == 1.0
    _, told = _opened(planned, "tensorrt-rtx", builder=builder)
    assert builder.builds == 1 and told == []
    assert _opened(planned, "tensorrt-rtx", build=False)[1] == []


@pytest.mark.parametrize(
    ("gpu", "told"),
    [
        (replace(GPU, driver="581.15"), r"driver 580\.95\.05 -> 581\.15"),
        (replace(GPU, name="NVIDIA RTX A4000", sm=86), r"device NVIDIA RTX 4000 .*, sm 89 -> 86"),
    ],
)
def test_another_machine_is_told_and_gets_its_own(
    planned: Path, gpu: Gpu, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder = Builder()
    _opened(planned, "tensorrt-rtx", builder=builder)
    monkeypatch.setattr(gpu_module, "find_gpus", lambda: (gpu,))
    with pytest.raises(SessionError, match=f"{told}; run without `no_build`$"):
        _opened(planned, "tensorrt-rtx", build=False, allow_unqualified=True)
    _, said = _opened(planned, "tensorrt-rtx", builder=builder)
    assert builder.builds == 2 and "what is there was made for something else" in said[0]
    monkeypatch.setattr(gpu_module, "find_gpus", lambda: (GPU,))
    _opened(planned, "tensorrt-rtx", builder=builder)
    assert builder.builds == 2, "the first machine's engine is still there"


def test_another_release_of_the_library_builds_again(
    planned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder = Builder()
    _opened(planned, "tensorrt-rtx", builder=builder)
    monkeypatch.setattr(library, "library_text", lambda made_by, trt: "tensorrt-rtx 1.8.0.2")
    _, said = _opened(planned, "tensorrt-rtx", builder=builder)
    assert "library tensorrt-rtx 1.7.1.116 -> tensorrt-rtx 1.8.0.2" in said[0]
    assert builder.builds == 2


@pytest.mark.parametrize("damage", ["changed", "truncated"])
def test_a_damaged_engine_is_never_loaded(planned: Path, damage: str) -> None:
    builder = Builder()
    _opened(planned, "tensorrt-rtx", builder=builder)
    (plan,) = (planned / "engines").glob("*/engine.plan")
    plan.write_bytes(b"plbn" if damage == "changed" else b"pla")
    with pytest.raises(SessionError, match=r"engine\.plan (was changed|has 3 bytes)"):
        _opened(planned, "tensorrt-rtx", build=False)
    _opened(planned, "tensorrt-rtx", builder=builder)
    assert builder.builds == 2


def test_an_engine_that_cannot_be_built_or_loaded_leaves_nothing(planned: Path) -> None:
    def fail(*args: Any, **facts: Any) -> Any:
        raise ExportError("these layers are FP32: conv1a")

    for builder, told in ((fail, "these layers are FP32"), (Builder(b"broken"), "cannot be loa")):
        with pytest.raises((ExportError, SessionError), match=told):
            _opened(planned, "tensorrt-rtx", builder=builder)
    assert list((planned / "engines").glob("tensorrt*")) == []
    with pytest.raises(SessionError, match="not qualified on this machine yet; run without `no_b"):
        _opened(planned, "tensorrt-rtx", build=False)


def test_an_engine_on_another_gpu_than_its_key_is_refused(
    planned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tensorrt_session.TensorRtSession

    def elsewhere(*arguments: Any, **facts: Any) -> Session:
        session = real(*arguments, **facts)
        session.info = replace(session.info, device="NVIDIA T400")
        return session

    monkeypatch.setattr(tensorrt_session, "TensorRtSession", elsewhere)
    with pytest.raises(SessionError, match="runs on NVIDIA T400, not on NVIDIA RTX 4000"):
        _opened(planned, "tensorrt-rtx", builder=Builder())


def test_auto_says_why_the_better_one_was_not_taken(planned: Path) -> None:
    session, _ = _opened(planned, "auto", builder=Builder(b"broken"))
    assert session.info.engine == "onnx-cpu"
    assert session.info.rejected["tensorrt-rtx"] == "the engine cannot be loaded: broken"
    assert session.info.rejected["tensorrt"] == (
        "the bundle has no artefact for it; export it with --engine tensorrt"
    )
    of_others = {name for name in session.info.rejected if name.startswith("openvino")}
    assert set(session.info.rejected) - of_others == {
        *("tensorrt", "tensorrt-rtx", "onnx-tensorrt", "onnx-rtx", "onnx-cuda")
    }


def test_a_proven_session_gives_the_references_masks(bundle_dir: Path) -> None:
    bundle: Bundle = load_bundle(bundle_dir)
    from sshr_deploy.runtime.engines.reference import read_reference

    reference = read_reference(bundle_dir / "reference.npz", 3)
    with open_session(bundle, "onnx-cpu") as session:
        got = session.infer(reference.patches)
    np.testing.assert_allclose(got.prob, reference.cams.prob, atol=1e-5)
