"""Runs a graph through buffers on the device that stay where they are."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.geometry import PATCH, Geometry
from sshr_deploy.runtime.contract import INPUT_NAME, OUTPUT_NAMES
from sshr_deploy.runtime.sessions.base import output_shape
from sshr_deploy.runtime.sessions.parts import Part, lap

KEPT_SIZES = 4
"""Batch sizes that keep their buffers: a run has its own and a few tails."""


class _Bound(NamedTuple):
    binding: Any
    input: Any
    outputs: list[Any]


class BoundRuns:
    """Calls of one `onnxruntime.InferenceSession` of an SSHR graph.

    Args:
        ort: the module.
        session: with the graph.
        num_classes: N of the graph.
        device: where the buffers are, "cuda" or "cpu" in ONNX Runtime's words.
        geometry: of the graph's inputs.
    """

    def __init__(
        self,
        ort: Any,
        session: Any,
        num_classes: int,
        device: str,
        geometry: Geometry = PATCH,
    ) -> None:
        self._ort, self._session, self._geometry = ort, session, geometry
        self._num_classes, self._device = num_classes, device
        self._kept: OrderedDict[int, _Bound] = OrderedDict()

    def run(self, patches: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """uint8 [B, side_px, side_px, 3], C-contiguous -> arrays of `OUTPUT_NAMES`, copied."""
        bound = self._bound(len(patches))
        bound.input.update_inplace(patches)
        lap(Part.COPY_IN)
        self._session.run_with_iobinding(bound.binding)
        lap(Part.ENGINE)
        # On the CPU `numpy` is a view of the buffer, which the next call overwrites.
        return [np.array(output.numpy()) for output in bound.outputs]

    def _bound(self, batch: int) -> _Bound:
        if batch not in self._kept:
            while len(self._kept) >= KEPT_SIZES:
                self._kept.popitem(last=False)
            self._kept[batch] = self._bind(batch)
        self._kept.move_to_end(batch)
        return self._kept[batch]

    def _bind(self, batch: int) -> _Bound:
        new = self._ort.OrtValue.ortvalue_from_shape_and_type
        patches = new((batch, *self._geometry.input_shape()), np.uint8, self._device)
        binding = self._session.io_binding()
        binding.bind_ortvalue_input(INPUT_NAME, patches)
        outputs = []
        for name in OUTPUT_NAMES:
            shape = output_shape(name, self._num_classes, self._geometry)
            outputs.append(new((batch, *shape), np.float32, self._device))
            binding.bind_ortvalue_output(name, outputs[-1])
        return _Bound(binding, patches, outputs)
