"""`make gpu-check`: what it imports, what it records, and what it says where there is no GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sshr_deploy.benchmarks import gpu_check
from sshr_deploy.errors import SshrDeployError

pytest.importorskip("triton")

# What a machine with PyTorch and Triton alone lacks.
WITHOUT_THE_REST = """
import sys
for name in ("pydantic", "openslide", "rasterio", "pydicom", "onnx", "onnxruntime", "safetensors"):
    sys.modules[name] = None
"""


def run_python(code: str, root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT_THE_REST + code, *arguments]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


def test_parts_import_where_only_pytorch_and_triton_are(repo_root: Path) -> None:
    code = "import torch; from sshr_deploy.benchmarks import gpu_check\n"
    code += "print(*gpu_check._parts(torch.device('cpu')))"
    done = run_python(code, repo_root)
    assert done.returncode == 0, done.stderr
    parts = ["tests", "kernels", "masks", "network", "training", "configs", "recipes"]
    assert done.stdout.split() == parts


def test_its_tests_are_collected_where_only_pytorch_and_triton_are(repo_root: Path) -> None:
    code = "import pytest; sys.exit(pytest.main(['--collect-only', '-q', *sys.argv[1:]]))"
    done = run_python(code, repo_root, *gpu_check._TESTS)
    assert done.returncode == 0, done.stdout[-3000:]
    for name in ("test_hfrm_cam.py", "test_hfrm_pool.py", "test_cam_to_mask.py", "test_cubins.py"):
        assert name in done.stdout


def test_a_machine_without_a_gpu_is_told_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert gpu_check.main([]) == 2
    assert "TRITON_INTERPRET is set" in capsys.readouterr().err
    monkeypatch.delenv("TRITON_INTERPRET")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.version.cuda", None)
    assert gpu_check.main([]) == 2
    assert "is built without CUDA; name a Python that has it" in capsys.readouterr().err
    monkeypatch.setattr("torch.version.cuda", "13.0")
    assert gpu_check.main([]) == 2
    assert capsys.readouterr().err.startswith("gpu-check: PyTorch finds no NVIDIA GPU here;")


def test_a_python_without_pytorch_is_told_so(repo_root: Path) -> None:
    code = "import os, sys; sys.modules['torch'] = None; os.environ.pop('TRITON_INTERPRET', 0)\n"
    code += "import importlib.util as u; found = u.find_spec\n"
    code += "u.find_spec = lambda name: None if name == 'torch' else found(name)\n"
    code += "from sshr_deploy.benchmarks import gpu_check; sys.exit(gpu_check.main([]))"
    done = run_python(code, repo_root)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "has no PyTorch; name a Python that has it: make gpu-check PYTHON=" in done.stderr


@pytest.fixture
def pretended_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.version.cuda", "13.0")
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "NVIDIA Test 1")
    monkeypatch.setattr(gpu_check, "_cuda_environment", lambda: {"sm": 90})
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


ROW: dict[str, Any] = {"dtype": "fp16", "batch": 32, "shape": [512, 28, 28]}
KERNELS = {
    "rows": [
        ROW | {"form": "plain", "median_ms": 6.0, "share_of_floor": 0.01},
        ROW | {"form": "compiled", "median_ms": 3.0, "share_of_floor": 0.02},
        ROW | {"form": "fused_nhwc", "median_ms": 0.5, "share_of_floor": 0.5},
        ROW | {"form": "separable", "failed": "out of memory"},
    ],
    "not_measured": ["fp16 128 x 512 x 28 x 28"],
}


@pytest.mark.usefixtures("pretended_gpu")
def test_one_failed_part_does_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise SshrDeployError("fused is off by 1e+00")

    def crash() -> None:
        raise RuntimeError("CUDA error\nmore lines")

    def need() -> None:
        raise ModuleNotFoundError("No module named 'pydantic'", name="pydantic")

    parts = {"tests": crash, "kernels": lambda: KERNELS, "network": fail, "recipes": need}
    monkeypatch.setattr(gpu_check, "_parts", lambda device: parts)
    monkeypatch.setenv("OUT", str(tmp_path))
    assert gpu_check.main([]) == 1
    shown = capsys.readouterr().out.splitlines()
    assert shown[1] == (
        "fp16  32 x 512x28x28  ms: plain 6.0000 compiled 3.0000 fused_nhwc 0.5000 | "
        "fused_nhwc 12.0x plain 6.0x compiled, 50% of the floor"
    )
    assert shown[2:6] == [
        "not measured, out of time: fp16 128 x 512 x 28 x 28",
        "left out recipes: pydantic is not installed",
        "FAILED tests: RuntimeError: CUDA error",
        "FAILED network: fused is off by 1e+00",
    ]
    assert "FAILED kernels, separable: out of memory" in shown
    report = json.loads((tmp_path / "gpu-check-nvidia-test-1.json").read_text())
    assert report["kernels"] == KERNELS
    assert report["failed"]["network"] == "fused is off by 1e+00"
    assert shown[-1] == str(tmp_path / "gpu-check-nvidia-test-1.json")


@pytest.mark.usefixtures("pretended_gpu")
def test_parts_that_do_not_fit_the_time_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(gpu_check, "_parts", lambda device: {"kernels": lambda: KERNELS})
    monkeypatch.setattr(gpu_check, "_TOTAL_S", 10.0)
    assert gpu_check.check(tmp_path)["left_out"] == {"kernels": "out of time"}


@pytest.mark.usefixtures("pretended_gpu")
def test_a_figure_that_is_nan_loses_nothing_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    parts = {"masks": lambda: [{"median_ms": float("nan")}], "kernels": lambda: KERNELS}
    monkeypatch.setattr(gpu_check, "_parts", lambda device: parts)
    report = gpu_check.check(tmp_path)
    assert report["failed"]["masks"].startswith("ValueError: Out of range float values")
    assert report["kernels"] == KERNELS


@pytest.mark.usefixtures("pretended_gpu")
def test_a_folder_that_cannot_be_written_is_told_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert gpu_check.main(["--out", str(tmp_path / "file")]) == 1
    assert capsys.readouterr().err.startswith("gpu-check: cannot write ")


def test_failing_tests_are_reported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "test_a.py").write_text("def test_a(): assert False\ndef test_b(): pass\n")
    monkeypatch.setattr(gpu_check, "_ROOT", tmp_path)
    monkeypatch.setattr(gpu_check, "_TESTS", ("test_a.py",))
    with pytest.raises(SshrDeployError, match="tests failed: 1 failed, 1 passed"):
        gpu_check.run_tests()
    (tmp_path / "test_a.py").write_text("def test_b(): pass\n")
    assert gpu_check.run_tests()["passed"] == 1
    assert "1 passed" in capsys.readouterr().err
