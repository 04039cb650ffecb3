"""ONNX Runtime session on an NVIDIA GPU by CUDA that makes its label maps there, too."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.errors import KernelError, MissingExtraError, SessionError
from sshr_deploy.geometry import PATCH, Geometry
from sshr_deploy.runtime.contract import (
    INPUT_NAME,
    CamBatch,
    MaskRule,
)
from sshr_deploy.runtime.cuda.base import Device
from sshr_deploy.runtime.cuda.opening import open_device
from sshr_deploy.runtime.sessions.base import Finish, Labels
from sshr_deploy.runtime.sessions.device_masks import DeviceMasks, open_device_masks
from sshr_deploy.runtime.sessions.onnxruntime.providers import Provider
from sshr_deploy.runtime.sessions.onnxruntime.session import OnnxRuntimeSession
from sshr_deploy.runtime.sessions.parts import Part, lap
from sshr_deploy.runtime.sessions.slots import (
    SLOTS,
    Arrays,
    BufferedSlot,
    Slots,
)


class OnnxRuntimeCudaSession(OnnxRuntimeSession):
    """As `OnnxRuntimeSession` by CUDA; label maps are made where the CAMs are computed.

    Where the device or the kernels for that cannot be opened, the CPU makes the label maps and
    `info.notes` says why.

    Args:
        batch: patches in the largest call; more go in parts.
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
        geometry: Geometry = PATCH,
    ) -> None:
        super().__init__(
            model_path,
            num_classes,
            engine=engine,
            provider=provider,
            precision=precision,
            batch=batch,
            more_options=more_options,
            geometry=geometry,
        )
        self._provider, self._batch = provider, batch
        self._undo = ExitStack()
        self._slots: Slots[GraphCall] | None = None
        if reason := self._open_slots(library):
            note = f"no label maps on the GPU: {reason}"
            self.info = replace(self.info, notes=(*self.info.notes, note))

    def _open_slots(self, library: str) -> str:
        """Why the CPU makes the label maps; empty where the device does."""
        classes, kind = self._classes, self._provider.buffers
        assert kind is not None
        try:
            with ExitStack() as undo:
                device = undo.enter_context(open_device(0, library))
                masks = None
                if self.geometry.is_patch:
                    opened = open_device_masks(device, classes)
                    if isinstance(opened, str):
                        return opened
                    masks = opened
                slots = [
                    undo.enter_context(
                        DeviceSlot(
                            self._session, kind, device, masks, classes, self._batch, self.geometry
                        )
                    )
                    for _ in range(SLOTS)
                ]
                self._undo = undo.pop_all()
        except (KernelError, MissingExtraError) as error:
            return str(error)
        self._slots = Slots(slots, classes, self.geometry)
        self.labels_on_device, self.ahead = masks is not None, SLOTS
        self.info = replace(self.info, library=f"{self.info.library}, {device.library}")
        return ""

    def _start(self, patches: NDArray[np.uint8], rule: MaskRule | None) -> Finish:
        if self._slots is None:
            return super()._start(patches, rule)
        self._check_open()
        calls = (
            GraphCall(first, min(self._batch, len(patches) - first))
            for first in range(0, len(patches), self._batch)
        )
        with self._errors():
            results = self._slots.start(patches, rule, calls)
        return partial(self._finish, self._slots, results)

    def _finish(self, slots: Slots[GraphCall], results: Arrays) -> tuple[CamBatch, Labels | None]:
        self._check_open()
        with self._errors():
            return slots.finish(results)

    def close(self) -> None:
        """See `Session.close`."""
        super().close()
        try:
            self._undo.close()
        except KernelError as error:
            raise SessionError(f"{self.info.engine} failed: {error}") from error


@dataclass(frozen=True)
class GraphCall:
    """Patches of a batch that one call of the engine takes."""

    first: int
    count: int


class DeviceSlot(BufferedSlot[GraphCall]):
    """Calls of an `onnxruntime.InferenceSession` between buffers of a `Device`, one at a time.

    ONNX Runtime computes on a stream of its own, and `Device` on another, both in the primary
    context of the GPU, so that each can use the other's memory. The order between them is kept by
    the host: it waits for the upload before the run, and for the run before the kernels start. The
    kernels and the copies to the host run beside the next call, which is another slot's.
    (`user_compute_stream` would put both on one stream, for fewer waits; it has to be given before
    the session is made and forbids ONNX Runtime's own streams, and no GPU has shown yet what it
    gains.)

    Args:
        session: with a graph of SSHR.
        kind: where the buffers are, "cuda" in ONNX Runtime's words.
        device: that has them.
        masks: its kernels; None for fields.
        classes: N of the graph.
        largest: inputs in the largest call.
        geometry: of the graph's inputs.
    """

    def __init__(
        self,
        session: Any,
        kind: str,
        device: Device,
        masks: DeviceMasks | None,
        classes: int,
        largest: int,
        geometry: Geometry = PATCH,
    ) -> None:
        super().__init__(device, classes, largest, masks, geometry)
        self._session, self._kind = session, kind

    def _compute(self, call: GraphCall, rule: MaskRule | None) -> None:
        self._patches.upload(self._stream, call.count)
        self._stream.synchronize()
        lap(Part.COPY_IN)
        binding = self._bind(call.count)
        self._session.run_with_iobinding(binding)
        binding.synchronize_outputs()  # which the run does too, unless it is told otherwise
        lap(Part.ENGINE)
        self._ask_results(call.count, rule)

    def _bind(self, batch: int) -> Any:
        binding = self._session.io_binding()
        pointer, shape = self._patches.buffer.pointer, (batch, *self._patches.array.shape[1:])
        binding.bind_input(INPUT_NAME, self._kind, 0, np.uint8, shape, pointer)
        for name, mirrored in self._outputs.items():
            shape, pointer = (batch, *mirrored.array.shape[1:]), mirrored.buffer.pointer
            binding.bind_output(name, self._kind, 0, np.float32, shape, pointer)
        return binding

    def close(self) -> None:
        """Free the memory; safe to call twice."""
        self._session = None
        super().close()
