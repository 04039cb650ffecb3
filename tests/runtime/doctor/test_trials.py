"""Trials in real processes, of real libraries and of ones that break in every way."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sshr_deploy.runtime.doctor.trials import ask, try_everything
from sshr_deploy.runtime.machine.processor import library_versions
from tests.runtime.doctor.fake_packages import put_metadata, put_module, put_onnxruntime_gpu

LOG = (
    "2026-11-01 [E:onnxruntime:Default, provider_bridge_ort.cc:2167 TryGetProviderInfo_CUDA] "
    "Failed to load library libonnxruntime_providers_cuda.so with error: libcudnn.so.9: cannot "
    "open shared object file\n"
)


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that the trials' processes search first."""
    folder = tmp_path / "packages"
    folder.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return folder


def test_the_real_onnxruntime_computes() -> None:
    pytest.importorskip("onnxruntime")
    answer = ask("onnxruntime_module")
    assert answer.error is None
    assert answer.facts["version"] == library_versions(["onnxruntime"])["onnxruntime"]
    assert "CPUExecutionProvider" in answer.facts["providers"]
    assert ask("provider", "onnx-cpu").error is None


def test_a_provider_that_is_not_there_is_an_error() -> None:
    pytest.importorskip("onnxruntime")
    error = ask("provider", "onnx-cuda").error
    assert error is not None and "has no CUDAExecutionProvider" in error


def test_a_provider_that_falls_back_says_why(packages: Path) -> None:
    put_onnxruntime_gpu(packages, log=LOG)
    error = str(ask("provider", "onnx-cuda").error)
    assert "fell back to CPUExecutionProvider" in error
    assert error.endswith(": libcudnn.so.9: cannot open shared object file")


def test_tensorrt_rtx_makes_a_builder_without_a_gpu() -> None:
    pytest.importorskip("tensorrt_rtx")
    answer = ask("builder", "tensorrt-rtx")
    assert (answer.error, list(answer.facts)) == (None, ["library"])


def test_modules_that_break_are_named(packages: Path) -> None:
    put_module(packages, "cv2", "raise ImportError('libGL.so.1: cannot open\\nmore lines')")
    answer = ask("modules", "json", "cv2", "no_such_module")
    assert answer.error is None
    assert answer.facts["errors"] == {
        "cv2": "libGL.so.1: cannot open",
        "no_such_module": "No module named 'no_such_module'",
    }


@pytest.mark.skipif(os.name == "nt", reason="Windows has no signals")
def test_a_crash_stays_in_its_process(packages: Path) -> None:
    code = "import os, signal\nprint('half a line', end='')\nos.kill(os.getpid(), signal.SIGSEGV)"
    put_module(packages, "onnx", code)
    assert ask("modules", "onnx").error == "its process ended with SIGSEGV: it said nothing"


def test_a_module_that_leaves(packages: Path) -> None:
    put_module(packages, "onnx", "import os, sys\nsys.stderr.write('bad\\n\\n'); os._exit(3)")
    assert ask("modules", "onnx").error == "its process ended with exit code 3: bad"


def test_a_module_that_hangs(packages: Path) -> None:
    put_module(packages, "onnx", "import time\nprint('x' * 100000)\ntime.sleep(600)")
    assert ask("modules", "onnx", timeout_s=3.0).error == "no answer in 3 s"


def test_errors_are_one_printable_line(packages: Path) -> None:
    put_module(packages, "torch", "raise RuntimeError('\\x1b[31mred' + 'x' * 9999)")
    error = ask("torch").error
    assert error is not None and error.startswith(r"\x1b[31mred") and len(error) <= 400


def test_the_doctor_sends_no_telemetry(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    put_module(
        packages, "onnx", "import os\nraise ImportError(os.environ['ORT_DISABLE_TELEMETRY'])"
    )
    assert ask("modules", "onnx").facts["errors"] == {"onnx": "1"}


@pytest.mark.parametrize(("set_to", "wanted"), [(None, "PCI_BUS_ID"), ("FASTEST_FIRST",) * 2])
def test_cuda_counts_as_for_infer(
    packages: Path, monkeypatch: pytest.MonkeyPatch, set_to: str | None, wanted: str
) -> None:
    monkeypatch.setenv("CUDA_DEVICE_ORDER", set_to or "to be restored")
    if set_to is None:
        monkeypatch.delenv("CUDA_DEVICE_ORDER")
    put_module(packages, "onnx", "import os\nraise ImportError(os.environ['CUDA_DEVICE_ORDER'])")
    assert ask("modules", "onnx").facts["errors"] == {"onnx": wanted}


def test_the_current_folder_is_not_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_module(tmp_path, "no_such_module", "")
    monkeypatch.chdir(tmp_path)
    assert "no_such_module" in ask("modules", "no_such_module").facts["errors"]


def test_two_onnxruntimes_and_which_one_is_there(packages: Path) -> None:
    put_onnxruntime_gpu(packages, log=LOG)
    versions = {"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.31.1"}
    ort, trials = try_everything(versions, with_gpu=True)
    assert ort.packages == ("onnxruntime", "onnxruntime-gpu")
    assert (ort.package, ort.version, ort.cuda) == ("onnxruntime-gpu", "1.31.1", "13.0")
    assert ort.providers == ("CUDAExecutionProvider",)
    assert set(trials) == {"infer", "onnx-cuda"}
    assert "libcudnn.so.9" in str(trials["onnx-cuda"].error)
    assert "onnx-cuda" not in try_everything(versions, with_gpu=False)[1]


def test_the_rtx_plug_in_is_tried_where_there_is_a_gpu(packages: Path) -> None:
    pytest.importorskip("onnxruntime")
    put_module(packages, "onnxruntime_ep_nv_tensorrt_rtx", "raise ImportError('no libcudart')")
    versions = {"onnxruntime": "1.32.0", "onnxruntime-ep-nv-tensorrt-rtx-cu13": "0.5.0"}
    trials = try_everything(versions, with_gpu=True)[1]
    assert "onnxruntime-ep-nv-tensorrt-rtx" in str(trials["onnx-rtx"].error)
    assert trials["onnx-cpu"].error is None
    assert "onnx-rtx" not in try_everything(versions, with_gpu=False)[1]


def test_what_is_left_when_one_of_two_was_removed(packages: Path) -> None:
    put_metadata(packages, "onnxruntime-gpu", "1.31.1")
    put_module(packages, "onnxruntime", "")
    ort, trials = try_everything({"onnxruntime-gpu": "1.31.1"}, with_gpu=True)
    assert ort.packages == ("onnxruntime-gpu",)
    assert ort.error is not None
    assert (ort.package, ort.providers, set(trials)) == (None, (), {"infer"})


def test_a_tensorrt_without_libraries(packages: Path) -> None:
    put_module(packages, "tensorrt", "raise OSError('libnvinfer.so.10: cannot open')")
    _, trials = try_everything({"tensorrt": "10.16.1.11"}, with_gpu=True)
    assert trials["tensorrt-import"].error == "libnvinfer.so.10: cannot open"
    assert trials["tensorrt"].error == "libnvinfer.so.10: cannot open"
    _, trials = try_everything({"tensorrt": "10.16.1.11"}, with_gpu=False)
    assert set(trials) == {"infer", "tensorrt-import"}


def test_nothing_installed_nothing_tried() -> None:
    ort, trials = try_everything({}, with_gpu=True)
    assert (ort.packages, ort.error) == ((), None)
    assert trials["infer"].facts["errors"] == {}
    assert set(trials) == {"infer"}
