"""What of this machine belongs to the key of an engine of ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import pytest

from sshr_deploy.bundle import load_bundle
from sshr_deploy.runtime.engines import machine_key as module
from sshr_deploy.runtime.engines.candidate import Candidate
from sshr_deploy.runtime.engines.key import EngineKey
from sshr_deploy.runtime.engines.kinds import KINDS, find_kind
from sshr_deploy.runtime.engines.machine_key import machine_key
from sshr_deploy.runtime.machine.gpus import Gpu
from tests.runtime.doctor.fake_packages import put_metadata


def key_of(bundle_dir: Path, engine: str) -> EngineKey:
    bundle = load_bundle(bundle_dir)
    kind = find_kind(engine)
    assert kind is not None
    artifact = bundle.manifest.artifacts[0]
    return machine_key(bundle, Candidate(kind, artifact, artifact.precision), 8)


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Gpu(1, "NVIDIA RTX 4000", 89, "580.95.05", 20475, "GPU-1f")
    monkeypatch.setattr(module, "first_gpu", lambda: found)


@pytest.mark.parametrize(
    ("engine", "batches", "device"),
    [
        ("onnx-tensorrt", (1, 8), "NVIDIA RTX 4000"),
        ("onnx-rtx", (1, 8), "NVIDIA RTX 4000"),
        ("onnx-cuda", (), "NVIDIA RTX 4000"),
        ("onnx-cpu", (), None),
    ],
)
def test_batches_belong_to_what_is_built(
    small_bundle_dir: Path, engine: str, batches: tuple[int, ...], device: str | None
) -> None:
    key = key_of(small_bundle_dir, engine)
    assert key.batches == batches
    assert (key.device == device) == (device is not None)
    assert (key.sm, key.driver) == ((89, "580.95.05") if device else (None, None))


def test_only_what_stays_as_it_is_may_be_hashed() -> None:
    kept = [kind for kind in KINDS if kind.provider is not None and kind.keeps_files]
    assert [kind.name for kind in kept] == ["onnx-tensorrt"]


@pytest.mark.parametrize(
    ("engine", "package"),
    [("onnx-tensorrt", "tensorrt-cu13"), ("onnx-cuda", "nvidia-cudnn-cu12")],
)
def test_an_update_below_the_provider_is_another_key(
    engine: str,
    package: str,
    small_bundle_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys = []
    for version in ("1.0", "1.1"):
        folder = tmp_path / version
        put_metadata(folder, package, version)
        with monkeypatch.context() as patch:
            patch.syspath_prepend(folder)
            keys.append(key_of(small_bundle_dir, engine))
    (difference,) = keys[0].differences(keys[1])
    assert f"{package} 1.0 -> " in difference and difference.endswith(f"{package} 1.1")


def test_kernels_belong_to_onnx_cuda_where_it_can_launch_them(
    small_bundle_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_kernels_sha256", lambda: "1" * 64)
    monkeypatch.setattr(module, "library_versions", lambda names: {"cuda-core": "1.2.2"})
    assert key_of(small_bundle_dir, "onnx-cuda").kernels_sha256 == "1" * 64
    assert key_of(small_bundle_dir, "onnx-cpu").kernels_sha256 is None
    monkeypatch.setattr(module, "library_versions", lambda names: {})
    assert key_of(small_bundle_dir, "onnx-cuda").kernels_sha256 is None, "the CPU makes the maps"
