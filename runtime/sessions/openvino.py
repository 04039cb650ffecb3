"""OpenVINO session: on the processor, and on Intel's GPUs and NPUs by OpenVINO's device names.

Only the processor has been tried. `SSHR_OPENVINO_DEVICE` names another device, such as GPU, GPU.1
or NPU; what a device cannot compute it says itself, and its results are compared with the reference
like those of every engine.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.errors import MissingExtraError, SessionError, first_line
from sshr_deploy.geometry import PATCH, Geometry
from sshr_deploy.precision import Precision
from sshr_deploy.runtime.contract import (
    INPUT_NAME,
    OUTPUT_NAMES,
    CamBatch,
    SessionInfo,
)
from sshr_deploy.runtime.machine.processor import processor_flags, processor_name, processor_text
from sshr_deploy.runtime.machine.threads import threads_in_use
from sshr_deploy.runtime.sessions.base import BaseSession, check_tensors
from sshr_deploy.runtime.sessions.parts import Part, lap

DEVICE_VARIABLE = "SSHR_OPENVINO_DEVICE"
_CPU = "CPU"
_BF16_FLAGS = {"avx512_bf16", "amx_bf16"}
_TELEMETRY = "openvino_telemetry"
_HINTS: dict[str, str] = {Precision.FP32: "f32", Precision.BF16: "bf16", Precision.INT8: "f32"}
"""Type of what is not quantised; OpenVINO otherwise takes the fastest of the device."""
_CORE_LOCK = threading.Lock()


class OpenVinoSession(BaseSession):
    """Runs an SSHR graph of `num_classes` classes from an ONNX file; see `open_session`.

    Args:
        model_path: the graph; its weights beside it.
        num_classes: N of the graph.
        engine: its name, for `info`.
        precision: "fp32" or "bf16", computed of an FP32 graph, or "int8" of a quantised one.
        compiled: where the compiled network is kept: read if it is there, else written.
        geometry: of the graph's inputs.

    Raises:
        MissingExtraError: openvino is not installed.
        SessionError: the device does not compute in that precision or cannot be used, or the graph
            is not an SSHR bundle's.
    """

    def __init__(
        self,
        model_path: Path,
        num_classes: int,
        *,
        engine: str = "openvino",
        precision: str = "fp32",
        compiled: Path | None = None,
        geometry: Geometry = PATCH,
    ) -> None:
        device, threads = _device(), threads_in_use()
        library = library_text()
        with _errors(f"{library} on {_named(device)}"):
            core = openvino_core()
            count = threads.count if device == _CPU and threads is not None else None
            options = compile_options(precision, count)
            if precision == Precision.BF16:
                _check_bf16(core, device)
            network = _compiled(core, model_path, device, options, compiled)
            self.any_side = _check_graph(network, model_path, num_classes, geometry)
            self.geometry = geometry
            self._lock = threading.Lock()
            self._request: Any = network.create_infer_request()
        self.info = SessionInfo(
            engine=engine,
            precision=precision,
            device=processor_name() if device == _CPU else device_text(),
            library=library,
            threads=count,
        )

    def _compute(self, patches: NDArray[np.uint8]) -> CamBatch:
        if self._request is None:
            raise SessionError("the session is closed; open it again")
        with self._lock, _errors(f"{self.info.library} failed"):  # a request serves one call
            lap(Part.COPY_IN)
            outputs = self._request.infer({INPUT_NAME: patches}, share_inputs=True)
            lap(Part.ENGINE)
            return CamBatch(*(np.array(outputs[name]) for name in OUTPUT_NAMES))

    def close(self) -> None:
        """See `Session.close`."""
        self._request = None


def import_openvino() -> Any:
    """The openvino module, without its telemetry, which works from the import on.

    The import sends an event, and a client id that it keeps in the user's home, unless a file there
    forbids it. Where the package openvino-telemetry does not import, a stub takes its place.

    Raises:
        MissingExtraError: openvino is not installed.
        SessionError: it does not start.
    """
    there = sys.modules.get(_TELEMETRY)
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # makes its import fail
    try:
        import openvino

        openvino.get_version()  # which a folder of that name has not
    except Exception as error:  # whatever a broken installation raises
        if isinstance(error, ModuleNotFoundError) and error.name == "openvino":
            raise MissingExtraError("openvino", "openvino") from error
        raise SessionError(
            f"openvino cannot start: {first_line(error)}; "
            "pip install --force-reinstall 'sshr-deploy[openvino]'"
        ) from error
    finally:
        if there is None:
            del sys.modules[_TELEMETRY]
        else:
            sys.modules[_TELEMETRY] = there
    return openvino


def openvino_core() -> Any:
    """The process's one `openvino.Core`, never let go.

    On processors with AMX a Core sets its thread's alternate signal stack, and its end restores the
    one before. Of two that are let go in the order of their making the second restores the freed
    stack of the first, and the next signal, such as Ctrl-C, ends the process (2026.4).

    Raises:
        MissingExtraError: openvino is not installed.
        SessionError: it does not start.
    """
    ov = import_openvino()
    with _CORE_LOCK:
        return _core(ov)


def compile_options(precision: str, threads: int | None) -> dict[str, str]:
    """Of `compile_model`: the type to compute in, and threads of the processor (None: its choice).

    Raises:
        SessionError: OpenVINO has no such type.
    """
    if precision not in _HINTS:
        raise SessionError(f"openvino computes in {', '.join(_HINTS)}, not in {precision}")
    options = {"INFERENCE_PRECISION_HINT": _HINTS[precision]}
    return options if threads is None else {**options, "INFERENCE_NUM_THREADS": str(threads)}


def library_text() -> str:
    """Library and version, "openvino 2026.4.1-22982"."""
    return f"openvino {'-'.join(import_openvino().get_version().split('-')[:2])}"


def device_text() -> str:
    """The device that computes: the processor, or OpenVINO's name of another and what it is.

    Raises:
        SessionError: there is no such device.
    """
    device = _device()
    if device == _CPU:
        return processor_text()
    with _errors(f"{library_text()} on {_named(device)}"):
        return f"{device}, {openvino_core().get_property(device, 'FULL_DEVICE_NAME')}"


def computes(precision: Precision) -> bool:
    """Whether the processor has units for it; of other devices only opening them tells."""
    return precision in _HINTS and (
        precision is not Precision.BF16 or _device() != _CPU or _has_bf16()
    )


@cache
def _core(ov: Any) -> Any:
    return ov.Core()


def _has_bf16() -> bool:
    return bool(_BF16_FLAGS & (processor_flags() or set()))


def _device() -> str:
    return os.environ.get(DEVICE_VARIABLE) or _CPU


def _named(device: str) -> str:
    return device if device == _CPU else f"{device} (by {DEVICE_VARIABLE}; unset, it is {_CPU})"


def _check_bf16(core: Any, device: str) -> None:
    """Refuse it where the device has it not: OpenVINO would take FP32 instead and not say so."""
    if device == _CPU:
        has_bf16 = _has_bf16()
    else:
        has_bf16 = "BF16" in core.get_property(device, "OPTIMIZATION_CAPABILITIES")
    if not has_bf16:
        what = f"{processor_name()} has neither AVX-512 BF16 nor AMX"
        raise SessionError(
            f"{what if device == _CPU else f'{device} does not compute in bf16'}; "
            "choose another `precision`"
        )


def _compiled(
    core: Any, graph: Path, device: str, options: dict[str, str], kept: Path | None
) -> Any:
    if kept is not None and kept.exists():
        with _errors(f"{kept} cannot be used; remove {kept.parent}, then it is made again"):
            return core.import_model(kept.read_bytes(), device, options)
    network = core.compile_model(core.read_model(graph), device, options)
    if kept is not None:
        kept.write_bytes(network.export_model().getvalue())
    return network


def _check_graph(network: Any, path: Path, num_classes: int, geometry: Geometry) -> bool:
    inputs, outputs = (
        {
            tensor.any_name: (tensor.element_type.get_type_name(), _shape(tensor))
            for tensor in tensors
        }
        for tensors in (network.inputs, network.outputs)
    )
    return check_tensors(path, num_classes, geometry, inputs, outputs, types=("u8", "f32"))


def _shape(tensor: Any) -> list[int | None]:
    """Without the batch; None for a side that is not fixed."""
    sides = list(tensor.partial_shape)[1:]
    return [side.get_length() if side.is_static else None for side in sides]


@contextmanager
def _errors(what: str) -> Iterator[None]:
    try:
        yield
    except (SessionError, OSError):
        raise
    except Exception as error:  # OpenVINO raises RuntimeError and others of its own
        raise SessionError(f"{what}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """OpenVINO's last line says why; those before it are places in its source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else first_line(error)
