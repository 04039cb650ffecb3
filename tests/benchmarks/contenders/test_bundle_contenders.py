"""The engines of a bundle, as contenders."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sshr_deploy.benchmarks.contenders import bundle as module
from sshr_deploy.benchmarks.contenders.bundle import bundle_contenders, left_out
from sshr_deploy.bundle import Bundle, load_bundle
from sshr_deploy.errors import SessionError, UsageError
from sshr_deploy.precision import Precision
from sshr_deploy.runtime.engines import kind
from sshr_deploy.runtime.engines.kinds import find_kind
from sshr_deploy.runtime.machine import threads
from sshr_deploy.runtime.machine.gpus import Gpu
from sshr_deploy.runtime.machine.threads import threads_in_use


@pytest.fixture(scope="module")
def bundle(small_bundle_dir: Path) -> Bundle:
    return load_bundle(small_bundle_dir)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_gpus", tuple)
    monkeypatch.setattr(module, "why_no_gpu", lambda: "no NVIDIA GPU: nvidia-smi is not there")


@pytest.mark.usefixtures("no_gpu")
def test_all_that_runs_without_a_gpu_is_there_and_the_others_are_told_once(bundle: Bundle) -> None:
    names = [contender.name for contender in bundle_contenders(bundle)]
    openvino, ort = find_kind("openvino"), find_kind("onnx-cpu")
    assert openvino is not None and ort is not None
    wanted = ["openvino bf16", "openvino fp32"] if openvino.is_considered else []
    assert names == [*wanted, "onnx-cpu fp32"], "what the bundle has for them, the faster first"
    told = left_out(bundle)
    assert told is not None and "onnx-cuda" in told and "nvidia-smi is not there" in told
    assert "onnx-cpu" not in told
    assert left_out(bundle, ["onnx-cpu"]) is None, "the user chose"


def test_a_package_that_is_not_installed_is_told(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kind, "find_spec", lambda _: None)
    assert [contender.name for contender in bundle_contenders(bundle)][-1] == "onnx-cpu fp32"
    assert "openvino: openvino is not installed: pip install" in str(left_out(bundle))


def test_with_a_gpu_its_engines_come_first(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    card = Gpu(0, "a card", 89, "580.95.05", 16384)
    monkeypatch.setattr(module, "find_gpus", lambda: (card,))
    first, *others = bundle_contenders(bundle)
    assert first.name.startswith("onnx-cuda ")
    assert [way.on_gpu for way in (first, others[-1])] == [True, False]
    assert "onnx-cuda" not in str(left_out(bundle))


def test_they_can_be_chosen(bundle: Bundle) -> None:
    (only,) = bundle_contenders(bundle, engines=["onnx-cpu"], precisions=[Precision.FP32])
    assert (only.name, only.precision, only.is_peer) == ("onnx-cpu fp32", Precision.FP32, False)
    (artifact,) = bundle.artifacts("onnx-cpu")
    assert only.tolerance == artifact.tolerance
    with pytest.raises(UsageError, match="no engine named 'onnx'; choose among tensorrt,"):
        bundle_contenders(bundle, engines=["onnx"])
    with pytest.raises(UsageError, match=r"has nothing for onnx-cpu, int8 here; it has .*fp32"):
        bundle_contenders(bundle, engines=["onnx-cpu"], precisions=[Precision.INT8])


@pytest.mark.usefixtures("no_gpu")
def test_one_that_cannot_be_opened_says_why(bundle: Bundle) -> None:
    (gpu, *_) = bundle_contenders(bundle, engines=["onnx-cuda"])
    with pytest.raises(SessionError, match="no NVIDIA GPU"):
        gpu.open(1)


def test_it_can_be_opened_for_one_call_at_a_time(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "_in_use", None)
    (contender,) = bundle_contenders(bundle, engines=["onnx-cpu"], threads=2)
    assert contender.open_one_stream is not None
    with contender.open(1) as shared, contender.open_one_stream(1) as alone:
        assert (shared.info.streams, alone.info.streams) == (2, 1)


def test_it_is_opened_by_the_product_with_its_proof_and_threads(
    small_bundle_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(small_bundle_dir, tmp_path / "copy"))
    shutil.rmtree(folder / "engines", ignore_errors=True)
    monkeypatch.setattr(threads, "_in_use", None)
    steps: list[str] = []
    (contender,) = bundle_contenders(
        load_bundle(folder), engines=["onnx-cpu"], threads=1, on_step=steps.append
    )
    assert not steps, "nothing happens before it is opened"
    with contender.open(2) as session:
        assert session.info.mask_agreement is not None and session.info.mask_agreement > 0.99
        in_use = threads_in_use()
        assert in_use is not None and (in_use.count, session.info.threads) == (1, 1)
    assert "not qualified on this machine yet" in steps[0]
    assert (folder / "engines").is_dir()
