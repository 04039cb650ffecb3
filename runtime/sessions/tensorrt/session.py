"""TensorRT and TensorRT-RTX session: an engine file on an NVIDIA GPU, without ONNX Runtime."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.errors import KernelError, SessionError
from sshr_deploy.runtime.contract import (
    OUTPUT_NAMES,
    PATCH_PX,
    CamBatch,
    MaskBatch,
    MaskRule,
    SessionInfo,
    checked_cams,
    checked_patches,
)
from sshr_deploy.runtime.cuda.base import Device
from sshr_deploy.runtime.cuda.opening import open_device
from sshr_deploy.runtime.sessions.base import BaseSession
from sshr_deploy.runtime.sessions.device_masks import open_device_masks
from sshr_deploy.runtime.sessions.tensorrt.engine import PATCH_SHAPE, TensorRtEngine, output_shape
from sshr_deploy.runtime.sessions.tensorrt.library import Library
from sshr_deploy.runtime.sessions.tensorrt.rtx_cache import RtxCache
from sshr_deploy.runtime.sessions.tensorrt.slot import LABELS, Arrays, Slot, parts

SLOTS = 2
"""Batches in flight: one is computed while the other is copied and unpacked."""


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

    Raises:
        MissingExtraError: the engine's library, or one that drives the device, is not installed.
        SessionError: the file or the GPU cannot be used, or the engine is not what was said.
    """

    info: SessionInfo

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
    ) -> None:
        self._engine_name = engine
        self._classes = num_classes
        self._batches = batches
        self._turn = 0
        with self._errors(), ExitStack() as undo:
            if device is None:
                device = undo.enter_context(open_device(0, library))
            self._cache = None if runtime_cache is None else RtxCache(runtime_cache)
            self._engine = undo.enter_context(
                TensorRtEngine(
                    engine_path, num_classes, engine, made_by, batches, host_code, self._cache
                )
            )
            notes = [f"{name} was not used: {why}" for name, why in device.rejected.items()]
            masks = open_device_masks(device, num_classes)
            if isinstance(masks, str):
                notes.append(f"no label maps on the GPU: {masks}")
            kernels = None if isinstance(masks, str) else masks
            self._has_masks = kernels is not None
            self._slots = [
                undo.enter_context(Slot(device, self._engine, num_classes, max(batches), kernels))
                for _ in range(SLOTS)
            ]
            self.info = SessionInfo(
                engine=engine,
                precision=precision,
                device=device.name,
                library=f"{self._engine.library}, {device.library}",
                notes=tuple(notes),
            )
            self._open = True
            self.infer(np.zeros((max(batches), *PATCH_SHAPE), np.uint8))
            self._save_cache()
            self._undo = undo.pop_all()

    def infer(self, patches: NDArray[np.uint8]) -> CamBatch:
        """See `Session.infer`."""
        return self._cams(self._start(patches, None))

    def masks(self, batches: Iterable[NDArray[np.uint8]], rule: MaskRule) -> Iterator[MaskBatch]:
        """See `Session.masks`: on the device, where there are kernels for it."""
        if not self._has_masks:
            yield from super().masks(batches, rule)
            return
        in_flight: deque[Arrays] = deque()
        for patches in batches:
            in_flight.append(self._start(patches, rule))
            if len(in_flight) > SLOTS:
                yield self._labels(in_flight.popleft())
        while in_flight:
            yield self._labels(in_flight.popleft())

    def _start(self, patches: NDArray[np.uint8], rule: MaskRule | None) -> Arrays:
        """Where the results of `patches` will be."""
        self._check_open()
        checked = checked_patches(patches)
        count = len(checked)
        results: Arrays = {
            name: np.empty((count, *output_shape(name, self._classes)), np.float32)
            for name in OUTPUT_NAMES
        }
        if rule is not None:
            results[LABELS] = np.empty((count, PATCH_PX, PATCH_PX), np.uint8)
        with self._errors():
            for part in parts(count, self._batches):
                self._slots[self._turn].start(part, checked, rule, results)
                self._turn = (self._turn + 1) % SLOTS
        return results

    def _cams(self, results: Arrays) -> CamBatch:
        """What `_start` gave, once it is there."""
        self._check_open()
        with self._errors():
            for slot in self._slots:
                slot.finish(results)
        if self._engine.why_no_graph:
            self._note(f"no CUDA graph: {self._engine.why_no_graph}")
        cams = CamBatch(*(results[name] for name in OUTPUT_NAMES))
        return checked_cams(cams, len(cams))

    def _labels(self, results: Arrays) -> MaskBatch:
        # CAMs are copied for label maps too: only they show that the engine gave no NaN.
        return MaskBatch(results[LABELS], self._cams(results).prob)

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
