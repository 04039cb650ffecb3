"""Base of all sessions: the stream of batches, and label maps on the CPU."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.closing import Closing
from sshr_deploy.errors import SessionError
from sshr_deploy.geometry import PATCH, Geometry
from sshr_deploy.runtime.contract import (
    INPUT_NAME,
    OUTPUT_NAMES,
    PATCH_PX,
    CamBatch,
    K,
    MaskBatch,
    MaskRule,
    SessionInfo,
    checked_cams,
    checked_patches,
)
from sshr_deploy.runtime.masks import label_map
from sshr_deploy.runtime.sessions.parts import Part, lap

Labels = NDArray[np.uint8]  # [B, 224, 224]
Finish = Callable[[], tuple[CamBatch, Labels | None]]
"""Waits for a batch; gives its CAMs, and its label maps if the engine made them."""


class BaseSession(Closing):
    """A session that has to say only how it computes a batch: `_compute`, or `_start`."""

    info: SessionInfo
    geometry: Geometry = PATCH
    any_side = False
    labels_on_device = False
    cuda_graphs: bool | None = None
    ahead = 0
    """Batches that are started before the result of one is waited for."""

    @overload
    def stream(
        self, batches: Iterable[tuple[K, NDArray[np.uint8]]], rule: None = None
    ) -> Iterator[tuple[K, CamBatch]]: ...

    @overload
    def stream(
        self, batches: Iterable[tuple[K, NDArray[np.uint8]]], rule: MaskRule
    ) -> Iterator[tuple[K, MaskBatch]]: ...

    def stream(
        self, batches: Iterable[tuple[K, NDArray[np.uint8]]], rule: MaskRule | None = None
    ) -> Iterator[tuple[K, CamBatch | MaskBatch]]:
        """See `Session.stream`."""
        if rule is not None and not self.geometry.is_patch:
            raise SessionError("label maps of fields are made of all of a slide; ask for CAMs")
        started: deque[tuple[K, int, Finish]] = deque()
        for key, patches in batches:
            checked = checked_patches(patches, self.geometry, any_side=self.any_side)
            started.append((key, len(checked), self._start(checked, rule)))
            if len(started) > self.ahead:
                yield _result(*started.popleft(), rule)
        while started:
            yield _result(*started.popleft(), rule)

    def infer(self, patches: NDArray[np.uint8]) -> CamBatch:
        """See `Session.infer`."""
        ((_, cams),) = self.stream([(None, patches)])
        return cams

    def _start(
        self,
        patches: NDArray[np.uint8],
        rule: MaskRule | None,  # noqa: ARG002  (for sessions with `labels_on_device`)
    ) -> Finish:
        """Begin to compute `patches`, which are checked; with a rule perhaps label maps too."""
        cams = self._compute(patches)
        return lambda: (cams, None)

    def _compute(self, patches: NDArray[np.uint8]) -> CamBatch:
        """CAMs of `patches`, which are checked."""
        raise NotImplementedError


def _result(
    key: K, patches: int, finish: Finish, rule: MaskRule | None
) -> tuple[K, CamBatch | MaskBatch]:
    cams, labels = finish()
    # Also where only label maps are wanted: nothing else shows that the engine gave no NaN.
    checked_cams(cams, patches)
    lap(Part.COPY_OUT)
    if rule is None:
        return key, cams
    if labels is None:
        maps = [
            label_map(cams, index, rule, height_px=PATCH_PX, width_px=PATCH_PX)
            for index in range(patches)
        ]
        labels = np.stack(maps)
        lap(Part.LABELS)
    return key, MaskBatch(labels, cams.prob)


def output_shape(name: str, classes: int, geometry: Geometry) -> tuple[int, ...]:
    """Shape of an output of one input."""
    return geometry.prob_shape(classes) if name == "prob" else geometry.cam_shape(classes)


Tensors = Mapping[str, tuple[str, list[Any]]]
"""Type, in the library's words, and shape without the batch, by name; a side of the input that is
not fixed is no number there."""


def check_tensors(
    path: Path,
    num_classes: int,
    geometry: Geometry,
    inputs: Tensors,
    outputs: Tensors,
    *,
    types: tuple[str, str],
) -> bool:
    """Check that a graph has the inputs and outputs of SSHR for those classes and that geometry.

    Returns whether it takes fields of any side.

    `types` are the library's words for uint8 and float32.

    Raises:
        SessionError: it has others.
    """
    wanted_inputs = {INPUT_NAME: (types[0], list(geometry.input_shape()))}
    wanted_outputs = {
        name: (types[1], list(output_shape(name, num_classes, geometry))) for name in OUTPUT_NAMES
    }
    _, sides = inputs.get(INPUT_NAME, ("", []))
    any_side = not geometry.is_patch and not any(isinstance(side, int) for side in sides[:2])
    if any_side:  # of the outputs the classes are fixed alone
        inputs = {
            INPUT_NAME: (inputs[INPUT_NAME][0], [*wanted_inputs[INPUT_NAME][1][:2], *sides[2:]])
        }
        outputs = {
            name: (kind, [*shape[:1], *wanted_outputs[name][1][1:]])
            for name, (kind, shape) in outputs.items()
            if name in wanted_outputs
        }
    if inputs != wanted_inputs or outputs != wanted_outputs:
        raise SessionError(
            f"{path} holds a graph with inputs {inputs} and outputs {outputs}; "
            f"an SSHR graph of {num_classes} classes has {wanted_inputs} and {wanted_outputs}"
        )
    return any_side
