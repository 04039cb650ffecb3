"""ONNX Runtime session: on the CPU everywhere, on NVIDIA GPUs by CUDA, TensorRT or TensorRT-RTX."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.errors import MissingExtraError, SessionError, first_line
from sshr_deploy.geometry import PATCH, Geometry
from sshr_deploy.runtime.contract import (
    INPUT_NAME,
    OUTPUT_NAMES,
    CamBatch,
    MaskRule,
    SessionInfo,
)
from sshr_deploy.runtime.machine.gpus import first_gpu, number_by_bus
from sshr_deploy.runtime.machine.processor import library_versions, processor_name
from sshr_deploy.runtime.machine.threads import threads_in_use
from sshr_deploy.runtime.sessions.base import BaseSession, Finish, Labels, check_tensors
from sshr_deploy.runtime.sessions.onnxruntime.binding import BoundRuns
from sshr_deploy.runtime.sessions.onnxruntime.opening import open_graph, provider_options
from sshr_deploy.runtime.sessions.onnxruntime.providers import (
    CPU,
    CPU_PROVIDER,
    Provider,
)
from sshr_deploy.runtime.sessions.parts import Part, lap
from sshr_deploy.runtime.settings import CPU_BATCH


class OnnxRuntimeSession(BaseSession):
    """Runs an SSHR graph of `num_classes` classes from an ONNX file; see `open_session`.

    Args:
        model_path: the graph; its weights beside it.
        num_classes: N of the graph.
        engine: its name, for `info`.
        provider: that computes.
        precision: of the graph, for `info`.
        batch: largest number of patches that a provider with TensorRT is built for; it gets more
            in parts.
        cache: existing folder where a provider with `cache_options` keeps what it built; None
            builds every time.
        more_options: of the provider, beside its own.
        geometry: of the graph's inputs.
        streams: calls at the same time on the CPU, between which its threads are shared out. A
            batch is computed in as many parts, and the next one is begun meanwhile. A single input
            is one call and has its share alone.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        SessionError: the provider is not there or fell back, the graph is not an SSHR bundle's, or
            it is not known which GPU runs it.
    """

    def __init__(
        self,
        model_path: Path,
        num_classes: int,
        *,
        engine: str = "onnx-cpu",
        provider: Provider = CPU,
        precision: str = "fp32",
        batch: int = CPU_BATCH,
        cache: Path | None = None,
        more_options: Mapping[str, str] | None = None,
        geometry: Geometry = PATCH,
        streams: int = 1,
    ) -> None:
        ort = import_onnxruntime()
        if provider.name != CPU_PROVIDER:
            number_by_bus()
        options = {**provider_options(provider, batch, cache, geometry), **(more_options or {})}
        session = open_graph(ort, model_path, provider, precision, options, streams)
        self.any_side = _check_graph(session, model_path, num_classes, geometry)
        self._session = session
        self.geometry = geometry
        self._classes = num_classes
        self._run: _Run | None = _runner(ort, session, provider, num_classes, geometry)
        self._limit = None if provider.prefix is None else batch
        self._streams, self._pool = streams, None
        if streams > 1:
            self._pool = ThreadPoolExecutor(streams, thread_name_prefix="infer")
            # The parts of two batches keep all streams busy; fields may come one by one.
            self.ahead = 1 if geometry.is_patch else streams
        self.info = SessionInfo(
            engine=engine,
            precision=precision,
            device=_device(provider),
            library=library_text(ort, provider),
            threads=_threads(provider),
            streams=streams if provider.name == CPU_PROVIDER else None,
        )

    def _start(self, patches: NDArray[np.uint8], rule: MaskRule | None) -> Finish:
        if self._pool is None:
            return super()._start(patches, rule)
        run = self._check_open()
        parts = np.array_split(patches, min(self._streams, len(patches)))
        return partial(self._joined, [self._pool.submit(run, part) for part in parts])

    def _joined(self, calls: Sequence[Future[Outputs]]) -> tuple[CamBatch, Labels | None]:
        self._check_open()
        with self._errors():
            return _together([call.result() for call in calls]), None

    def _compute(self, patches: NDArray[np.uint8]) -> CamBatch:
        run = self._check_open()
        size = self._limit or len(patches)
        with self._errors():
            parts = [run(patches[start : start + size]) for start in range(0, len(patches), size)]
        return _together(parts)

    def _check_open(self) -> _Run:
        if self._run is None:
            raise SessionError("the session is closed; open it again")
        return self._run

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # ONNX Runtime has no common base class of its errors
            raise SessionError(f"{self.info.library} failed: {first_line(error)}") from error

    def close(self) -> None:
        """See `Session.close`."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._run = None
        self._session = None


Outputs = Sequence[NDArray[np.float32]]
"""Arrays of `OUTPUT_NAMES`."""
_Run = Callable[[NDArray[np.uint8]], Outputs]


def _together(parts: Sequence[Outputs]) -> CamBatch:
    return CamBatch(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def import_onnxruntime() -> Any:
    """The onnxruntime module, with its telemetry off unless the user's environment turns it on.

    Releases from 1.29 on write a device id and events below the user's cache folder and send them
    to Microsoft; the switch works only before the import.

    Raises:
        MissingExtraError: onnxruntime is not installed.
    """
    if not os.environ.get("ORT_DISABLE_TELEMETRY"):  # an empty one would leave it on
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "cpu") from error
    return onnxruntime


def library_text(ort: Any, provider: Provider) -> str:
    """Library and version, and those of the installed packages that the provider runs on."""
    found = library_versions(provider.libraries)
    packages = (f"{package} {version}" for package, version in found.items())
    return ", ".join([f"onnxruntime {ort.__version__}", *packages])


def _runner(
    ort: Any, session: Any, provider: Provider, num_classes: int, geometry: Geometry
) -> _Run:
    if provider.buffers is not None:
        return BoundRuns(ort, session, num_classes, provider.buffers, geometry).run
    return partial(_run_in_place, session)


def _run_in_place(session: Any, patches: NDArray[np.uint8]) -> Sequence[NDArray[np.float32]]:
    """ONNX Runtime reads the patches where they are, and copies the results itself."""
    lap(Part.COPY_IN)
    found: Sequence[NDArray[np.float32]] = session.run(list(OUTPUT_NAMES), {INPUT_NAME: patches})
    lap(Part.ENGINE)
    return found


def _device(provider: Provider) -> str:
    return processor_name() if provider.name == CPU_PROVIDER else first_gpu().name


def _threads(provider: Provider) -> int | None:
    in_use = threads_in_use()
    return in_use.count if in_use is not None and provider.name == CPU_PROVIDER else None


def _check_graph(session: Any, path: Path, num_classes: int, geometry: Geometry) -> bool:
    inputs, outputs = (
        {tensor.name: (tensor.type, list(tensor.shape)[1:]) for tensor in tensors}
        for tensors in (session.get_inputs(), session.get_outputs())
    )
    types = ("tensor(uint8)", "tensor(float)")
    return check_tensors(path, num_classes, geometry, inputs, outputs, types=types)
