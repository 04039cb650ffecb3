"""When tests on a GPU run and when they are skipped, on machines that this one is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import gpu_here
from tests.gpu_here import why_not
from tests.runtime.fake_nvidia_smi import put_nvidia_smi

onnxruntime = pytest.importorskip("onnxruntime")
ADA = ("NVIDIA RTX 4000 Ada", "8.9", "580.95.05")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that is the whole PATH; libraries for CUDA 13, TensorRT too."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(gpu_here, "_cuda_of", lambda package: 13)
    monkeypatch.setattr("importlib.util.find_spec", lambda module: object())
    return tmp_path


def put_card(machine: Path, name: str, capability: str, driver: str) -> None:
    put_nvidia_smi(machine, f"0, GPU-1f, {name}, {capability}, {driver}, 20475\n")


def test_a_card_beside_the_cpu_wheel(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_card(machine, *ADA)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert why_not("onnx-cuda") == "this onnxruntime has no CUDAExecutionProvider"
    assert why_not("tensorrt") == why_not("tensorrt-rtx") == ""


@pytest.mark.parametrize(
    ("driver", "reason"),
    [
        ("580.95.05", ""),
        ("550.54.15", "onnxruntime is for CUDA 13: driver 580 or later, not 550.54.15"),
    ],
)
def test_the_gpu_wheel(
    machine: Path, monkeypatch: pytest.MonkeyPatch, driver: str, reason: str
) -> None:
    from onnxruntime.capi import build_and_package_info

    put_card(machine, "NVIDIA L40S", "8.9", driver)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(build_and_package_info, "cuda_version", "13.0", raising=False)
    assert why_not("onnx-cuda") == reason


@pytest.mark.parametrize(("name", "capability"), [("Tesla T4", "7.5"), ("NVIDIA H100", "9.0")])
def test_tensorrt_rtx_does_not_take_every_card(machine: Path, name: str, capability: str) -> None:
    put_card(machine, name, capability, "580.95.05")
    assert why_not("tensorrt-rtx").startswith(
        f"{name} has SM {capability}, TensorRT-RTX builds for"
    )
    assert why_not("tensorrt") == ""


def test_an_old_driver(machine: Path) -> None:
    put_card(machine, "NVIDIA L40S", "8.9", "535.1")
    wanted = "driver 580 or later, not 535.1"
    assert why_not("tensorrt-rtx") == f"tensorrt-rtx is for CUDA 13: {wanted}"


def test_a_machine_without_a_card_and_one_that_hides_it(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "nvidia-smi is not on the PATH" in why_not("tensorrt")
    put_card(machine, *ADA)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "hides every GPU" in why_not("tensorrt")


def test_the_cuda_of_an_installed_package() -> None:
    pytest.importorskip("tensorrt_rtx")
    assert gpu_here._cuda_of("tensorrt-rtx") in (12, 13)
    assert gpu_here._cuda_of("numpy") == 0
