"""`make gpu-check`: what it imports, what it records, and what it says where there is no GPU."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from sshr_deploy.benchmarks.gpu import check
from sshr_deploy.benchmarks.gpu.check import CheckReport
from sshr_deploy.benchmarks.gpu.child import PartOutput
from sshr_deploy.benchmarks.gpu.own_tests import TESTS
from sshr_deploy.benchmarks.gpu.parts import PARTS, describe_device
from sshr_deploy.benchmarks.gpu.process import CheckPart, Outcome
from sshr_deploy.benchmarks.gpu.table import table
from sshr_deploy.benchmarks.report.reading import read_document
from sshr_deploy.errors import SshrDeployError
from tests.benchmarks.gpu.processes import check_gone, wait_for_two
from tests.benchmarks.gpu.stand_ins import HERE, ROW

pytestmark = pytest.mark.skipif(os.name == "nt", reason="process groups")

# What a machine with PyTorch and Triton alone lacks.
WITHOUT_THE_REST = """
import sys
for name in ("pydantic", "openslide", "pydicom", "onnx", "onnxruntime", "safetensors"):
    sys.modules[name] = None
"""
FILE = "gpu-check-nvidia-test-1.json"


def run_python(code: str, root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT_THE_REST + code, *arguments]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


def part(function: str, limit_s: float = 30.0, least_s: float = 0.0) -> CheckPart:
    return CheckPart(function, f"{HERE}:{function}", limit_s, least_s)


@pytest.fixture
def pretended_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "DEVICE", part("device"))
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


def test_parts_import_where_only_pytorch_and_triton_are(repo_root: Path) -> None:
    code = "from importlib import import_module as load\nfrom sshr_deploy.benchmarks.gpu.parts "
    code += "import DEVICE, PARTS\nassert 'torch' not in sys.modules, 'the parent has no CUDA'\n"
    code += "parts = [part for part in (DEVICE, *PARTS) if not part.needs_bundle]\n"
    code += "targets = [part.target.split(':') for part in parts]\n"
    code += "assert all(callable(getattr(load(m), f)) for m, f in targets)\n"
    code += "from sshr_deploy.benchmarks import kernels\n"
    code += "from sshr_deploy.benchmarks.gpu import mask_kernel, network, training_kernels\n"
    code += "from sshr_deploy.benchmarks.gpu import kernel_configs\n"
    done = run_python(code, repo_root)
    assert done.returncode == 0, done.stderr


def test_what_shows_defects_comes_first_and_what_compiles_for_minutes_last() -> None:
    names = [part.name for part in PARTS]
    assert names[:6] == ["streams", "cubins", "tests", "latency", "throughput", "sessions"]
    assert [name for name in names if name in ("kernels", "masks", "training")] == names[8:11]
    first = PARTS[: names.index("network-eager")]
    for other in ("needs_bundle", "stands_in"):  # one or the other, by whether there is a bundle
        assert sum(p.limit_s for p in first if not getattr(p, other)) <= check.DEADLINE_S
    assert names[-3:] == ["network-compiled", "fields", "configs"]


def test_its_tests_are_collected_where_only_pytorch_and_triton_are(repo_root: Path) -> None:
    pytest.importorskip("triton")
    code = "import pytest; sys.exit(pytest.main(['--collect-only', '-q', *sys.argv[1:]]))"
    done = run_python(code, repo_root, *TESTS)
    assert done.returncode == 0, done.stdout[-3000:]
    for name in ("test_hfrm_cam.py", "test_hfrm_pool.py", "test_cam_to_mask.py", "test_cubins.py"):
        assert name in done.stdout


def test_an_interpreter_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert check.main([]) == 2
    assert "TRITON_INTERPRET is set" in capsys.readouterr().err


def test_a_machine_without_a_gpu_is_told_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(check, "DEVICE", part("refuse"))
    assert check.main(["--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "gpu-check: no GPU to check: fused is off by 1e+00\n"
    assert list(tmp_path.iterdir()) == []


def test_what_is_wrong_with_pytorch_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    output = PartOutput(io.StringIO(), 1.0)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.version.cuda", None)
    with pytest.raises(SshrDeployError, match="is built without CUDA; name a Python that has it"):
        describe_device(output)
    monkeypatch.setattr("torch.version.cuda", "13.0")
    with pytest.raises(SshrDeployError, match=r"^PyTorch finds no NVIDIA GPU here;"):
        describe_device(output)


def test_a_python_without_pytorch_is_told_so(repo_root: Path) -> None:
    code = "import os, sys; sys.modules['torch'] = None; os.environ.pop('TRITON_INTERPRET', 0)\n"
    code += "import importlib.util as u; found = u.find_spec\n"
    code += "u.find_spec = lambda name: None if name == 'torch' else found(name)\n"
    code += "from sshr_deploy.benchmarks.gpu import check; sys.exit(check.main([]))"
    done = run_python(code, repo_root)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "has no PyTorch; name a Python that has it: make gpu-check PYTHON=" in done.stderr


@pytest.mark.usefixtures("pretended_gpu")
def test_a_crash_and_a_hang_cost_only_their_own_parts(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    pids: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    functions = ("crash", "right", "refuse", "need", "wrong_row")
    parts = (part("hang", limit_s=8.0), *map(part, functions))
    monkeypatch.setattr(check, "PARTS", parts)
    monkeypatch.setenv("OUT", str(tmp_path))
    assert check.main([]) == 1
    report = json.loads((tmp_path / FILE).read_text())
    assert report["parts"]["right"] == {"rows": [ROW], "summary": "all right"}
    assert report["parts"]["hang"]["rows"] == report["parts"]["crash"]["rows"] == [ROW]
    assert report["failed"] == {
        "hang": "took longer than 8 s and was killed",
        "crash": "its process died of SIGABRT",
        "refuse": "fused is off by 1e+00",
        "wrong_row, separable, 8": "out of memory",
    }
    assert report["left_out"] == {"need": "pydantic is not installed"}
    assert any("in hang" in line for line in report["output"]["hang"])
    check_gone(pids)
    shown = capfd.readouterr().out.splitlines()
    assert "hang: the rows until it took longer than 8 s and was killed" in shown
    assert "FAILED crash: its process died of SIGABRT" in shown
    assert shown[-1] == str(tmp_path / FILE)


@pytest.mark.usefixtures("pretended_gpu")
def test_the_file_is_there_after_each_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def run(part: CheckPart, limit_s: float, document: Path | None = None) -> Outcome:
        if part.name == "device":
            return Outcome("done", figures={"device": "NVIDIA Test 1"})
        file = tmp_path / FILE
        seen.append(list(json.loads(file.read_text())["parts"]) if file.exists() else [])
        return Outcome("done", rows=[ROW])

    monkeypatch.setattr(check, "run_part", run)
    check.check(tmp_path, [part("a"), part("b"), part("c")])
    assert seen == [[], ["a"], ["a", "b"]]


@pytest.mark.usefixtures("pretended_gpu")
def test_parts_that_do_not_fit_the_time_are_named(tmp_path: Path) -> None:
    report = check.check(tmp_path, [part("right", least_s=20.0)], deadline_s=15.0)
    assert report.content["left_out"]["right"].startswith("out of time: 1")
    assert json.loads((tmp_path / FILE).read_text()) == report.content


@pytest.mark.usefixtures("pretended_gpu")
def test_sigterm_keeps_what_was_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pids: Path
) -> None:
    def terminate() -> None:
        wait_for_two(pids)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(check, "PARTS", (part("right"), part("hang"), part("need")))
    threading.Thread(target=terminate).start()
    assert check.main(["--out", str(tmp_path)]) == check.INTERRUPTED
    report = json.loads((tmp_path / FILE).read_text())
    assert list(report["parts"]) == ["right", "hang"]
    assert report["failed"] == {"hang": "interrupted"}
    assert report["left_out"] == {"need": "interrupted"}
    check_gone(pids)


@pytest.mark.usefixtures("pretended_gpu")
def test_a_folder_that_cannot_be_written_is_told_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert check.main(["--out", str(tmp_path / "file")]) == 1
    assert capsys.readouterr().err.startswith("gpu-check: cannot write ")


def test_parts_can_be_chosen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[tuple[str, float]] = []

    def run(part: CheckPart, limit_s: float, document: Path | None = None) -> Outcome:
        ran.append((part.name, limit_s))
        return Outcome("done", figures={"device": "NVIDIA Test 1"})

    monkeypatch.setattr(check, "run_part", run)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    chosen = ["--parts", "kernels, network", "--deadline", "70", "--out", str(tmp_path)]
    assert check.main(chosen) == 0
    names = ["device", "network-eager", "network-fused", "kernels", "network-compiled"]
    assert [name for name, _ in ran] == names
    assert all(limit_s <= 70 for _, limit_s in ran)
    assert check.main(["--parts", "kernel"]) == 2
    said = capsys.readouterr().err
    assert "gpu-check: no part is called 'kernel'; choose of streams, cubins, tests," in said


@pytest.mark.usefixtures("pretended_gpu")
def test_the_document_of_a_part_that_crashed_is_kept_and_told(tmp_path: Path) -> None:
    old = tmp_path / FILE.replace(".json", "-right.json")
    old.write_text("of an earlier run")
    report = check.check(tmp_path, [part("benchmark_and_crash"), part("right")])
    name = FILE.replace(".json", "-benchmark_and_crash.json")
    assert report.content["documents"] == {"benchmark_and_crash": name}
    assert f"benchmark_and_crash: {name}" in table(report.content)
    document = read_document(tmp_path / name)
    assert [row.name for row in document.rows] == ["a"] and not document.complete
    assert not old.exists()


@pytest.mark.usefixtures("pretended_gpu")
def test_without_a_bundle_its_parts_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BUNDLE", raising=False)
    bundle_parts = [part for part in PARTS if part.needs_bundle]
    report = check.check(tmp_path, bundle_parts)
    why = "no bundle to measure; name one: BUNDLE=folder"
    assert report.content["left_out"] == dict.fromkeys(["latency", "throughput"], why)


@pytest.mark.usefixtures("pretended_gpu")
def test_an_engine_whose_masks_disagree_fails_the_check_and_an_absent_one_does_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(check, "PARTS", (part("miss"), part("miss_all")))
    assert check.main(["--out", str(tmp_path)]) == 1
    report = json.loads((tmp_path / FILE).read_text())
    disagrees = "its masks disagree: mask agreement 0.5"
    assert report["failed"] == {
        "miss, wrong, batch 1": disagrees,
        "miss_all": f"no engine could be measured: no library here; {disagrees}",
        "miss_all, wrong, batch 1": disagrees,
    }


@pytest.mark.usefixtures("pretended_gpu")
def test_with_a_bundle_no_random_network_stands_in_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUNDLE", "folder")
    bundled = CheckPart("right", f"{HERE}:right", 30.0, 0.0, needs_bundle=True)
    random = CheckPart("need", f"{HERE}:need", 30.0, 0.0, stands_in=True)
    monkeypatch.setattr(check, "run_part", lambda *_: Outcome("done", figures={"device": "a"}))
    left_out = check.check(tmp_path, [bundled, random]).content["left_out"]
    assert left_out == {"need": "the bundle's own sessions are measured instead"}
    assert check.check(tmp_path, [random]).content["left_out"] == {}, "it alone was asked for"


SIZE: dict[str, Any] = {"dtype": "fp16", "batch": 32, "shape": [512, 28, 28]}
ROWS: dict[str, list[dict[str, Any]]] = {
    "network-fused": [
        {"form": "fused", "precision": "fp16", "batch": 32, "median_ms": 13.0}
        | {"patches_per_s": 2461.5, "tflop_per_s": 493.5, "share_of_product": 0.62}
    ],
    "kernels": [
        SIZE | {"form": "plain", "median_ms": 6.0, "samples_ms": [6.0] * 5, "share_of_floor": 0.01},
        SIZE
        | {"form": "compiled", "median_ms": 3.0, "samples_ms": [3.0] * 5, "share_of_floor": 0.02},
        SIZE
        | {"form": "fused_nhwc", "median_ms": 0.5, "samples_ms": [0.5] * 5, "share_of_floor": 0.5},
        SIZE | {"form": "separable", "failed": "out of memory"},
    ],
    "masks": [{"form": "kernel", "batch": 1, "median_ms": 0.01}],
    "training": [{"part": "step", "form": "fused", "batch": 20, "median_ms": 120.0}],
    "streams": [{"stream": 1, "launches": 50, "batch": 2, "wrong_labels": 0}],
    "fields": [
        {"form": "compiled", "precision": "fp16", "batch": 1, "side_px": 1344, "median_ms": 12.0}
        | {"patches_per_s": 3000.0}
    ],
    "latency": [
        {"name": "tensorrt fp16, batch 8", "unit": "ms", "samples": [4.0, 6.0, 5.0]}
        | {"agreement": {"masks": 0.9947}},
        {"name": "tensorrt int8, batch 8", "unit": "ms", "samples": [], "not_measured": "no graph"}
        | {"agreement": None},
    ],
    "sessions": [
        {"form": "onnx-cuda fp16", "batch": 32, "median_ms": 16.0}
        | {"patches_per_s": 2100.0, "mask_agreement": 0.9947, "labels_on_device": False},
        {"form": "onnx-cuda fp32", "failed": "no cuDNN"},
    ],
    "recipes": [
        {"name": "HFRM f56, plain", "figures": {"median_ms": 1.0, "speed_up": 1.0}},
        {"name": "step, fast", "figures": {"median_ms": 12.0, "speed_up": None}},
    ],
    "configs": [{"batch": 1, "config": {"rows": 2}, "left_out": "out of resource"}],
}


def test_the_table(tmp_path: Path) -> None:
    report = CheckReport(tmp_path, {"device": "NVIDIA Test 1"})
    for name, rows in ROWS.items():
        missing = {"not_measured": ["fp16 128"]} if name == "kernels" else {}
        report.add(part(name), Outcome("done", rows=rows, figures=missing))
    assert table(report.content)[1:] == [
        "network fp16 batch  32 fused       13.000 ms   2461.5 patches/s  493.5 TFLOP/s, "
        "62% of a matrix product",
        "fp16  32 x 512x28x28  ms: plain 6.0000 compiled 3.0000 fused_nhwc 0.5000 | "
        "fused_nhwc x plain: 12.00 x compiled: 6.00, 50% of the floor",
        "not measured, out of time: fp16 128",
        "cam_to_mask batch   1 kernel   0.0100 ms",
        "training step, batch 20, fused                  120.000 ms",
        "stream 1: 50 launches of its graph, all labels right",
        "network fp16 batch   1 of 1344 px compiled    12.000 ms   3000.0 patches/s",
        "tensorrt fp16, batch 8:     5.000 ms, masks agree on 99.470%",
        "tensorrt int8, batch 8: no graph",
        "onnx-cuda fp16 batch  32   16.000 ms,   2100.0 patches/s in a row, "
        "masks agree on 99.470%, label maps by the processor",
        "recipe step, fast         12.000 ms, x published: not reported",
        "block sizes, batch   1 rows 2: out of resource",
        "FAILED kernels, separable, 32, [512, 28, 28]: out of memory",
        "FAILED sessions, onnx-cuda fp32: no cuDNN",
    ]
