"""`sshr-deploy doctor` as a person runs it, and its tables for machines that are not this one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sshr_deploy.cli import app
from sshr_deploy.errors import UsageError
from sshr_deploy.runtime.doctor import examine as examine_module
from sshr_deploy.runtime.doctor.examine import judge
from sshr_deploy.runtime.doctor.report import (
    Answer,
    ArtifactFacts,
    BundleFacts,
    Facts,
    OnnxRuntime,
    SlideLook,
)
from sshr_deploy.runtime.engines.kinds import KINDS
from tests.runtime.doctor.fake_packages import put_metadata, put_module
from tests.runtime.doctor.machines import (
    H100,
    RTX,
    laptop,
    with_packages,
    with_trials,
    workstation,
)
from tests.runtime.fake_nvidia_smi import put_nvidia_smi

SETTINGS = {**os.environ, "COLUMNS": "80", "PYTHONIOENCODING": "utf-8", "TERM": "dumb"}
posix = pytest.mark.skipif(os.name == "nt", reason="the stand-in program is a POSIX script")


def run(*args: str | Path, **settings: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sshr_deploy", "doctor", *map(str, args)]
    environ = {**SETTINGS, **settings}
    return subprocess.run(
        command, capture_output=True, encoding="utf-8", env=environ, timeout=300, check=False
    )


def shown(
    monkeypatch: pytest.MonkeyPatch, facts: Facts, bundle: BundleFacts | None = None,
    columns: str = "80",
) -> tuple[int, str]:  # fmt: skip
    """Exit code and what a person sees in so many columns, for a machine of `facts`."""
    report = judge(facts, bundle)
    monkeypatch.setattr(examine_module, "examine", lambda *_: report)
    monkeypatch.setenv("COLUMNS", columns)
    done = CliRunner().invoke(app, ["doctor"])
    return done.exit_code, done.stdout


ON_CPU = [kind.name for kind in KINDS if not kind.needs_gpu and kind.is_considered]


def sentence(text: str) -> str:
    """Without the frame and the wrapping of tables."""
    return " ".join(re.sub(r"[│┃]", " ", text).split())


@posix
def test_a_machine_without_a_gpu(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    put_nvidia_smi(tmp_path, "No devices were found\n")
    done = run(PATH=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    lines = [line for line in done.stdout.splitlines() if not line.startswith("    ")]
    assert max(len(line) for line in lines) <= 80, "but for commands, which are pasted whole"
    assert done.stdout.splitlines()[-1] == f"ready: infer can use {', '.join(ON_CPU)}"
    assert "nvidia-smi says: No devices were found" in sentence(done.stdout)
    assert "ran a convolution with CPUExecutionProvider" in sentence(done.stdout)


@posix
def test_json_with_a_gpu_that_no_library_can_open_and_no_bundle(tmp_path: Path) -> None:
    put_nvidia_smi(tmp_path, "0, GPU-1f, NVIDIA [red]RTX 4000, 8.9, 575.64.03, 20475\n")
    nothing = tmp_path / "[no] bundle"
    done = run("--json", "--model", nothing, PATH=str(tmp_path), ORT_DISABLE_TELEMETRY="0")
    document = json.loads(done.stdout)
    assert document["gpus"][0]["name"] == "NVIDIA [red]RTX 4000"
    assert [engine["name"] for engine in document["engines"] if engine["ready"]] == ON_CPU
    assert "telemetry-on" in [conflict["name"] for conflict in document["conflicts"]]
    assert str(nothing) in document["bundle"]["error"]
    assert (done.returncode, document["ready"], document["usable"]) == (1, False, [])


def test_a_broken_installation_does_not_take_the_doctor_down(tmp_path: Path) -> None:
    """Metadata of both packages, and what one of them left behind; OpenCV does not load."""
    put_metadata(tmp_path, "onnxruntime", "1.32.0")
    put_metadata(tmp_path, "onnxruntime-gpu", "1.31.1")
    put_module(tmp_path, "onnxruntime", "import os; os._exit(139)")
    put_module(tmp_path, "cv2", "raise ImportError('libGL.so.1: cannot open')")
    put_module(tmp_path, "numpy", "raise ImportError('built for another Python')")
    done = run(PYTHONPATH=str(tmp_path))
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    text = sentence(done.stdout)
    assert "onnxruntime 1.32.0 and onnxruntime-gpu 1.31.1 own the same module" in text
    assert "cv2 does not import: libGL.so.1: cannot open" in text
    assert "    pip uninstall -y onnxruntime onnxruntime-gpu" in done.stdout.splitlines()
    assert text.endswith("not ready: infer cannot run here")


def test_help_says_what_the_exit_codes_mean() -> None:
    text = sentence(run("--help").stdout)
    for words in ("--model", "--json", "Exit code 0: infer can run here", "1: it cannot"):
        assert words in text
    assert run("--no-such-option").returncode == 2


def test_a_workstation(monkeypatch: pytest.MonkeyPatch) -> None:
    code, text = shown(monkeypatch, workstation())
    assert code == 0
    last = "ready: infer can use tensorrt, tensorrt-rtx, onnx-tensorrt, onnx-rtx, onnx-cuda,"
    assert last in sentence(text)
    assert "RTX 4000 Ada Generation, SM 8.9, 20.0 GiB, driver 580.95.05; kernels:" in sentence(text)
    assert "not tried: the network, for which an engine has to be built" in sentence(text)
    assert "to mend" not in text


def test_what_mends_is_said_once_and_can_be_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = replace(workstation(), onnxruntime=laptop().onnxruntime)
    code, text = shown(monkeypatch, facts)
    assert code == 0
    lines = text.splitlines()
    assert lines.count("    pip install 'sshr-deploy[gpu]'") == 1
    assert "  onnx-tensorrt, onnx-cuda" in lines
    failed = Answer({}, "libnvinfer.so.10: cannot open")
    text = shown(monkeypatch, with_trials(workstation(), tensorrt_import=failed))[1]
    (command,) = [line for line in text.splitlines() if "nvidia.com" in line]
    assert len(command) > 80 and command.endswith("'sshr-deploy[tensorrt]'")  # not wrapped


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (workstation(H100), "conflict: NVIDIA H100 80GB HBM3 has SM 9.0"),
        (workstation(replace(RTX, driver="550.1")), "built for CUDA 13, which needs driver 580"),
        (
            replace(workstation(), environ={"CUDA_VISIBLE_DEVICES": "-1"}),
            "hides every GPU; unset it, or name the GPU, such as 0 (stops tensorrt, tensorrt-rtx,",
        ),
    ],
)
def test_conflicts_are_shown(monkeypatch: pytest.MonkeyPatch, facts: Facts, words: str) -> None:
    assert words in sentence(shown(monkeypatch, facts)[1])


@pytest.mark.parametrize(
    ("bundle", "code", "words"),
    [
        (
            BundleFacts("a [b]", None, (ArtifactFacts("int8", "q.onnx", ("onnx-cpu",), False),)),
            0,
            ["a [b]: whole", "int8 q.onnx for onnx-cpu, not qualified by its export",
             "in the bundle: int8", "in the bundle: nothing for it", "no graphs for fields"],
        ),
        (
            BundleFacts(
                "b", None, (ArtifactFacts("int8", "q.onnx", ("onnx-cpu",), True),),
                (ArtifactFacts("fp32", "f.onnx", ("onnx-cpu",), True),), 896,
            ),
            0,
            ["fp32 f.onnx for onnx-cpu, fields of 896 px", "in the bundle: int8",
             "for fields: fp32"],
        ),
        (
            BundleFacts("b", None, (ArtifactFacts("fp16", "h.onnx", ("onnx-cuda",), True),)),
            1,
            ["fp16 h.onnx for onnx-cuda", "the bundle has nothing for an engine that is ready"],
        ),
        (
            BundleFacts("b", "b/model.onnx was changed", ()),
            1,
            ["b: b/model.onnx was changed", "not ready: infer cannot run here, the bundle is not"],
        ),
    ],
)  # fmt: skip
def test_a_bundle(
    monkeypatch: pytest.MonkeyPatch, bundle: BundleFacts, code: int, words: list[str]
) -> None:
    got, text = shown(monkeypatch, laptop(), bundle)
    assert got == code
    for word in words:
        assert word in sentence(text)


def test_slides_have_a_line_each_and_decide_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    report = replace(
        judge(laptop()),
        slides=(
            SlideLook("a.svs", "far", 1.234, "stained far lighter"),
            SlideLook("b.svs", None, None, "no tissue found"),
        ),
    )
    monkeypatch.setattr(examine_module, "examine", lambda *_: report)
    done = CliRunner().invoke(app, ["doctor", "--model", "bundle", "--slides", "slides"])
    assert done.exit_code == (0 if judge(laptop()).ready else 1)
    assert "a.svs: stained far lighter (fit score 1.23)" in done.stdout.splitlines()
    assert "b.svs: no tissue found" in done.stdout.splitlines()


def test_slides_need_a_bundle() -> None:
    done = CliRunner().invoke(app, ["doctor", "--slides", "slides"])
    assert isinstance(done.exception, UsageError)
    assert "--slides needs --model" in str(done.exception)


@pytest.mark.parametrize("columns", ["20", "80", "200"])
def test_no_terminal_is_too_narrow_for_what_mends(
    monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    facts = with_packages(laptop(), onnxruntime=None)
    facts = replace(facts, onnxruntime=OnnxRuntime((), None, None, None, (), None))
    bundle = BundleFacts("a b", "a b/model.onnx was changed", ())
    code, text = shown(monkeypatch, facts, bundle, columns)
    assert code == 1
    for name in ("tensorrt", "onnx-cpu", "infer", "train"):
        assert re.search(rf"^\W*{name}\b", text, re.MULTILINE), name
    assert "onnxruntime is not installed" in sentence(text)
    assert "pip install 'sshr-deploy[cpu]'" in text
    assert "sshr-deploy export CHECKPOINT --out 'a b' --overwrite" in text
    assert "drivers: https://www.nvidia.com/drivers" in text


def test_names_of_others_are_not_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = with_packages(laptop(), torch="2.13.0[red]")
    text = shown(monkeypatch, facts)[1]
    assert "torch 2.13.0[red]" in sentence(text)
