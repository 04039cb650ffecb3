"""Calls of a TensorRT engine: each slot has a stream, memory, contexts and CUDA graphs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from sshr_deploy.errors import KernelError, SessionError
from sshr_deploy.geometry import PATCH, Geometry
from sshr_deploy.runtime.contract import INPUT_NAME, MaskRule
from sshr_deploy.runtime.cuda.base import Device
from sshr_deploy.runtime.cuda.streams import Graph
from sshr_deploy.runtime.sessions.device_masks import DeviceMasks
from sshr_deploy.runtime.sessions.parts import Part, are_timed, lap
from sshr_deploy.runtime.sessions.slots import BufferedSlot
from sshr_deploy.runtime.sessions.tensorrt.engine import TensorRtEngine


@dataclass(frozen=True)
class EngineCall:
    """Patches of a batch that one call of the engine takes."""

    first: int
    count: int
    size: int
    """Patches that the engine computes; those from `count` on are padding."""
    profile: int
    is_static: bool


def calls(count: int, batches: tuple[int, ...]) -> Iterator[EngineCall]:
    """How `count` patches go through an engine whose profiles are `batches` and a tail.

    As many full batches of the largest size as there are, and one call for the rest: a static
    profile is faster than the tail, but with more than a quarter of padding no more.
    """
    largest = max(batches)
    full, rest = divmod(count, largest)
    for index in range(full):
        yield EngineCall(index * largest, largest, largest, batches.index(largest), True)
    if rest:
        size = min(batch for batch in batches if batch >= rest)
        if 4 * rest >= 3 * size:
            yield EngineCall(full * largest, rest, size, batches.index(size), True)
        else:
            yield EngineCall(full * largest, rest, rest, len(batches), False)


class TensorRtSlot(BufferedSlot[EngineCall]):
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
        geometry: Geometry = PATCH,
    ) -> None:
        self._engine = engine
        self._contexts: dict[int, Any] = {}
        self._graphs: dict[tuple[int, MaskRule | None], Graph] = {}
        with ExitStack() as undo:
            memory = undo.enter_context(device.allocate(engine.memory_bytes))
            self._memory = memory.pointer, memory.nbytes
            super().__init__(device, classes, largest, masks, geometry)
            self._activations = undo.pop_all()

    def _compute(self, call: EngineCall, rule: MaskRule | None) -> None:
        replays = call.is_static and self._engine.uses_graphs and not are_timed()
        graph = self._graphs.get((call.profile, rule)) if replays else None
        if graph is None:
            self._bind(call)
            self._ask(call, rule)
        else:
            graph.launch()

    def _bind(self, call: EngineCall) -> None:
        context = self._contexts.get(call.profile)
        if context is not None and call.is_static:
            return
        if context is None:
            context = self._engine.context(call.profile, self._memory, self._stream.handle)
        pointers = {name: mirrored.buffer.pointer for name, mirrored in self._outputs.items()}
        pointers[INPUT_NAME] = self._patches.buffer.pointer
        self._engine.bind(context, call.size, pointers)
        self._contexts[call.profile] = context

    def _ask(self, call: EngineCall, rule: MaskRule | None) -> None:
        """All that a call asks of the stream."""
        self._patches.upload(self._stream, call.size)
        lap(Part.COPY_IN, self._stream.synchronize)
        self._engine.enqueue(self._contexts[call.profile], self._stream.handle)
        lap(Part.ENGINE, self._stream.synchronize)
        self._ask_results(call.size, rule)

    def _finished(self, call: EngineCall, rule: MaskRule | None) -> None:
        """Capture what was just done once and waited for, as TensorRT wants it to be."""
        key = call.profile, rule
        if not self._engine.uses_graphs or self._engine.why_no_graph or are_timed():
            return
        if not call.is_static or key in self._graphs:
            return
        try:
            self._graphs[key] = self._stream.capture(lambda: self._ask(call, rule))
        except (KernelError, SessionError) as error:
            self._engine.why_no_graph = str(error)

    def close(self) -> None:
        """Finish, and free everything; safe to call twice."""
        self._graphs.clear()
        try:
            super().close()
        finally:
            self._activations.close()

    def _release(self) -> None:
        self._contexts.clear()
