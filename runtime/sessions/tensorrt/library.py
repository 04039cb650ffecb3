"""TensorRT and TensorRT-RTX: one Python API under two names. All that differs is in `Library`."""

from __future__ import annotations

import importlib
from collections import deque
from dataclasses import dataclass
from typing import Any

from sshr_deploy.errors import MissingExtraError, SessionError, first_line
from sshr_deploy.runtime.kernels.manifest import sm_text


@dataclass(frozen=True)
class Library:
    """Where a library comes from, and what it has; what it has not warns, does nothing or fails."""

    module: str
    package: str
    """On PyPI."""
    extra: str
    """Of this project, that installs it."""
    timing_cache: bool = False
    version_compatible: bool = False
    """Engines that load with later releases of the same major version."""
    hardware_level: bool = False
    """Else its engines serve every GPU of its family anyway."""
    user_allocation: bool = False
    """Its engines have to be told at build time that the session gives them their memory, without
    which they cannot be captured in a CUDA graph."""
    builds_without_gpu: bool = False
    compiles_on_gpu: bool = False
    """Its engines hold kernels that are compiled on the GPU, and kept in a cache of their own."""
    int8_note: str = ""
    """Note in the report of an INT8 engine."""


RTX_SMS = (80, 86, 89, 120, 121)
"""SMs that TensorRT-RTX 1.7 lists (`ComputeCapability`), but 7.5: its engines are for 8.0 and later
unless it is told otherwise, and for 7.5 it has no FP32 matrix product, which the gate needs."""
_KEPT_LINES = 100


def import_tensorrt(library: Library) -> Any:
    """The library's module; needs neither a GPU nor a driver.

    Raises:
        MissingExtraError: it is not installed.
        SessionError: it is installed but does not start, such as without its shared libraries.
    """
    try:
        return importlib.import_module(library.module)
    except (ImportError, OSError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name == library.module:
            raise MissingExtraError(library.package, library.extra) from error
        raise SessionError(
            f"{library.package} cannot start: {first_line(error)}; "
            f"pip install --force-reinstall 'sshr-deploy[{library.extra}]'"
        ) from error


def library_text(library: Library, module: Any) -> str:
    """Library and version, "tensorrt-rtx 1.7.1.116"."""
    return f"{library.package} {module.__version__}"


def rtx_refusal(name: str, sm: int) -> str | None:
    """Why TensorRT-RTX does not take a GPU of this name and SM (89 for 8.9); None where it may."""
    if sm in RTX_SMS:
        return None
    listed = ", ".join(map(sm_text, RTX_SMS))
    return f"{name} has SM {sm_text(sm)}, TensorRT-RTX builds for {listed}; take another engine"


def context_config(library: Library, trt: Any, engine: Any) -> Any:
    """How execution contexts of `engine` are made: their memory is given by the caller."""
    config = engine.create_runtime_config()
    config.set_execution_context_allocation_strategy(
        trt.ExecutionContextAllocationStrategy.USER_MANAGED
    )
    if library.compiles_on_gpu:
        _compile_at_once(rtx=trt, rtx_config=config)
    return config


def _compile_at_once(rtx: Any, rtx_config: Any) -> None:
    # RTX would compile the kernels for a shape while slower ones stand in for them, and a CUDA
    # graph would hold on to those.
    strategies = rtx.DynamicShapesKernelSpecializationStrategy
    rtx_config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER


def error_logger(trt: Any) -> Any:
    """An `ILogger` that prints nothing and keeps the first lines of errors and of warnings.

    One logger must outlive all that was made with it.
    """

    class ErrorLogger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self._errors: deque[str] = deque(maxlen=_KEPT_LINES)
            self.warnings: deque[str] = deque(maxlen=_KEPT_LINES)

        def log(self, severity: Any, text: str) -> None:
            line = (text.strip() or "no text").splitlines()[0]
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self._errors.append(line)
            elif severity == trt.ILogger.Severity.WARNING:
                self.warnings.append(line)

        def last_errors(self, most: int = 1) -> str:
            """The latest errors, all of which this forgets; says so where there was none."""
            lines = list(self._errors)[-most:]
            self._errors.clear()
            return "; ".join(dict.fromkeys(lines)) or "no reason given"

    return ErrorLogger()
