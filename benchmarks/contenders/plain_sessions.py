"""ONNX Runtime and OpenVINO as their own guides open a graph: nothing chosen, nothing tuned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.errors import SessionError, first_line
from sshr_deploy.geometry import Geometry
from sshr_deploy.precision import Precision
from sshr_deploy.runtime.contract import INPUT_NAME, OUTPUT_NAMES, CamBatch, SessionInfo
from sshr_deploy.runtime.machine.gpus import first_gpu
from sshr_deploy.runtime.machine.processor import processor_name
from sshr_deploy.runtime.sessions.base import BaseSession
from sshr_deploy.runtime.sessions.onnxruntime.providers import CPU_PROVIDER
from sshr_deploy.runtime.sessions.onnxruntime.session import import_onnxruntime
from sshr_deploy.runtime.sessions.openvino import library_text, openvino_core
from sshr_deploy.runtime.sessions.parts import Part, lap


class PlainOnnxSession(BaseSession):
    """`onnxruntime.InferenceSession(graph, providers=[provider])`, and no other option.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        SessionError: it cannot open the graph, or takes another provider.
    """

    def __init__(
        self, graph: Path, precision: Precision, geometry: Geometry, provider: str = CPU_PROVIDER
    ) -> None:
        ort = import_onnxruntime()
        if provider not in ort.get_available_providers():
            raise SessionError(f"this onnxruntime has no {provider}")
        try:
            self._session: Any = ort.InferenceSession(str(graph), providers=[provider])
        except Exception as error:  # ONNX Runtime has no common base class of its errors
            raise SessionError(f"onnxruntime cannot open {graph}: {first_line(error)}") from error
        if self._session.get_providers()[0] != provider:
            raise SessionError(f"{provider} does not start here")
        self.geometry = geometry
        self.info = SessionInfo(
            engine="plain onnxruntime",
            precision=precision,
            device=processor_name() if provider == CPU_PROVIDER else first_gpu().name,
            library=f"onnxruntime {ort.__version__}",
        )

    def _compute(self, patches: NDArray[np.uint8]) -> CamBatch:
        if self._session is None:
            raise SessionError("the session is closed; open it again")
        lap(Part.COPY_IN)
        try:
            outputs = self._session.run(list(OUTPUT_NAMES), {INPUT_NAME: patches})
        except Exception as error:  # ONNX Runtime has no common base class of its errors
            raise SessionError(f"{self.info.library} failed: {first_line(error)}") from error
        lap(Part.ENGINE)
        return CamBatch(*outputs)

    def close(self) -> None:
        """See `Session.close`."""
        self._session = None


class PlainOpenVinoSession(BaseSession):
    """`compile_model(graph, "CPU")` of an `openvino.Core`, and no other option.

    Raises:
        MissingExtraError: openvino is not installed.
        SessionError: it cannot compile the graph.
    """

    def __init__(self, graph: Path, precision: Precision, geometry: Geometry) -> None:
        try:
            self._compiled: Any = openvino_core().compile_model(str(graph), "CPU")
        except RuntimeError as error:
            raise SessionError(f"openvino cannot compile {graph}: {first_line(error)}") from error
        self.geometry = geometry
        self.info = SessionInfo("plain openvino", precision, processor_name(), library_text())

    def _compute(self, patches: NDArray[np.uint8]) -> CamBatch:
        if self._compiled is None:
            raise SessionError("the session is closed; open it again")
        lap(Part.COPY_IN)
        try:
            outputs = self._compiled({INPUT_NAME: patches})
        except RuntimeError as error:
            raise SessionError(f"{self.info.library} failed: {first_line(error)}") from error
        lap(Part.ENGINE)
        return CamBatch(*(np.array(outputs[name]) for name in OUTPUT_NAMES))

    def close(self) -> None:
        """See `Session.close`."""
        self._compiled = None
