"""The trials; each runs in a process of its own, `python -m ...probe NAME ARGUMENT`.

A library that is broken may print, hang or end its process, and none of that may take the doctor
down. The result is one line on stdout that starts with `MARK`, whatever a library prints beside it.
Libraries are imported inside the trials, so that each answers for its own.
"""

from __future__ import annotations

import base64
import importlib
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sshr_deploy.errors import SessionError, first_line
from sshr_deploy.runtime.engines.kinds import find_kind
from sshr_deploy.runtime.sessions.tensorrt.library import Library

MARK = "sshr-deploy-probe:"
ONE_CONVOLUTION = base64.b64decode(
    "CAcSADqWAQoiCgF4CgF3EgF5IgRDb252KhEKBHBhZHNAAUABQAFAAaABBxIBZyozCAEIAQgDCAMQASIkAACAPwAA"
    "gD8AAIA/AACAPwAAgD8AAIA/AACAPwAAgD8AAIA/QgF3WhsKAXgSFgoUCAESEAoCCAEKAggBCgIIAwoCCANiGwoB"
    "eRIWChQIARIQCgIIAQoCCAEKAggDCgIIA0IECgAQDQ=="
)
"""An ONNX graph, x [1,1,3,3] -> y: the sum of each pixel's neighbourhood, with zeros around."""
_SUMS_OF_ONES = [[4, 6, 4], [6, 9, 6], [4, 6, 4]]


def onnxruntime_module() -> dict[str, Any]:
    """Which onnxruntime this is; a module of overwritten packages may import and be empty."""
    ort = importlib.import_module("onnxruntime")
    build = importlib.import_module("onnxruntime.capi.build_and_package_info")
    return {
        "version": ort.__version__,
        "package": build.package_name,
        "cuda": getattr(build, "cuda_version", None) or None,
        "providers": list(ort.get_available_providers()),
    }


def provider(engine: str) -> dict[str, Any]:
    """Run one convolution, opened as the sessions open the network."""
    import numpy as np

    from sshr_deploy.runtime.sessions.onnxruntime.opening import open_graph
    from sshr_deploy.runtime.sessions.onnxruntime.session import import_onnxruntime

    kind = find_kind(engine)
    assert kind is not None and kind.provider is not None
    wanted = kind.provider
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / "convolution.onnx"
        graph.write_bytes(ONE_CONVOLUTION)
        options = dict(wanted.options)
        session = open_graph(import_onnxruntime(), graph, wanted, "fp32", options)
        (sums,) = session.run(["y"], {"x": np.ones((1, 1, 3, 3), np.float32)})
    if not np.allclose(sums[0, 0], _SUMS_OF_ONES, rtol=1e-2):
        raise SessionError("it computes a convolution wrongly")
    return {}


def tensorrt(engine: str) -> dict[str, Any]:
    """Import the library of an engine that is built by one."""
    from sshr_deploy.runtime.sessions.tensorrt.library import library_text

    library = _library(engine)
    return {"library": library_text(library, importlib.import_module(library.module))}


def builder(engine: str) -> dict[str, Any]:
    """Make a builder; TensorRT-RTX can do that without a GPU, TensorRT cannot."""
    from sshr_deploy.runtime.sessions.tensorrt.library import error_logger, library_text

    library = _library(engine)
    trt = importlib.import_module(library.module)
    logger = error_logger(trt)
    try:
        trt.Builder(logger)
    except TypeError as error:  # what the bindings raise where the library gives none
        raise SessionError(f"no builder: {logger.last_errors()}") from error
    return {"library": library_text(library, trt)}


def _library(engine: str) -> Library:
    kind = find_kind(engine)
    assert kind is not None and kind.library is not None
    return kind.library


def library(engine: str) -> dict[str, Any]:
    """Import the library of an engine as its sessions do."""
    kind = find_kind(engine)
    assert kind is not None
    return {"library": kind.library_text()}


def cuda() -> dict[str, Any]:
    """Open the first CUDA device as the sessions do, and copy a byte there and back."""
    import numpy as np

    from sshr_deploy.runtime.cuda.opening import open_device

    with open_device() as device:
        memory = device.allocate(1)
        device.fill(memory, 7)
        if device.download(memory, np.uint8, (1,)) != 7:
            raise SessionError("the GPU gives back other bytes than it was sent")
        return {"name": device.name, "sm": device.sm, "library": device.library}


def modules(*names: str) -> dict[str, Any]:
    """Import modules in turn; "errors" says why each that failed did."""
    errors = {}
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:  # a broken module may raise anything
            errors[name] = first_line(error)
    return {"errors": errors}


def torch() -> dict[str, Any]:
    """Import PyTorch; "gpu" says whether it sees one, "cuda" what it was built for."""
    module = importlib.import_module("torch")
    return {"gpu": module.cuda.is_available(), "cuda": module.version.cuda}


PROBES: dict[str, Callable[..., dict[str, Any]]] = {
    probe.__name__: probe
    for probe in (onnxruntime_module, provider, tensorrt, builder, library, cuda, modules, torch)
}


def main(name: str, *arguments: str) -> None:
    """Make one trial and print what it brought."""
    result: dict[str, Any]
    try:
        result = {"facts": PROBES[name](*arguments), "error": None}
    except Exception as error:  # libraries have no common base class of their errors
        result = {"facts": {}, "error": first_line(error)}
    print(f"\n{MARK}{json.dumps(result)}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
