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
from sshr_deploy.runtime.doctor.report import Conflict, Facts
from sshr_deploy.runtime.doctor.trials import has_plugin, has_provider
from sshr_deploy.runtime.engines.kind import EngineKind
from sshr_deploy.runtime.engines.kinds import KINDS, NVIDIA_INDEX, ONNX_TENSORRT, TENSORRT
from sshr_deploy.runtime.kernels.manifest import sm_text
from sshr_deploy.runtime.machine.gpus import Gpu, first_visible

GPU_ENGINES = tuple(kind.name for kind in KINDS if kind.needs_gpu)
ORT_GPU_ENGINES = tuple(
    kind.name for kind in reversed(KINDS) if kind.provider is not None and kind.extra == "gpu"
)
"""Engines that run on onnxruntime-gpu."""
_ORT_TENSORRT_MAJOR = "10"
"""Of the library that ONNX Runtime's TensorRT provider is linked with."""
RTX_MEND = ("# no command can: use --engine tensorrt, onnx-cuda or onnx-cpu on this GPU",)
"""Where TensorRT-RTX does not take the GPU."""
_ENGINE_OF_PACKAGE = {kind.package: kind.name for kind in KINDS if kind.package is not None}
"""Of packages whose names go on with the version of CUDA, "-cu13"."""
_TELEMETRY_OFF = ("1", "true", "yes", "y", "on")
"""Words for yes of onnxruntime 1.32, in any case; "0", "" and all else leave it on (tried)."""


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


def gpu_refusal(kind: EngineKind, facts: Facts) -> str | None:
    """Why the engine does not take the GPU that would be used; None where it may."""
    if kind.refuses is None:
        return None
    if facts.went_well("cuda"):
        opened = facts.trials["cuda"].facts
        return kind.refuses(opened["name"], opened["sm"])
    first = _first_gpu(facts)
    return kind.refuses(first.name, first.sm) if isinstance(first, Gpu) else None


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
    error = facts.trial_error(f"{TENSORRT.name}-import")
    if error is not None:
        yield Conflict(
            "tensorrt-without-libraries",
            f"tensorrt {facts.libraries[TENSORRT.name]} is installed and does not start: {error}; "
            "its libraries come from NVIDIA's own index",
            (f"pip install --force-reinstall {NVIDIA_INDEX} 'sshr-deploy[tensorrt]'",),
            (TENSORRT.name,),
        )


def _tensorrt_of_another_major(facts: Facts) -> Iterator[Conflict]:
    version, engine = facts.libraries.get(TENSORRT.name), ONNX_TENSORRT.name
    if version is None or not has_provider(ONNX_TENSORRT, facts.onnxruntime, facts.libraries):
        return
    if version.partition(".")[0] != _ORT_TENSORRT_MAJOR and not facts.went_well(engine):
        yield Conflict(
            "tensorrt-of-another-major",
            f"the TensorRT provider of onnxruntime needs TensorRT {_ORT_TENSORRT_MAJOR}, "
            f"tensorrt {version} is installed; onnx-cuda and tensorrt do without it",
            ONNX_TENSORRT.mend,
            (engine,),
        )


def _gpu_not_on_list(facts: Facts) -> Iterator[Conflict]:
    refused = [kind for kind in KINDS if gpu_refusal(kind, facts) is not None]
    there = facts.libraries
    if any(kind.package in there or has_plugin(kind, there) for kind in refused):
        reason, engines = gpu_refusal(refused[0], facts), tuple(kind.name for kind in refused)
        yield Conflict("gpu-not-on-rtx-list", str(reason), RTX_MEND, engines)


def _old_driver(facts: Facts) -> Iterator[Conflict]:
    major = driver_major(facts)
    if major is None:
        return
    driver = facts.gpus[0].driver
    for what, cuda, engines in _built_for(facts):
        needs = driver_for(cuda)
        # Forward compatibility packages let older drivers run it, which only a run can show.
        ran = {kind.name for kind in KINDS if kind.provider and facts.went_well(kind.name)}
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
    """Packages, the major version of CUDA that each is built for, and the engines it serves."""
    if (cuda := onnxruntime_cuda(facts)) is not None:
        ort, package = facts.onnxruntime, "onnxruntime-gpu"
        what = f"{ort.package or package} {ort.version or facts.libraries[package]}"
        yield what, cuda, ORT_GPU_ENGINES
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
