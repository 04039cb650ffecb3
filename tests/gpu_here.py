"""Which GPU libraries a test can count on: by what they offer here, not by whether they import."""

from __future__ import annotations

import importlib.util
import re
import warnings
from functools import cache
from importlib.metadata import distributions

from sshr_deploy.errors import SessionError
from sshr_deploy.runtime.engines.kinds import find_kind
from sshr_deploy.runtime.machine.gpus import Gpu, first_gpu

_MIN_DRIVER = {12: 525, 13: 580}
"""Major version of CUDA -> that of the driver on Linux.

Source: NVIDIA, CUDA Compatibility, "Minor Version Compatibility".
"""


@cache
def torch_has_a_gpu() -> bool:
    """Whether PyTorch is a CUDA build that finds a GPU whose driver is new enough for it."""
    import torch

    with warnings.catch_warnings():  # an old driver is a warning, and warnings are errors here
        warnings.simplefilter("ignore")
        return torch.cuda.is_available()


def why_not(engine: str) -> str:
    """Why "onnx-cuda", "tensorrt" or "tensorrt-rtx" cannot run here; empty where it should."""
    try:
        gpu = first_gpu()
    except SessionError as error:  # none, or hidden
        return str(error)
    if engine == "onnx-cuda":
        return _why_not_onnxruntime(gpu)
    kind = find_kind(engine)
    assert kind is not None and kind.library is not None
    library = kind.library
    if importlib.util.find_spec(library.module) is None:
        return f"{library.package} is not installed"
    refusal = None if kind.refuses is None else kind.refuses(gpu.name, gpu.sm)
    return refusal or _old_driver(library.package, _cuda_of(library.package), gpu)


def _why_not_onnxruntime(gpu: Gpu) -> str:
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return "this onnxruntime has no CUDAExecutionProvider"
    from onnxruntime.capi import build_and_package_info as build

    version = getattr(build, "cuda_version", "")
    return _old_driver("onnxruntime", int(version.partition(".")[0] or 0), gpu)


def _cuda_of(package: str) -> int:
    """Major version of CUDA that an installed package is for; 0 where its name does not say."""
    pattern = re.compile(package.replace("-", "[-_]") + r"[-_]cu(\d+)")
    names = (distribution.name for distribution in distributions())
    return max((int(m[1]) for name in names if (m := pattern.fullmatch(name))), default=0)


def _old_driver(what: str, cuda: int, gpu: Gpu) -> str:
    needed, there = _MIN_DRIVER.get(cuda, 0), gpu.driver.partition(".")[0]
    if there.isdecimal() and int(there) < needed:
        return f"{what} is for CUDA {cuda}: driver {needed} or later, not {gpu.driver}"
    return ""
