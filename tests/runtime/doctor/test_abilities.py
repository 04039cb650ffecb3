"""Every engine and command says what it lacks and what mends it, and is ready when nothing is."""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from sshr_deploy.runtime.doctor.abilities import COMMAND_PACKAGES
from sshr_deploy.runtime.doctor.examine import judge
from sshr_deploy.runtime.doctor.report import Ability, Answer, Facts, OnnxRuntime
from sshr_deploy.runtime.engines.kinds import ENGINES
from tests.runtime.doctor.machines import (
    H100,
    NO_GPU,
    RTX,
    cuda_answer,
    laptop,
    with_packages,
    with_trials,
    workstation,
)

FELL_BACK = Answer({}, "it fell back to CPUExecutionProvider: libcudnn.so.9: cannot open")
NO_ORT = OnnxRuntime((), None, None, None, (), None)


def ability(facts: Facts, name: str) -> Ability:
    report = judge(facts)
    return next(item for item in (*report.engines, *report.commands) if item.name == name)


def test_a_complete_workstation_is_ready_for_everything() -> None:
    report = judge(workstation())
    assert [engine.name for engine in report.engines] == list(ENGINES)
    assert [command.name for command in report.commands] == ["infer", "export", "train"]
    for item in (*report.engines, *report.commands):
        assert item.ready and item.tried, item
    assert (report.ready, report.usable) == (True, ENGINES)


def test_what_only_a_run_shows_is_said() -> None:
    facts = workstation()
    assert "engine has to be built" in str(ability(facts, "tensorrt-rtx").not_tried)
    assert ability(facts, "tensorrt-rtx").tried == (
        "made a builder of tensorrt-rtx 1.7.1.116",
        "opened NVIDIA RTX 4000 Ada Generation with cuda-core 1.2.2",
    )
    assert ability(facts, "onnx-cpu").not_tried is None


def test_a_laptop_is_ready_for_the_cpu() -> None:
    report = judge(laptop())
    assert (report.ready, report.usable) == (True, ("onnx-cpu",))
    for engine in report.engines[:-1]:
        assert engine.lacks[0].reason == NO_GPU
        assert engine.lacks[0].mend == (f"# {NO_GPU}; drivers: https://www.nvidia.com/drivers",)
        # Nothing is gained by installing, and replacing the onnxruntime that works would harm.
        assert all(lack.mend == () for lack in engine.lacks[1:])
    assert "tensorrt is not installed" in [lack.reason for lack in report.engines[0].lacks]


@pytest.mark.parametrize(
    ("name", "package", "command"),
    [
        ("tensorrt", "tensorrt", "pip install 'sshr-deploy[tensorrt]'"),
        # [rtx] would bring a second onnxruntime beside onnxruntime-gpu.
        ("tensorrt-rtx", "tensorrt-rtx", "pip install tensorrt-rtx cuda-core cuda-bindings"),
        ("tensorrt-rtx", "cuda-core", "pip install tensorrt-rtx cuda-core cuda-bindings"),
    ],
)
def test_a_missing_package(name: str, package: str, command: str) -> None:
    facts = with_packages(workstation(), **{package: None})
    (lack,) = ability(facts, name).lacks
    assert f"{package}" in lack.reason and "not installed" in lack.reason
    assert lack.mend == (command,)
    if name == "tensorrt-rtx":
        facts = replace(facts, onnxruntime=laptop().onnxruntime)
        assert ability(facts, name).lacks[0].mend == ("pip install 'sshr-deploy[rtx]'",)


def test_pycuda_serves_instead_of_cuda_core() -> None:
    facts = with_packages(workstation(), cuda_core=None, pycuda="2026.1")
    assert ability(facts, "tensorrt").ready


@pytest.mark.parametrize("name", ["onnx-cpu", "onnx-cuda", "onnx-tensorrt"])
def test_no_onnxruntime_or_one_without_the_provider(name: str) -> None:
    """One command for all: there can be only one onnxruntime, and that of [gpu] serves them all."""
    facts, install = workstation(), "pip install 'sshr-deploy[gpu]'"
    (lack,) = ability(replace(facts, onnxruntime=NO_ORT), name).lacks
    assert lack.mend == (install,)
    cpu_build = replace(laptop().onnxruntime, providers=("AzureExecutionProvider",))
    (lack,) = ability(replace(facts, onnxruntime=cpu_build), name).lacks
    assert lack.mend == ("pip uninstall -y onnxruntime", install)
    assert "onnxruntime 1.32.0 (package onnxruntime) has no" in lack.reason


