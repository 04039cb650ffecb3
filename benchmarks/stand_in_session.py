"""A session that computes nothing, so that what surrounds an engine can be measured alone."""

from __future__ import annotations

import time

import cv2
import numpy as np
from numpy.typing import NDArray

from sshr_deploy.errors import SessionError
from sshr_deploy.geometry import Geometry
from sshr_deploy.runtime.contract import OUTPUT_NAMES, CamBatch, MaskRule, SessionInfo
from sshr_deploy.runtime.sessions.base import BaseSession, Finish, output_shape
from sshr_deploy.runtime.sessions.parts import Part, lap
from sshr_deploy.version import __version__

_REGION_CELLS = 20
"""Side of the patches of one class in its answers, about."""


class StandInSession(BaseSession):
    """Answers each input after the time that an engine would take, at no cost for the processor.

    It sleeps meanwhile, as a host does that waits for a GPU, and computes one batch while the next
    is brought: two are in flight. Inputs are copied once, as into the pinned memory of a GPU's
    session. The answers are made beforehand, the same for each batch: regions of all classes.

    Args:
        num_classes: of the answers.
        geometry: of its inputs.
        unit_s: time for each input, in seconds.
    """

    ahead = 1

    def __init__(self, num_classes: int, geometry: Geometry, unit_s: float = 0.0) -> None:
        self.info = SessionInfo("stand-in", "none", "none", f"sshr-deploy {__version__}")
        self.geometry = geometry
        self._classes, self._unit_s = num_classes, unit_s
        self._free_at, self._closed = 0.0, False
        self._inputs = np.empty(0, np.uint8)
        self._answers = {name: self._answer(name) for name in OUTPUT_NAMES}

    def _start(
        self,
        patches: NDArray[np.uint8],
        rule: MaskRule | None,  # noqa: ARG002
    ) -> Finish:
        if self._closed:
            raise SessionError("the stand-in is closed")
        count = len(patches)
        if self._inputs.size < patches.size:
            self._inputs = np.empty(patches.size, np.uint8)
        np.copyto(self._inputs[: patches.size], patches.reshape(-1))
        lap(Part.COPY_IN)
        self._free_at = max(time.perf_counter(), self._free_at) + count * self._unit_s
        due = self._free_at
        shapes = ((name, (count, *answer.shape)) for name, answer in self._answers.items())
        cams = CamBatch(*(np.broadcast_to(self._answers[name], shape) for name, shape in shapes))

        def finish() -> tuple[CamBatch, None]:
            time.sleep(max(0.0, due - time.perf_counter()))
            lap(Part.ENGINE)
            return cams, None

        return finish

    def _answer(self, name: str) -> NDArray[np.float32]:
        shape = output_shape(name, self._classes, self.geometry)
        rng = np.random.default_rng(OUTPUT_NAMES.index(name))
        if len(shape) == 1:
            return np.ones(shape, np.float32)
        count, height, width = shape
        coarse = rng.random((2 + height // _REGION_CELLS, 2 + width // _REGION_CELLS, count))
        smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        cells = np.clip(smooth.reshape(height, width, count), 0, 1).transpose(2, 0, 1)
        return np.ascontiguousarray(cells, np.float32)

    def close(self) -> None:
        """There is nothing to free; what is asked of it afterwards is refused."""
        self._closed = True
