"""ONNX Runtime session on an NVIDIA GPU by CUDA that makes its label maps there, too."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.closing import Closing
from sshr_deploy.errors import KernelError, MissingExtraError, SessionError, first_line
from sshr_deploy.runtime.contract import (
    INPUT_NAME,
    OUTPUT_NAMES,
    PATCH_PX,
    CamBatch,
    MaskBatch,
    MaskRule,
    checked_cams,
    checked_patches,
)
from sshr_deploy.runtime.cuda.base import Device
from sshr_deploy.runtime.cuda.opening import open_device
from sshr_deploy.runtime.sessions.device_masks import DeviceMasks, open_device_masks
from sshr_deploy.runtime.sessions.onnxruntime.providers import Provider
from sshr_deploy.runtime.sessions.onnxruntime.session import OnnxRuntimeSession
from sshr_deploy.runtime.sessions.tensorrt.engine import PATCH_SHAPE, output_shape
from sshr_deploy.runtime.sessions.tensorrt.slot import LABELS, Arrays, Mirrored


class OnnxRuntimeCudaSession(OnnxRuntimeSession):
    """As `OnnxRuntimeSession` by CUDA; its `masks` leaves the CAMs where they are computed.

    Where the device or the kernels for that cannot be opened, the CPU makes the label maps and
    `info.notes` says why.

    Args:
        batch: patches in the largest call for label maps; more go in parts.
        library: that drives the device beside ONNX Runtime; see `open_device`.
    """

    def __init__(
        self,
        model_path: Path,
        num_classes: int,
        *,
        engine: str,
        provider: Provider,
        precision: str,
        batch: int,
        more_options: Mapping[str, str] | None = None,
        library: str = "auto",
    ) -> None:
        super().__init__(
            model_path,
            num_classes,
            engine=engine,
            provider=provider,
            precision=precision,
            batch=batch,
            more_options=more_options,
        )
        self._provider, self._batch = provider, batch
        self._undo = ExitStack()
        self._on_device: DeviceRuns | None = None
        if reason := self._open_device(library):
            note = f"no label maps on the GPU: {reason}"
            self.info = replace(self.info, notes=(*self.info.notes, note))

    def _open_device(self, library: str) -> str:
        """Why the CPU makes the label maps; empty where the device does."""
        classes, kind = self._classes, self._provider.buffers
        assert kind is not None
        try:
            with ExitStack() as undo:
                device = undo.enter_context(open_device(0, library))
                masks = open_device_masks(device, classes)
                if isinstance(masks, str):
                    return masks
                self._on_device = undo.enter_context(
                    DeviceRuns(self._session, kind, device, masks, classes, self._batch)
                )
                self._undo = undo.pop_all()
        except (KernelError, MissingExtraError) as error:
            return str(error)
        self.info = replace(self.info, library=f"{self.info.library}, {device.library}")
        return ""

    def masks(self, batches: Iterable[NDArray[np.uint8]], rule: MaskRule) -> Iterator[MaskBatch]:
        """See `Session.masks`: on the device, where there are kernels for it."""
        if self._on_device is None:
            yield from super().masks(batches, rule)
            return
        for patches in batches:
            yield self._labels(self._on_device, patches, rule)

    def _labels(self, runs: DeviceRuns, patches: NDArray[np.uint8], rule: MaskRule) -> MaskBatch:
        if self._run is None:
            raise SessionError("the session is closed; open it again")
        checked = checked_patches(patches)
        starts = range(0, len(checked), self._batch)
        try:
            parts = [runs.run(checked[start : start + self._batch], rule) for start in starts]
        except Exception as error:  # ONNX Runtime has no common base class of its errors
            raise SessionError(f"{self.info.library} failed: {first_line(error)}") from error
        whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        # CAMs are copied for label maps too: only they show that the engine gave no NaN.
        cams = checked_cams(CamBatch(*(whole[name] for name in OUTPUT_NAMES)), len(checked))
        return MaskBatch(whole[LABELS], cams.prob)

    def close(self) -> None:
        """See `Session.close`."""
        super().close()
        try:
            self._undo.close()
        except KernelError as error:
            raise SessionError(f"{self.info.engine} failed: {error}") from error


class DeviceRuns(Closing):
    """Calls of an `onnxruntime.InferenceSession` between buffers of a `Device`.

    ONNX Runtime computes on a stream of its own, and `Device` on another, both in the primary
    context of the GPU, so that each can use the other's memory. The order between them is kept by
    the host: it waits for the upload before the run, and for the run before the kernels start.
    (`user_compute_stream` would put both on one stream, for one wait instead of three; it has to be
    given before the session is made and forbids ONNX Runtime's own streams, and no GPU has shown
    yet what it gains.)

    Args:
        session: with a graph of SSHR.
        kind: where the buffers are, "cuda" in ONNX Runtime's words.
        device: that has them.
        masks: its kernels.
        classes: N of the graph.
        largest: patches in the largest call.
    """

    def __init__(
        self,
        session: Any,
        kind: str,
        device: Device,
        masks: DeviceMasks,
        classes: int,
        largest: int,
    ) -> None:
        self._session, self._kind, self._masks = session, kind, masks
        with ExitStack() as undo:
            self._patches = Mirrored(device, largest, PATCH_SHAPE, np.uint8, undo)
            self._outputs = {
                name: Mirrored(device, largest, output_shape(name, classes), np.float32, undo)
                for name in OUTPUT_NAMES
            }
            self._ranges = undo.enter_context(device.allocate(masks.ranges_bytes(largest)))
            self._labels = Mirrored(device, largest, (PATCH_PX, PATCH_PX), np.uint8, undo)
            self._stream = undo.enter_context(device.stream())
            self._undo = undo.pop_all()

    def run(self, patches: NDArray[np.uint8], rule: MaskRule) -> Arrays:
        """uint8 [B, 224, 224, 3], B at most `largest` -> the outputs and `LABELS` by name."""
        batch, stream = len(patches), self._stream
        self._patches.array[:batch] = patches
        self._patches.upload(stream, batch)
        stream.synchronize()
        binding = self._bind(batch)
        self._session.run_with_iobinding(binding)
        binding.synchronize_outputs()  # which the run does too, unless it is told otherwise
        buffers = [self._outputs[name].buffer for name in OUTPUT_NAMES]
        self._masks.launch(stream, buffers, self._ranges, self._labels.buffer, batch, rule)
        mirrors = {**self._outputs, LABELS: self._labels}
        for mirrored in mirrors.values():
            mirrored.download(stream, batch)
        stream.synchronize()
        return {name: mirrored.array[:batch].copy() for name, mirrored in mirrors.items()}

    def _bind(self, batch: int) -> Any:
        binding = self._session.io_binding()
        pointer, shape = self._patches.buffer.pointer, (batch, *PATCH_SHAPE)
        binding.bind_input(INPUT_NAME, self._kind, 0, np.uint8, shape, pointer)
        for name, mirrored in self._outputs.items():
            shape, pointer = (batch, *mirrored.array.shape[1:]), mirrored.buffer.pointer
            binding.bind_output(name, self._kind, 0, np.float32, shape, pointer)
        return binding

    def close(self) -> None:
        """Free the memory; safe to call twice."""
        self._session = None
        self._undo.close()
