"""Each conflict is found where it is, with what mends it, and not where it is not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sshr_deploy.runtime.doctor.conflicts import GPU_ENGINES, find_conflicts
from sshr_deploy.runtime.doctor.report import Answer, Conflict, Facts
from sshr_deploy.runtime.engines.kinds import ENGINES
from tests.runtime.doctor.machines import (
    H100,
    RTX,
    cuda_answer,
    laptop,
    with_packages,
    with_trials,
    workstation,
)

FAILED = Answer({}, "it fell back to CPUExecutionProvider")


def the_only(facts: Facts) -> Conflict:
    (conflict,) = find_conflicts(facts)
    return conflict


def test_healthy_machines_have_none() -> None:
    assert find_conflicts(workstation()) == ()
    assert find_conflicts(laptop()) == ()


def test_gpu_engines_are_all_but_the_cpu() -> None:
    assert {*GPU_ENGINES, "onnx-cpu"} == set(ENGINES)


def test_both_onnxruntimes() -> None:
    facts = with_packages(workstation(), onnxruntime="1.32.0")
    both = replace(facts.onnxruntime, packages=("onnxruntime", "onnxruntime-gpu"))
    conflict = the_only(replace(facts, onnxruntime=both))
    assert conflict.name == "two-onnxruntimes"
    assert "onnxruntime 1.32.0 and onnxruntime-gpu 1.31.1 own the same module" in conflict.reason
    assert "the files of onnxruntime-gpu are there" in conflict.reason
    assert conflict.mend == (
        "pip uninstall -y onnxruntime onnxruntime-gpu",
        "pip install 'sshr-deploy[gpu]'",
    )
    assert conflict.breaks == ()
    without_gpu = replace(facts, onnxruntime=both, gpus=())
    assert the_only(without_gpu).mend[1] == "pip install 'sshr-deploy[cpu]'"


def test_tensorrt_without_its_libraries() -> None:
    error = Answer({}, "libnvinfer.so.10: cannot open shared object file")
    conflict = the_only(with_trials(workstation(), tensorrt_import=error, tensorrt=error))
    assert (conflict.name, conflict.breaks) == ("tensorrt-without-libraries", ("tensorrt",))
    assert "tensorrt 10.16.1.11 is installed and does not start: libnvinfer.so.10" in (
        conflict.reason
    )
    assert "https://pypi.nvidia.com" in conflict.mend[0]


def test_the_provider_needs_tensorrt_10() -> None:
    facts = with_packages(workstation(), tensorrt="11.4.0.106")
    assert find_conflicts(facts) == ()  # another one was found: it runs
    conflict = the_only(with_trials(facts, onnx_tensorrt=FAILED))
    assert (conflict.name, conflict.breaks) == ("tensorrt-of-another-major", ("onnx-tensorrt",))
    assert "needs TensorRT 10, tensorrt 11.4.0.106 is installed" in conflict.reason
    assert "'tensorrt>=10.16,<11'" in conflict.mend[0]
    assert find_conflicts(with_trials(workstation(), onnx_tensorrt=FAILED)) == ()


def test_a_gpu_that_tensorrt_rtx_does_not_list() -> None:
    conflict = the_only(workstation(H100))
    assert conflict.name == "gpu-not-on-rtx-list"
    assert conflict.mend == (
        "# no command can: use --engine tensorrt, onnx-cuda or onnx-cpu on this GPU",
    )
    assert conflict.breaks == ("tensorrt-rtx", "onnx-rtx")
    assert "H100 80GB HBM3 has SM 9.0" in conflict.reason
    assert "8.0, 8.6, 8.9, 12.0, 12.1" in conflict.reason
    plugin_alone = with_packages(workstation(H100), tensorrt_rtx=None)
    assert the_only(plugin_alone).name == "gpu-not-on-rtx-list"
    neither = with_packages(plugin_alone, onnxruntime_ep_nv_tensorrt_rtx_cu13=None)
    assert find_conflicts(neither) == ()


@pytest.mark.parametrize(
    ("driver", "stopped"),
    [
        ("575.64.03", {"onnx-cuda", "onnx-tensorrt", "onnx-rtx", "tensorrt", "tensorrt-rtx"}),
        ("580.65.06", set()),
        ("unknown", set()),
    ],
)
def test_an_old_driver(driver: str, stopped: set[str]) -> None:
    facts = with_trials(
        workstation(replace(RTX, driver=driver)),
        onnx_cuda=FAILED,
        onnx_tensorrt=FAILED,
        onnx_rtx=FAILED,
    )
    found = find_conflicts(facts)
    assert {name for conflict in found for name in conflict.breaks} == stopped
    if stopped:
        assert {conflict.name for conflict in found} == {"old-driver"}
        assert "onnxruntime-gpu 1.31.1 is built for CUDA 13, which needs driver 580 or newer" in (
            found[0].reason
        )
        assert f"driver {driver} is installed" in found[0].reason
        newer = "# install driver 580 or newer: https://www.nvidia.com/drivers"
        assert {conflict.mend for conflict in found} == {(newer,)}


def test_an_old_driver_is_enough_for_an_older_cuda_or_where_it_was_seen_to_run() -> None:
    facts = workstation(replace(RTX, driver="550.120"))
    for package in ("tensorrt-cu13", "tensorrt-rtx-cu13"):
        facts = with_packages(facts, **{package: None})
    assert find_conflicts(facts) == ()  # all providers ran
    failed = with_trials(facts, onnx_cuda=FAILED)
    assert the_only(failed).breaks == ("onnx-cuda",)
    cuda_12 = replace(failed.onnxruntime, cuda="12.8")
    assert find_conflicts(replace(failed, onnxruntime=cuda_12)) == ()


@pytest.mark.parametrize(
    ("value", "hidden"),
    [("-1", True), ("", True), (" ", True), ("1,0", True), ("MIG-1", True), ("0", False)],
)
def test_hidden_gpus(value: str, hidden: bool) -> None:
    facts = replace(workstation(), environ={"CUDA_VISIBLE_DEVICES": value})
    names = [conflict.name for conflict in find_conflicts(facts)]
    assert names == (["hidden-gpus"] if hidden else [])
    if hidden:
        assert the_only(facts).breaks == GPU_ENGINES
        assert the_only(facts).mend == ("unset CUDA_VISIBLE_DEVICES",)
        assert f"CUDA_VISIBLE_DEVICES is {value.strip()!r}, " in the_only(facts).reason


TWO = (replace(RTX, name="NVIDIA T400"), replace(RTX, index=1, uuid="GPU-1f"))


@pytest.mark.parametrize(
    ("environ", "fix"),
    [
        ({}, "NVIDIA T400; choose one by its UUID in CUDA_VISIBLE_DEVICES"),
        (
            {"CUDA_DEVICE_ORDER": "FASTEST_FIRST"},
            "NVIDIA T400; CUDA_DEVICE_ORDER is 'FASTEST_FIRST', unset it, and choose",
        ),
        ({"CUDA_VISIBLE_DEVICES": "1"}, None),
        ({"CUDA_VISIBLE_DEVICES": "GPU-1f"}, None),
    ],
)
def test_cuda_may_count_otherwise(environ: dict[str, str], fix: str | None) -> None:
    facts = replace(workstation(), gpus=TWO, environ=environ)
    if fix is None:  # it is the one that was chosen
        assert find_conflicts(facts) == ()
        return
    conflict = the_only(facts)
    assert (conflict.name, conflict.breaks) == ("another-first-gpu", ())
    assert fix in conflict.reason
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID" not in conflict.reason  # `infer` sets that itself
    unset = ("unset CUDA_DEVICE_ORDER",) if environ else ()
    assert conflict.mend == (*unset, "export CUDA_VISIBLE_DEVICES=0")


def test_the_list_is_asked_for_the_gpu_that_is_chosen() -> None:
    facts = replace(workstation(), gpus=(RTX, replace(H100, index=1)))
    facts = with_trials(replace(facts, environ={"CUDA_VISIBLE_DEVICES": "1"}), cuda=None)
    assert the_only(facts).name == "gpu-not-on-rtx-list"
    assert find_conflicts(replace(facts, environ={})) == ()


def test_the_list_is_asked_for_the_gpu_that_cuda_opens() -> None:
    facts = with_trials(workstation(), cuda=cuda_answer(H100))
    assert [conflict.name for conflict in find_conflicts(facts)] == [
        "gpu-not-on-rtx-list",
        "another-first-gpu",
    ]


@pytest.mark.parametrize(
    ("value", "on"),
    [("0", True), ("", False), ("false", True), ("1", False), ("TRUE", False), (None, False)],
)
def test_telemetry(value: str | None, on: bool) -> None:
    environ = {} if value is None else {"ORT_DISABLE_TELEMETRY": value}
    names = [conflict.name for conflict in find_conflicts(replace(laptop(), environ=environ))]
    assert names == (["telemetry-on"] if on else [])
    if on:
        windows = replace(laptop().machine, platform="Windows 11 AMD64")
        facts = replace(laptop(), environ=environ)
        assert the_only(facts).mend == ("unset ORT_DISABLE_TELEMETRY",)
        assert the_only(replace(facts, machine=windows)).mend == ("set ORT_DISABLE_TELEMETRY=",)


def test_what_stops_an_engine_comes_first() -> None:
    facts = replace(workstation(H100), environ={"ORT_DISABLE_TELEMETRY": "0"})
    both = replace(facts.onnxruntime, packages=("onnxruntime-gpu", "onnxruntime-gpu"))
    names = [conflict.name for conflict in find_conflicts(replace(facts, onnxruntime=both))]
    assert names == ["gpu-not-on-rtx-list", "two-onnxruntimes", "telemetry-on"]
