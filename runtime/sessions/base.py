"""What the sessions share that make label maps on the CPU."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.closing import Closing
from sshr_deploy.runtime.contract import (
    PATCH_PX,
    CamBatch,
    MaskBatch,
    MaskRule,
    SessionInfo,
)
from sshr_deploy.runtime.masks import label_map


class BaseSession(Closing):
    """A session that only has to say how it infers; one that can do better overrides `masks`."""

    info: SessionInfo

    def infer(self, patches: NDArray[np.uint8]) -> CamBatch:
        """See `Session.infer`."""
        raise NotImplementedError

    def masks(self, batches: Iterable[NDArray[np.uint8]], rule: MaskRule) -> Iterator[MaskBatch]:
        """See `Session.masks`: one batch after the other."""
        for patches in batches:
            cams = self.infer(patches)
            labels = [
                label_map(cams, index, rule, height_px=PATCH_PX, width_px=PATCH_PX)
                for index in range(len(cams))
            ]
            yield MaskBatch(np.stack(labels), cams.prob)
