"""Installed parts and settings that do not go together."""

from __future__ import annotations

import re
from collections.abc import Iterator

from sshr_deploy.errors import SessionError
from sshr_deploy.runtime.doctor.drivers import (
    FIRST_SM_OF_CUDA_12_9,
    KERNELS_DRIVER,
    driver_for,
    driver_major,
    driver_mend,
    onnxruntime_cuda,
)
from sshr_deploy.runtime.doctor.probe import PROVIDERS
from sshr_deploy.runtime.doctor.report import Conflict, Facts
from sshr_deploy.runtime.doctor.trials import RTX_PLUGIN, has_rtx_plugin
from sshr_deploy.runtime.kernels.manifest import sm_text
from sshr_deploy.runtime.machine.gpus import Gpu, first_visible
from sshr_deploy.runtime.sessions.tensorrt.library import rtx_refusal

GPU_ENGINES = ("tensorrt", "tensorrt-rtx", "onnx-tensorrt", "onnx-rtx", "onnx-cuda")
ORT_TENSORRT_MAJOR = "10"
"""Of the library that ONNX Runtime's TensorRT provider is linked with."""
RTX_MEND = ("# no command can: use --engine tensorrt, onnx-cuda or onnx-cpu on this GPU",)
"""Where TensorRT-RTX does not take the GPU."""
_ENGINE_OF_PACKAGE = {
    "tensorrt": "tensorrt",
    "tensorrt-rtx": "tensorrt-rtx",
    RTX_PLUGIN: "onnx-rtx",
}
"""Of packages whose names go on with the version of CUDA, "-cu13"."""
_TELEMETRY_OFF = ("1", "true", "yes", "y", "on")
"""What onnxruntime 1.32 takes for yes, in any case; "0", "" and all else leave it on (tried)."""
NVIDIA_INDEX = "--extra-index-url https://pypi.nvidia.com"
"""For pip: where TensorRT's libraries are."""


def find_conflicts(facts: Facts) -> tuple[Conflict, ...]:
    """All that `facts` show, those that stop an engine first."""
    found = [
        *_two_onnxruntimes(facts),
        *_tensorrt_without_libraries(facts),
        *_tensorrt_of_another_major(facts),
        *_gpu_not_on_list(facts),
        *_old_driver(facts),
        *_old_driver_for_kernels(facts),
        *_hidden_gpus(facts),
        *_another_first_gpu(facts),
        *_telemetry(facts),
    ]
    return tuple(sorted(found, key=lambda conflict: not conflict.breaks))


def rtx_refuses(facts: Facts) -> str | None:
    """Why TensorRT-RTX does not take the GPU that would be used; None where it may."""
    if facts.went_well("cuda"):
        opened = facts.trials["cuda"].facts
        return rtx_refusal(opened["name"], opened["sm"])
    first = _first_gpu(facts)
    return rtx_refusal(first.name, first.sm) if isinstance(first, Gpu) else None


def _first_gpu(facts: Facts) -> Gpu | str | None:
    """The GPU that `infer` takes for CUDA's first, or why it takes none; None without any GPU."""
    try:
        visible = facts.environ.get("CUDA_VISIBLE_DEVICES")
        return first_visible(facts.gpus, visible) if facts.gpus else None
    except SessionError as error:
        return str(error)


def _two_onnxruntimes(facts: Facts) -> Iterator[Conflict]:
    ort = facts.onnxruntime
    if len(ort.packages) < 2:
        return
    which = f"the files of {ort.package} are there" if ort.package else "it does not import"
    packages = " and ".join(f"{name} {facts.libraries[name]}" for name in ort.packages)
    yield Conflict(
        "two-onnxruntimes",
        f"{packages} own the same module; {which}, and removing one breaks the other",
        (
            f"pip uninstall -y {' '.join(ort.packages)}",
            f"pip install 'sshr-deploy[{'gpu' if facts.gpus else 'cpu'}]'",
        ),
        (),
    )


def _tensorrt_without_libraries(facts: Facts) -> Iterator[Conflict]:
    error = facts.trial_error("tensorrt-import")
    if error is not None:
        yield Conflict(
            "tensorrt-without-libraries",
            f"tensorrt {facts.libraries['tensorrt']} is installed and does not start: {error}; "
            "its libraries come from NVIDIA's own index",
            (f"pip install --force-reinstall {NVIDIA_INDEX} 'sshr-deploy[tensorrt]'",),
            ("tensorrt",),
        )


def _tensorrt_of_another_major(facts: Facts) -> Iterator[Conflict]:
    version = facts.libraries.get("tensorrt")
    if version is None or "TensorrtExecutionProvider" not in facts.onnxruntime.providers:
        return
    if version.partition(".")[0] != ORT_TENSORRT_MAJOR and not facts.went_well("onnx-tensorrt"):
        yield Conflict(
            "tensorrt-of-another-major",
            f"the TensorRT provider of onnxruntime needs TensorRT {ORT_TENSORRT_MAJOR}, "
            f"tensorrt {version} is installed; onnx-cuda and tensorrt do without it",
            (f"pip install {NVIDIA_INDEX} 'tensorrt>=10.16,<11'",),
            ("onnx-tensorrt",),
        )