def test_the_rtx_provider_is_a_plug_in() -> None:
    facts = replace(workstation(), onnxruntime=laptop().onnxruntime)
    assert ability(facts, "onnx-rtx").ready  # it needs no build for GPUs
    without = with_packages(facts, onnxruntime_ep_nv_tensorrt_rtx_cu13=None)
    (lack,) = ability(without, "onnx-rtx").lacks
    assert lack.mend == ("pip install onnxruntime-ep-nv-tensorrt-rtx",)
    (lack,) = ability(replace(facts, onnxruntime=NO_ORT), "onnx-rtx").lacks
    assert lack.mend == ("pip install 'sshr-deploy[gpu]'",)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("onnx-cpu", "--force-reinstall 'sshr-deploy[cpu]'"),
        ("onnx-cuda", "pip install 'sshr-deploy[gpu]'"),
        ("onnx-tensorrt", "'tensorrt>=10.16,<11'"),
        ("onnx-rtx", "onnxruntime-ep-nv-tensorrt-rtx"),
    ],
)
def test_a_provider_that_does_not_start(name: str, words: str) -> None:
    (lack,) = ability(with_trials(workstation(), **{name: FELL_BACK}), name).lacks
    assert "onnxruntime 1.31.1: it fell back to CPUExecutionProvider: libcudnn" in lack.reason
    assert words in lack.mend[0]


def test_an_onnxruntime_that_does_not_import() -> None:
    broken = OnnxRuntime(("onnxruntime",), None, None, None, (), "no module named capi")
    facts = replace(workstation(), onnxruntime=broken)
    for name in ("onnx-cpu", "onnx-cuda"):
        (lack,) = ability(facts, name).lacks
        assert "does not import: no module named capi" in lack.reason
        assert lack.mend[0] == "pip uninstall -y onnxruntime"
    assert not ability(facts, "export").ready


def test_libraries_that_do_not_work() -> None:
    failed = Answer({}, "its process ended with SIGSEGV")
    (lack,) = ability(with_trials(workstation(), tensorrt_rtx=failed), "tensorrt-rtx").lacks
    assert "its process ended with SIGSEGV" in lack.reason
    assert lack.mend == ("pip install --force-reinstall tensorrt-rtx cuda-core cuda-bindings",)
    for name in ("tensorrt", "tensorrt-rtx"):
        (lack,) = ability(with_trials(workstation(), cuda=failed), name).lacks
        assert lack.reason == failed.error
        assert lack.mend[0] == "pip install --force-reinstall cuda-core cuda-bindings"


def test_what_a_conflict_breaks_is_not_ready() -> None:
    report = judge(workstation(H100))
    assert report.usable == ("tensorrt", "onnx-tensorrt", "onnx-cuda", "openvino", "onnx-cpu")
    not_installed = with_packages(workstation(H100), tensorrt_rtx=None)
    reasons = [lack.reason for lack in ability(not_installed, "tensorrt-rtx").lacks]
    assert "SM 9.0" in reasons[0]


def test_no_engine_no_infer() -> None:
    facts = replace(laptop(), onnxruntime=NO_ORT)
    report = judge(facts)
    assert not report.ready and report.usable == ()
    assert ability(facts, "infer").lacks[0].mend == ("pip install 'sshr-deploy[cpu]'",)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            Answer({"errors": {"cv2": "libGL.so.1: cannot open"}}, None),
            "cv2 does not import: libGL",
        ),
        (Answer({}, "no answer in 120 s"), "slide readers do not start: no answer in 120 s"),
    ],
)
def test_broken_slide_readers(answer: Answer, words: str) -> None:
    facts = with_trials(workstation(), infer=answer)
    (lack,) = ability(facts, "infer").lacks
    assert words in lack.reason
    assert lack.mend == ("pip install --force-reinstall sshr-deploy",)
    assert not judge(facts).ready


def test_export_and_train_name_what_is_missing() -> None:
    facts = with_packages(workstation(), onnxscript=None, torch=None)
    (lack,) = ability(facts, "export").lacks
    assert lack.reason.startswith("torch, onnxscript are not installed; [export] brings")
    assert "would overwrite onnxruntime-gpu" in lack.reason
    install = "pip install 'sshr-deploy[export]'"
    assert lack.mend == ("python -m venv sshr-export", f"sshr-export/bin/{install}")
    on_windows = replace(facts, machine=replace(facts.machine, platform="Windows 11 AMD64"))
    mend = ability(on_windows, "export").lacks[0].mend
    assert mend[1] == f"sshr-export\\Scripts\\{install}"
    (lack,) = ability(facts, "train").lacks
    assert lack.reason == "torch is not installed"
    bare = replace(facts, onnxruntime=NO_ORT)
    assert ability(bare, "export").lacks[0].reason == (
        "torch, onnxscript, onnxruntime are not installed"
    )


