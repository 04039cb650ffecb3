"""ONNX Runtime session: CPU everywhere, CUDA where its provider really starts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.errors import MissingExtraError, SessionError, first_line
from sshr_deploy.runtime.closing import Closing
from sshr_deploy.runtime.machine import processor_name
from sshr_deploy.runtime.sessions.session import (
    INPUT_NAME,
    OUTPUT_NAMES,
    PATCH_PX,
    CamBatch,
    SessionInfo,
    checked_cams,
    checked_patches,
)

PROVIDERS: dict[str, tuple[str, dict[str, str]]] = {
    "onnx-cpu": ("CPUExecutionProvider", {}),
    # TF32 is this provider's default; it keeps 10 bits of mantissa, which is not FP32.
    "onnx-cuda": ("CUDAExecutionProvider", {"use_tf32": "0"}),
}
"""Execution provider of each engine, and its options."""
_QUIET = 3  # ONNX Runtime log level: errors only


class OnnxRuntimeSession(Closing):
    """Runs an SSHR graph of `num_classes` classes from an ONNX file; see `open_session`.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        SessionError: the provider is not there or fell back, or the graph is not an SSHR bundle's.
    """

    info: SessionInfo

    def __init__(
        self,
        model_path: Path,
        num_classes: int,
        *,
        engine: str = "onnx-cpu",
        precision: str = "fp32",
    ) -> None:
        ort = import_onnxruntime()
        self._ort: Any = _open(ort, model_path, engine)
        _check_graph(self._ort, model_path, num_classes)
        self.info = SessionInfo(
            engine=engine,
            precision=precision,
            device=processor_name() if engine == "onnx-cpu" else "CUDA device 0",
            library=f"onnxruntime {ort.__version__}",
        )

    def infer(self, patches: NDArray[np.uint8]) -> CamBatch:
        """See `Session.infer`."""
        if self._ort is None:
            raise SessionError("the session is closed; open it again")
        try:
            outputs = self._ort.run(list(OUTPUT_NAMES), {INPUT_NAME: checked_patches(patches)})
        except SessionError:
            raise
        except Exception as error:  # ONNX Runtime has no common base class of its errors
            raise SessionError(f"{self.info.library} failed: {first_line(error)}") from error
        return checked_cams(CamBatch(*outputs), len(patches))

    def close(self) -> None:
        """See `Session.close`."""
        self._ort = None


def import_onnxruntime() -> Any:
    """The onnxruntime module, with its telemetry off unless the user's environment turns it on.

    Releases from 1.29 on write a device id and events below the user's cache folder and send them
    to Microsoft; the switch works only before the import.

    Raises:
        MissingExtraError: onnxruntime is not installed.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "cpu") from error
    return onnxruntime


def _open(ort: Any, path: Path, engine: str) -> Any:
    provider, provider_options = PROVIDERS[engine]
    if provider not in ort.get_available_providers():
        raise SessionError(f"this onnxruntime has no {provider}; pip install 'sshr-deploy[gpu]'")
    options = ort.SessionOptions()
    options.log_severity_level = _QUIET
    try:
        session = ort.InferenceSession(str(path), options, providers=[(provider, provider_options)])
    except Exception as error:  # ONNX Runtime has no common base class of its errors
        raise SessionError(f"onnxruntime cannot open {path}: {first_line(error)}") from error
    # Asked for a provider it cannot start, ONNX Runtime only logs and serves on the CPU.
    if session.get_providers()[0] != provider:
        raise SessionError(
            f"{provider} could not start here; "
            f"onnxruntime fell back to {session.get_providers()[0]}"
        )
    return session


def _check_graph(session: Any, path: Path, num_classes: int) -> None:
    inputs = {i.name: (i.type, list(i.shape)[1:]) for i in session.get_inputs()}
    outputs = {o.name: (o.type, list(o.shape)[1:]) for o in session.get_outputs()}
    wanted_inputs = {INPUT_NAME: ("tensor(uint8)", [PATCH_PX, PATCH_PX, 3])}
    cam = [num_classes, PATCH_PX // 8, PATCH_PX // 8]
    wanted_outputs = {
        name: ("tensor(float)", [num_classes] if name == "prob" else cam) for name in OUTPUT_NAMES
    }
    if inputs != wanted_inputs or outputs != wanted_outputs:
        raise SessionError(
            f"{path} holds a graph with inputs {inputs} and outputs {outputs}; "
            f"an SSHR graph of {num_classes} classes has {wanted_inputs} and {wanted_outputs}"
        )