def _gpu_not_on_list(facts: Facts) -> Iterator[Conflict]:
    reason = rtx_refuses(facts)
    installed = "tensorrt-rtx" in facts.libraries or has_rtx_plugin(facts.libraries)
    if reason is not None and installed:
        yield Conflict("gpu-not-on-rtx-list", reason, RTX_MEND, ("tensorrt-rtx", "onnx-rtx"))


def _old_driver(facts: Facts) -> Iterator[Conflict]:
    major = driver_major(facts)
    if major is None:
        return
    driver = facts.gpus[0].driver
    for what, cuda, engines in _built_for(facts):
        needs = driver_for(cuda)
        # Forward compatibility packages let older drivers run it, which only a run can show.
        ran = {name for name in PROVIDERS if facts.went_well(name)}
        stopped = tuple(name for name in engines if name not in ran)
        if major < needs and stopped:
            yield Conflict(
                "old-driver",
                f"{what} is built for CUDA {cuda}, which needs driver {needs} or newer; "
                f"driver {driver} is installed: update NVIDIA's driver",
                (driver_mend(needs),),
                stopped,
            )


def _old_driver_for_kernels(facts: Facts) -> Iterator[Conflict]:
    first, major = _first_gpu(facts), driver_major(facts)
    if not isinstance(first, Gpu) or major is None or first.sm < FIRST_SM_OF_CUDA_12_9:
        return
    if major < KERNELS_DRIVER:
        yield Conflict(
            "old-driver-for-kernels",
            f"the precompiled kernels for SM {sm_text(first.sm)} are assembled by CUDA 12.9, which "
            f"needs driver {KERNELS_DRIVER} or newer; driver {first.driver} is installed: update "
            "NVIDIA's driver, or the CPU makes the label maps",
            (driver_mend(KERNELS_DRIVER),),
            (),
        )


def _built_for(facts: Facts) -> Iterator[tuple[str, int, tuple[str, ...]]]:
    """What is built for which major version of CUDA, and the engines that it serves."""
    if (cuda := onnxruntime_cuda(facts)) is not None:
        ort, package = facts.onnxruntime, "onnxruntime-gpu"
        what = f"{ort.package or package} {ort.version or facts.libraries[package]}"
        yield what, cuda, ("onnx-cuda", "onnx-tensorrt")
    for name, version in facts.libraries.items():
        match = re.fullmatch(r"(.+)-cu(\d+)", name)
        if match and match[1] in _ENGINE_OF_PACKAGE:
            yield f"{name} {version}", int(match[2]), (_ENGINE_OF_PACKAGE[match[1]],)


def _hidden_gpus(facts: Facts) -> Iterator[Conflict]:
    if isinstance(reason := _first_gpu(facts), str):
        mend = (_unset(facts, "CUDA_VISIBLE_DEVICES"),)
        yield Conflict("hidden-gpus", reason, mend, GPU_ENGINES)


def _another_first_gpu(facts: Facts) -> Iterator[Conflict]:
    first = _first_gpu(facts)
    if isinstance(first, Gpu) and facts.went_well("cuda"):
        used = facts.trials["cuda"].facts["name"]
        order = facts.environ.get("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
        fix = (
            "choose one by its UUID in CUDA_VISIBLE_DEVICES"
            if order == "PCI_BUS_ID"
            else f"CUDA_DEVICE_ORDER is {order!r}, unset it, and choose by CUDA_VISIBLE_DEVICES"
        )
        if used != first.name:
            reason = f"CUDA's first GPU is {used}, the driver's is {first.name}; {fix}"
            choose = _set(facts, "CUDA_VISIBLE_DEVICES", first.uuid or str(first.index))
            by_bus = order == "PCI_BUS_ID"
            mend = (choose,) if by_bus else (_unset(facts, "CUDA_DEVICE_ORDER"), choose)
            yield Conflict("another-first-gpu", reason, mend, ())


def _telemetry(facts: Facts) -> Iterator[Conflict]:
    value = facts.environ.get("ORT_DISABLE_TELEMETRY")
    if facts.onnxruntime.packages and value and value.lower() not in _TELEMETRY_OFF:
        yield Conflict(
            "telemetry-on",
            f"ORT_DISABLE_TELEMETRY is {value!r}, with which onnxruntime 1.29 and later keeps a "
            "device id and sends events to Microsoft; unset it (sshr-deploy then sets it to 1)",
            (_unset(facts, "ORT_DISABLE_TELEMETRY"),),
            (),
        )


def _unset(facts: Facts, name: str) -> str:
    """For the shell of the machine: sh, or Windows' cmd."""
    return f"set {name}=" if facts.on_windows else f"unset {name}"


def _set(facts: Facts, name: str, value: str) -> str:
    return f"{'set' if facts.on_windows else 'export'} {name}={value}"
