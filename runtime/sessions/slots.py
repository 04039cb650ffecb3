"""Batches in flight on a GPU: one is computed while another is copied and unpacked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from math import prod
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from sshr_deploy.runtime.contract import OUTPUT_NAMES, PATCH_PX, CamBatch, MaskRule
from sshr_deploy.runtime.cuda.base import Device
from sshr_deploy.runtime.cuda.streams import Stream

SLOTS = 2
"""Batches in flight."""
LABELS = "labels"
PATCH_SHAPE = (PATCH_PX, PATCH_PX, 3)
LABEL_SHAPE = (PATCH_PX, PATCH_PX)
Arrays = dict[str, NDArray[Any]]
"""Results of a batch: the outputs by name, and perhaps `LABELS`."""

C = TypeVar("C", contravariant=True)


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

    def __init__(self, slots: Sequence[Slot[C]], classes: int) -> None:
        self._slots, self._classes = slots, classes
        self._turn = 0

    def start(
        self, patches: NDArray[np.uint8], rule: MaskRule | None, calls: Iterable[C]
    ) -> Arrays:
        """Begin the calls that compute `patches`; gives the arrays that `finish` fills."""
        count = len(patches)
        results: Arrays = {
            name: np.empty((count, *output_shape(name, self._classes)), np.float32)
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


def output_shape(name: str, classes: int) -> tuple[int, ...]:
    """Shape of an output of one patch."""
    return (classes,) if name == "prob" else (classes, PATCH_PX // 8, PATCH_PX // 8)


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
