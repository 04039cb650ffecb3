"""TensorRT and TensorRT-RTX session: an engine file on an NVIDIA GPU, without ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.errors import KernelError, SessionError
from sshr_deploy.geometry import PATCH, Geometry
from sshr_deploy.runtime.contract import (
    CamBatch,
    MaskRule,
    SessionInfo,
)
from sshr_deploy.runtime.cuda.base import Device
from sshr_deploy.runtime.cuda.opening import open_device
from sshr_deploy.runtime.sessions.base import BaseSession, Finish, Labels
from sshr_deploy.runtime.sessions.device_masks import open_device_masks
from sshr_deploy.runtime.sessions.slots import SLOTS, Arrays, Slots
from sshr_deploy.runtime.sessions.tensorrt.engine import TensorRtEngine
from sshr_deploy.runtime.sessions.tensorrt.library import Library
from sshr_deploy.runtime.sessions.tensorrt.rtx_cache import RtxCache
from sshr_deploy.runtime.sessions.tensorrt.slot import TensorRtSlot, calls


class TensorRtSession(BaseSession):
    """Runs an engine of SSHR for `num_classes` classes; see `open_session`.

    It computes one batch of zeros when it opens, so that what cannot run is not opened.

    Args:
        engine_path: the file that the library serialised.
        num_classes: N.
        engine: its name, for the record.
        made_by: the library that serialised it.
        precision: of the engine, for the record.
        batches: batch sizes of the engine's static optimisation profiles, in their order. One more
            profile follows, for any batch from 1 to the largest of them.
        device: to run on, which stays open; CUDA device 0 by default.
        library: that drives the device, where it is opened here; see `open_device`.
        host_code: whether code that the engine brings may run in this process. A version-compatible
            engine needs it, as it brings its own runtime; the file may come from anywhere.
        runtime_cache: file for what TensorRT-RTX compiles; None to compile every time, and for
            TensorRT, which compiles nothing here.
        geometry: of the engine's inputs.

    Raises:
        MissingExtraError: the engine's library, or one that drives the device, is not installed.
        SessionError: the file or the GPU cannot be used, or the engine is not what was said.
    """

    info: SessionInfo
    ahead = SLOTS

    def __init__(
        self,
        engine_path: Path,
        num_classes: int,
        *,
        engine: str,
        made_by: Library,
        precision: str,
        batches: tuple[int, ...],
        device: Device | None = None,
        library: str = "auto",
        host_code: bool = False,
        runtime_cache: Path | None = None,
        geometry: Geometry = PATCH,
    ) -> None:
        self.geometry = geometry
        self._engine_name = engine
        self._batches = batches
        with self._errors(), ExitStack() as undo:
            if device is None:
                device = undo.enter_context(open_device(0, library))
            self._cache = None if runtime_cache is None else RtxCache(runtime_cache)
            self._engine = undo.enter_context(
                TensorRtEngine(
                    engine_path,
                    num_classes,
                    engine,
                    made_by,
                    batches,
                    host_code,
                    self._cache,
                    geometry,
                )
            )
            notes = [f"{name} was not used: {why}" for name, why in device.rejected.items()]
            masks = open_device_masks(device, num_classes) if geometry.is_patch else None
            if isinstance(masks, str):
                notes.append(f"no label maps on the GPU: {masks}")
            kernels = None if isinstance(masks, str) else masks
            self.labels_on_device = kernels is not None
            slots = [
                undo.enter_context(
                    TensorRtSlot(device, self._engine, num_classes, max(batches), kernels, geometry)
                )
                for _ in range(SLOTS)
            ]
            self._slots = Slots(slots, num_classes, geometry)
            self.info = SessionInfo(
                engine=engine,
                precision=precision,
                device=device.name,
                library=f"{self._engine.library}, {device.library}",
                notes=tuple(notes),
            )
            self._open, self._wants_graphs = True, True
            self.infer(np.zeros((max(batches), *geometry.input_shape()), np.uint8))
            self._save_cache()
            self._undo = undo.pop_all()

    @property
    def cuda_graphs(self) -> bool | None:
        """See `Session.cuda_graphs`; None once a call could not be captured, too."""
        return None if self._engine.why_no_graph else self._wants_graphs

    @cuda_graphs.setter
    def cuda_graphs(self, wanted: bool | None) -> None:
        self._wants_graphs = bool(wanted)

    def _start(self, patches: NDArray[np.uint8], rule: MaskRule | None) -> Finish:
        self._check_open()
        on_device = rule if self.labels_on_device else None
        self._engine.uses_graphs = self._wants_graphs
        with self._errors():
            results = self._slots.start(patches, on_device, calls(len(patches), self._batches))
        return partial(self._finish, results)

    def _finish(self, results: Arrays) -> tuple[CamBatch, Labels | None]:
        self._check_open()
        with self._errors():
            found = self._slots.finish(results)
        if self._engine.why_no_graph:
            self._note(f"no CUDA graph: {self._engine.why_no_graph}")
        return found

    def _save_cache(self) -> None:
        self._engine.save_cache()
        if self._cache is not None and self._cache.problem:
            self._note(self._cache.problem)

    def _note(self, note: str) -> None:
        if note not in self.info.notes:
            self.info = replace(self.info, notes=(*self.info.notes, note))

    def _check_open(self) -> None:
        if not self._open:
            raise SessionError("the session is closed; open it again")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except KernelError as error:
            raise SessionError(f"{self._engine_name} failed: {error}") from error

    def close(self) -> None:
        """See `Session.close`."""
        if self._open:
            self._open = False
            try:
                self._save_cache()  # the other profiles have been compiled meanwhile
            finally:
                with self._errors():
                    self._undo.close()
