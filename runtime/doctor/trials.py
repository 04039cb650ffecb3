"""Makes the trials of `probe`, each in a process of its own, a few at a time."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from sshr_deploy.errors import one_line
from sshr_deploy.runtime.doctor.probe import MARK
from sshr_deploy.runtime.doctor.report import Answer, OnnxRuntime
from sshr_deploy.runtime.engines.kind import EngineKind, Package
from sshr_deploy.runtime.engines.kinds import KINDS
from sshr_deploy.runtime.machine.child_process import run_child

TIMEOUT_S = 120.0
"""For each; a first import from a slow disk takes most of a minute."""
ORT_PACKAGES = (
    "onnxruntime", "onnxruntime-gpu", "onnxruntime-trt-rtx", "onnxruntime-directml",
    "onnxruntime-openvino", "onnxruntime-training", "onnxruntime-migraphx", "onnxruntime-rocm",
    "onnxruntime-windowsml",
)  # fmt: skip
"""Packages that own the module `onnxruntime`."""
INFER_MODULES = ("PIL", "cv2", "imagecodecs", "openslide", "pydicom", "tifffile")
"""Packages that every run needs; installed with sshr-deploy itself."""
EXTRA_PACKAGES = ("safetensors", "onnx", "ml-dtypes", "onnxscript", "tensorboard", "matplotlib")
"""Packages of `export` and `train` beside torch; their modules have "_" for "-"."""
_MODULE = "sshr_deploy.runtime.doctor.probe"
_AT_A_TIME = 3  # they spend their time reading files


def ask(probe: str, *arguments: str, timeout_s: float = TIMEOUT_S) -> Answer:
    """Make one trial; whatever becomes of its process is in the answer."""
    command = [sys.executable, "-P", "-m", _MODULE, probe, *arguments]
    environ = {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # as for `infer`, unless the user's says otherwise
        **os.environ,
        "ORT_DISABLE_TELEMETRY": "1",
        "PYTHONIOENCODING": "utf-8",
    }
    try:
        code, out, err = run_child(command, timeout_s, environ)
    except subprocess.TimeoutExpired:
        return Answer({}, f"no answer in {timeout_s:g} s")
    except OSError as error:
        return Answer({}, f"{sys.executable} cannot be started: {error.strerror or error}")
    for line in out.splitlines():
        if line.startswith(MARK):
            result = json.loads(line.removeprefix(MARK))
            return Answer(result["facts"], _with_reason(result["error"], err))
    last = ([line.strip() for line in err.splitlines() if line.strip()] or ["it said nothing"])[-1]
    return Answer({}, f"its process ended with {_exit_text(code)}: {one_line(last)[:200]}")


def try_everything(
    libraries: Mapping[str, str], *, with_gpu: bool, timeout_s: float = TIMEOUT_S
) -> tuple[OnnxRuntime, dict[str, Answer]]:
    """Try what is installed, and what needs a GPU only where there is one.

    Returns:
        The module `onnxruntime`, and answers by name: engines, "cuda", "infer", "extras", "torch".
    """
    wanted: dict[str, tuple[str, ...]] = {"infer": ("modules", *INFER_MODULES)}
    extras = [name.replace("-", "_") for name in EXTRA_PACKAGES if name in libraries]
    if extras:
        wanted["extras"] = ("modules", *extras)
    if "torch" in libraries:
        wanted["torch"] = ("torch",)
    if with_gpu and {"cuda-core", "pycuda"} & libraries.keys():
        wanted["cuda"] = ("cuda",)
    for kind in KINDS:
        if isinstance(kind.runs_on, Package) and kind.package in libraries:
            wanted[kind.name] = ("library", kind.name)
        if kind.library is None or kind.library.package not in libraries:
            continue
        if not kind.library.builds_without_gpu:
            wanted[f"{kind.name}-import"] = ("tensorrt", kind.name)
        if with_gpu or kind.library.builds_without_gpu:
            wanted[kind.name] = ("builder", kind.name)
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        module = pool.submit(_try_module, libraries, timeout_s)
        futures = {
            name: pool.submit(ask, *probe, timeout_s=timeout_s) for name, probe in wanted.items()
        }
        ort = module.result()
        futures |= {
            kind.name: pool.submit(ask, "provider", kind.name, timeout_s=timeout_s)
            for kind in KINDS
            if (with_gpu or not kind.needs_gpu) and has_provider(kind, ort, libraries)
        }
        return ort, {name: future.result() for name, future in futures.items()}


def has_provider(kind: EngineKind, ort: OnnxRuntime, libraries: Mapping[str, str]) -> bool:
    """Whether it is an engine of ONNX Runtime whose provider is there, as a plug-in or built in."""
    if kind.provider is None:
        return False
    return kind.provider.name in ort.providers or has_plugin(kind, libraries)


def has_plugin(kind: EngineKind, libraries: Mapping[str, str]) -> bool:
    """Whether the package that brings its provider is installed; its name goes on "-cu13"."""
    package = None if kind.provider is None else kind.provider.package
    return package is not None and any(name.startswith(package) for name in libraries)


def _try_module(libraries: Mapping[str, str], timeout_s: float) -> OnnxRuntime:
    packages = tuple(name for name in ORT_PACKAGES if name in libraries)
    if not packages:
        return OnnxRuntime((), None, None, None, (), None)
    answer = ask("onnxruntime_module", timeout_s=timeout_s)
    if answer.error is not None:
        return OnnxRuntime(packages, None, None, None, (), answer.error)
    facts = answer.facts
    return OnnxRuntime(
        packages,
        facts["version"],
        facts["package"],
        facts["cuda"],
        tuple(facts["providers"]),
        None,
    )


def _with_reason(said: str | None, log: str) -> str | None:
    """An error, and what ONNX Runtime logged of a library that it could not load."""
    if said is None:
        return None
    logged = re.search(r"Failed to load.*with error:? *(.+)", log)
    return one_line(f"{said}: {logged[1]}" if logged else said)[:400]


def _exit_text(code: int) -> str:
    """-11 -> "SIGSEGV"; others as they are, on Windows as its codes are written."""
    if code < 0:
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"
    return f"exit code {code}" if code < 256 else f"exit code {code:#x}"
