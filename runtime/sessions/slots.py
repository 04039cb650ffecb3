"""Batches in flight on a GPU: one is computed while another is copied and unpacked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from math import prod
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from sshr_deploy.closing import Closing
from sshr_deploy.errors import KernelError
from sshr_deploy.geometry import PATCH, Geometry
from sshr_deploy.runtime.contract import OUTPUT_NAMES, PATCH_PX, CamBatch, MaskRule
from sshr_deploy.runtime.cuda.base import Device
from sshr_deploy.runtime.cuda.streams import Stream
from sshr_deploy.runtime.sessions.base import output_shape
from sshr_deploy.runtime.sessions.device_masks import DeviceMasks
from sshr_deploy.runtime.sessions.parts import Part, lap

SLOTS = 2
"""Batches in flight."""
LABELS = "labels"
LABEL_SHAPE = (PATCH_PX, PATCH_PX)
Arrays = dict[str, NDArray[Any]]
"""Results of a batch: the outputs by name, and perhaps `LABELS`."""

C = TypeVar("C", contravariant=True)


class BatchPart(Protocol):
    """Patches of a batch that one call of an engine takes."""

    @property
    def first(self) -> int:
        """Index of the first in the batch."""
        ...

    @property
    def count(self) -> int:
        """How many."""
        ...


B = TypeVar("B", bound=BatchPart)


class Slot(Protocol[C]):
    """Computes one call of the engine at a time, on a stream and in memory of its own."""

    def start(
        self, call: C, patches: NDArray[np.uint8], rule: MaskRule | None, results: Arrays
    ) -> None:
        """Ask for the patches of `call`, with a rule for their label maps too.

        `finish` puts them into `results`. What was under way before is finished first.
        """

    def finish(self, results: Arrays | None = None) -> None:
        """Wait for what is under way, if it is for `results` or these are not given."""


class Slots(Generic[C]):
    """Slots that take the calls of all batches in turn."""

    def __init__(self, slots: Sequence[Slot[C]], classes: int, geometry: Geometry = PATCH) -> None:
        self._slots, self._classes, self._geometry = slots, classes, geometry
        self._turn = 0

    def start(
        self, patches: NDArray[np.uint8], rule: MaskRule | None, calls: Iterable[C]
    ) -> Arrays:
        """Begin the calls that compute `patches`; gives the arrays that `finish` fills."""
        count = len(patches)
        results: Arrays = {
            name: np.empty((count, *output_shape(name, self._classes, self._geometry)), np.float32)
            for name in OUTPUT_NAMES
        }
        if rule is not None:
            results[LABELS] = np.empty((count, *LABEL_SHAPE), np.uint8)
        for call in calls:
            self._slots[self._turn].start(call, patches, rule, results)
            self._turn = (self._turn + 1) % len(self._slots)
        return results

    def finish(self, results: Arrays) -> tuple[CamBatch, NDArray[np.uint8] | None]:
        """CAMs and, with a rule, label maps of what `start` gave, once they are there."""
        for slot in self._slots:
            slot.finish(results)
        return CamBatch(*(results[name] for name in OUTPUT_NAMES)), results.get(LABELS)


class Mirrored:
    """An array [largest, ...] on the device and its twin in pinned memory of the host."""

    def __init__(
        self,
        device: Device,
        largest: int,
        shape: tuple[int, ...],
        dtype: DTypeLike,
        undo: ExitStack,
    ) -> None:
        self._patch_bytes = prod(shape) * np.dtype(dtype).itemsize
        self.buffer = undo.enter_context(device.allocate(largest * self._patch_bytes))
        self._pinned = undo.enter_context(device.pinned(largest * self._patch_bytes))
        self.array: NDArray[Any] = self._pinned.array.view(dtype).reshape(largest, *shape)

    def upload(self, stream: Stream, batch: int) -> None:
        """Ask for a copy of the first `batch` to the device."""
        stream.upload(self.buffer, self._pinned, batch * self._patch_bytes)

    def download(self, stream: Stream, batch: int) -> None:
        """Ask for a copy of the first `batch` from the device."""
        stream.download(self._pinned, self.buffer, batch * self._patch_bytes)


class BufferedSlot(Closing, Generic[B]):
    """Memory and stream of a slot; a subclass says what a call asks of them.

    Memory is allocated once, for `largest` patches and, with `masks`, their label maps.
    """

    def __init__(
        self,
        device: Device,
        classes: int,
        largest: int,
        masks: DeviceMasks | None,
        geometry: Geometry = PATCH,
    ) -> None:
        self._masks = masks
        self._under_way: tuple[B, MaskRule | None, Arrays] | None = None
        with ExitStack() as undo:
            self._patches = Mirrored(device, largest, geometry.input_shape(), np.uint8, undo)
            self._outputs = {
                name: Mirrored(
                    device, largest, output_shape(name, classes, geometry), np.float32, undo
                )
                for name in OUTPUT_NAMES
            }
            if masks is not None:
                self._ranges = undo.enter_context(device.allocate(masks.ranges_bytes(largest)))
                self._labels = Mirrored(device, largest, LABEL_SHAPE, np.uint8, undo)
            undo.callback(self._release)
            self._stream = undo.enter_context(device.stream())
            self._undo = undo.pop_all()

    def start(
        self, call: B, patches: NDArray[np.uint8], rule: MaskRule | None, results: Arrays
    ) -> None:
        """See `Slot.start`."""
        self.finish()
        self._patches.array[: call.count] = patches[call.first : call.first + call.count]
        try:
            self._compute(call, rule)
        except Exception:  # ONNX Runtime has no common base class of its errors
            with suppress(KernelError):  # the first error says more
                self._stream.synchronize()  # nothing may still use what the next call writes
            raise
        self._under_way = call, rule, results

    def finish(self, results: Arrays | None = None) -> None:
        """See `Slot.finish`."""
        if self._under_way is None:
            return
        call, rule, target = self._under_way
        if results is not None and target is not results:
            return
        self._under_way = None
        self._stream.synchronize()
        for name, mirrored in self._mirrors(rule).items():
            target[name][call.first : call.first + call.count] = mirrored.array[: call.count]
        self._finished(call, rule)

    def _compute(self, call: B, rule: MaskRule | None) -> None:
        """Ask for the patches of `call`, which are in the pinned memory."""
        raise NotImplementedError

    def _finished(self, call: B, rule: MaskRule | None) -> None:
        """Follows a call whose results are there."""

    def _release(self) -> None:
        """Let go of what uses the memory, before it is freed and after the stream is closed."""

    def _ask_results(self, batch: int, rule: MaskRule | None) -> None:
        """Ask for label maps of the outputs, with a rule, and for the copies to the host."""
        if rule is not None and self._masks is not None:
            buffers = [self._outputs[name].buffer for name in OUTPUT_NAMES]
            labels = self._labels.buffer
            self._masks.launch(self._stream, buffers, self._ranges, labels, batch, rule)
            lap(Part.LABELS, self._stream.synchronize)
        for mirrored in self._mirrors(rule).values():
            mirrored.download(self._stream, batch)

    def _mirrors(self, rule: MaskRule | None) -> dict[str, Mirrored]:
        return self._outputs if rule is None else {LABELS: self._labels, **self._outputs}

    def close(self) -> None:
        """Free the memory; safe to call twice."""
        self._under_way = None
        self._undo.close()
