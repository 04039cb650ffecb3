"""What one call of a TensorRT engine needs: a stream, memory, contexts and CUDA graphs.

A session has two slots, so that the copies and the host's part of one call run beside the other's
work on the device.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from sshr_deploy.closing import Closing
from sshr_deploy.errors import KernelError, SessionError
from sshr_deploy.runtime.contract import INPUT_NAME, OUTPUT_NAMES, PATCH_PX, MaskRule
from sshr_deploy.runtime.cuda.base import Device
from sshr_deploy.runtime.cuda.streams import Graph, Stream
from sshr_deploy.runtime.sessions.device_masks import DeviceMasks
from sshr_deploy.runtime.sessions.tensorrt.engine import PATCH_SHAPE, TensorRtEngine, output_shape

LABELS = "labels"
Arrays = dict[str, NDArray[Any]]
"""Results of a batch: the outputs by name, and perhaps `LABELS`."""


@dataclass(frozen=True)
class Part:
    """Patches of a batch that one call of the engine takes."""

    first: int
    count: int
    size: int
    """Patches that the engine computes; those from `count` on are padding."""
    profile: int
    is_static: bool


def parts(count: int, batches: tuple[int, ...]) -> Iterator[Part]:
    """How `count` patches go through an engine whose profiles are `batches` and a tail.

    As many full batches of the largest size as there are, and one call for the rest: a static
    profile is faster than the tail, but with more than a quarter of padding no more.
    """
    largest = max(batches)
    full, rest = divmod(count, largest)
    for index in range(full):
        yield Part(index * largest, largest, largest, batches.index(largest), True)
    if rest:
        size = min(batch for batch in batches if batch >= rest)
        if 4 * rest >= 3 * size:
            yield Part(full * largest, rest, size, batches.index(size), True)
        else:
            yield Part(full * largest, rest, rest, len(batches), False)


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


class Slot(Closing):
    """One call of the engine at a time; its memory is allocated once.

    Each optimisation profile has an execution context of its own, made when it is first needed,
    because a CUDA graph holds on to the state of the context that it was captured from. They share
    the memory for activations, as this slot's stream runs one after the other.
    """

    def __init__(
        self,
        device: Device,
        engine: TensorRtEngine,
        classes: int,
        largest: int,
        masks: DeviceMasks | None,
    ) -> None:
        self._engine = engine
        self._masks = masks
        self._contexts: dict[int, Any] = {}
        self._graphs: dict[tuple[int, MaskRule | None], Graph] = {}
        self._under_way: tuple[Part, MaskRule | None, Arrays] | None = None
        with ExitStack() as undo:
            memory = undo.enter_context(device.allocate(engine.memory_bytes))
            self._memory = memory.pointer, memory.nbytes
            self._patches = Mirrored(device, largest, PATCH_SHAPE, np.uint8, undo)
            self._outputs = {
                name: Mirrored(device, largest, output_shape(name, classes), np.float32, undo)
                for name in OUTPUT_NAMES
            }
            if masks is not None:
                self._ranges = undo.enter_context(device.allocate(masks.ranges_bytes(largest)))
                label_shape = (PATCH_PX, PATCH_PX)
                self._labels = Mirrored(device, largest, label_shape, np.uint8, undo)
            undo.callback(self._contexts.clear)
            self._stream = undo.enter_context(device.stream())
            self._undo = undo.pop_all()

    def start(
        self, part: Part, patches: NDArray[np.uint8], rule: MaskRule | None, results: Arrays
    ) -> None:
        """Ask for the CAMs of a part of a batch, with a rule for its label maps too.

        `finish` puts them into `results`. What was under way before is finished first.
        """
        self.finish()
        self._patches.array[: part.count] = patches[part.first : part.first + part.count]
        graph = self._graphs.get((part.profile, rule)) if part.is_static else None
        if graph is None:
            self._bind(part)
            self._ask(part, rule)
        else:
            graph.launch()
        self._under_way = part, rule, results

    def finish(self, results: Arrays | None = None) -> None:
        """Wait for what is under way, if it is for `results` or these are not given."""
        if self._under_way is None:
            return
        part, rule, target = self._under_way
        if results is not None and target is not results:
            return
        self._under_way = None
        self._stream.synchronize()
        mirrors = self._outputs if rule is None else {**self._outputs, LABELS: self._labels}
        for name, mirrored in mirrors.items():
            target[name][part.first : part.first + part.count] = mirrored.array[: part.count]
        self._capture(part, rule)

    def _bind(self, part: Part) -> None:
        context = self._contexts.get(part.profile)
        if context is not None and part.is_static:
            return
        if context is None:
            context = self._engine.context(part.profile, self._memory, self._stream.handle)
        pointers = {name: mirrored.buffer.pointer for name, mirrored in self._outputs.items()}
        pointers[INPUT_NAME] = self._patches.buffer.pointer
        self._engine.bind(context, part.size, pointers)
        self._contexts[part.profile] = context

    def _ask(self, part: Part, rule: MaskRule | None) -> None:
        """All that a call asks of the stream."""
        self._patches.upload(self._stream, part.size)
        self._engine.enqueue(self._contexts[part.profile], self._stream.handle)
        if rule is not None and self._masks is not None:
            buffers = [self._outputs[name].buffer for name in OUTPUT_NAMES]
            labels = self._labels
            self._masks.launch(self._stream, buffers, self._ranges, labels.buffer, part.size, rule)
            labels.download(self._stream, part.size)
        for mirrored in self._outputs.values():
            mirrored.download(self._stream, part.size)

    def _capture(self, part: Part, rule: MaskRule | None) -> None:
        """Capture what was just done once and waited for, as TensorRT wants it to be."""
        key = part.profile, rule
        if self._engine.why_no_graph or not part.is_static or key in self._graphs:
            return
        try:
            self._graphs[key] = self._stream.capture(lambda: self._ask(part, rule))
        except (KernelError, SessionError) as error:
            self._engine.why_no_graph = str(error)

    def close(self) -> None:
        """Finish, and free everything; safe to call twice."""
        self._under_way = None
        self._graphs.clear()
        self._undo.close()