def test_broken_parts_of_export_and_train() -> None:
    facts = with_trials(
        workstation(),
        torch=Answer({}, "libcudart.so.13: cannot open"),
        extras=Answer({"errors": {"ml_dtypes": "DLL load failed", "matplotlib": "none"}}, None),
    )
    reasons = [lack.reason for lack in ability(facts, "export").lacks]
    assert reasons == [
        "torch does not import: libcudart.so.13: cannot open",
        "ml-dtypes does not import: DLL load failed",
    ]
    assert [lack.mend for lack in ability(facts, "train").lacks] == [
        ("pip install --force-reinstall torch",),
        ("pip install --force-reinstall matplotlib",),
    ]
    crashed = with_trials(workstation(), extras=Answer({}, "its process ended with SIGSEGV"))
    assert len(ability(crashed, "export").lacks) == 4


def test_a_torch_that_does_not_see_the_gpu() -> None:
    facts = with_trials(workstation(), torch=Answer({"gpu": False, "cuda": None}, None))
    (note,) = ability(facts, "train").notes
    assert "torch 2.13.0 sees no GPU, it is a build for CPUs" in note
    assert ability(facts, "train").ready
    assert ability(workstation(), "train").notes == ()


def test_vnni_is_a_note_where_it_is_known_to_be_missing() -> None:
    for vnni, notes in ((True, 0), (None, 0), (False, 1)):
        machine = laptop().machine
        processor = replace(machine.processor, vnni=vnni)
        facts = replace(laptop(), machine=replace(machine, processor=processor))
        assert len(ability(facts, "onnx-cpu").notes) == notes


FAILED = Answer({}, "no answer in 120 s")
BROKEN_ORT = OnnxRuntime(("onnxruntime-gpu",), None, None, None, (), "no module named capi")
MACHINES = {
    "workstation": workstation(),
    "H100": workstation(H100),
    "laptop": laptop(),
    "old driver": workstation(replace(RTX, driver="450.1")),
    "old driver for kernels": workstation(replace(RTX, sm=120, driver="570.86")),
    "hidden": replace(workstation(), environ={"CUDA_VISIBLE_DEVICES": "-1"}),
    "a slice": replace(workstation(), environ={"CUDA_VISIBLE_DEVICES": "MIG-1"}),
    "telemetry": replace(laptop(), environ={"ORT_DISABLE_TELEMETRY": "0"}),
    "another GPU": with_trials(
        replace(workstation(), environ={"CUDA_DEVICE_ORDER": "FASTEST_FIRST"}),
        cuda=cuda_answer(replace(RTX, name="another")),
    ),
    "Windows": replace(
        workstation(),
        machine=replace(workstation().machine, platform="Windows 11 AMD64"),
        environ={"CUDA_VISIBLE_DEVICES": ""},
    ),
    "all packages gone": replace(workstation(), libraries={}, onnxruntime=NO_ORT),
    "bare laptop": replace(laptop(), libraries={}, onnxruntime=NO_ORT),
    "onnxruntime broken": replace(workstation(), onnxruntime=BROKEN_ORT),
    "all trials failed": replace(workstation(), trials=dict.fromkeys(workstation().trials, FAILED)),
    "laptop, all failed": replace(laptop(), trials=dict.fromkeys(laptop().trials, FAILED)),
}


@pytest.mark.parametrize("facts", MACHINES.values(), ids=MACHINES)
def test_whatever_is_not_ready_says_what_mends_it(facts: Facts) -> None:
    report = judge(facts)
    for item in (*report.engines, *report.commands):
        assert item.ready or item.lacks[0].mend, item
    for conflict in report.conflicts:
        assert conflict.mend, conflict
    lines = [line for c in report.conflicts for line in c.mend]
    lines += [
        line
        for item in (*report.engines, *report.commands)
        for lack in item.lacks
        for line in lack.mend
    ]
    for line in lines:
        assert re.match(r"(# |pip |python |sshr-export|unset |export \w+=|set \w+=)", line), line
    # pyproject.toml: [gpu] is not beside [cpu], [rtx] or [export].
    here = {line for line in lines if line.startswith("pip install 'sshr-deploy[")}
    extras = {line.split("[")[1].split("]")[0] for line in here}
    assert "gpu" not in extras or not extras & {"cpu", "rtx", "export"}, here


def test_packages_are_those_of_the_extras(repo_root: Path) -> None:
    extras = tomllib.loads((repo_root / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for name, packages in COMMAND_PACKAGES.items():
        wanted = {line.split(">")[0].split("=")[0] for line in extras[name]}
        assert set(packages) == wanted - {"onnxruntime"}
