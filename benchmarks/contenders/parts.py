"""The parts of a call, timed in the session itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.runtime.contract import MaskRule, Session
from sshr_deploy.runtime.sessions.parts import Part, timed_parts


@dataclass(frozen=True)
class Parts:
    """Milliseconds of a call by its parts; see `runtime.sessions.parts.Part`."""

    copy_in_ms: float
    engine_ms: float
    copy_out_ms: float
    labels_ms: float

    @property
    def whole_ms(self) -> float:
        """Of the call."""
        return self.copy_in_ms + self.engine_ms + self.copy_out_ms + self.labels_ms


def parts_of_call(session: Session, patches: NDArray[np.uint8], rule: MaskRule | None) -> Parts:
    """Make one call as slides do, and split its time.

    On a GPU the parts wait for each other and no CUDA graph is replayed, so that they are more than
    a call takes otherwise: they say where the time goes, not how long a call is.

    Args:
        session: an open one.
        patches: of the call, uint8 [B, side_px, side_px, 3].
        rule: how CAMs become label maps; None makes none.

    Raises:
        SessionError: the session fails.
    """
    with timed_parts() as times:
        for _ in session.stream([(None, patches)], rule):
            pass
    ms = times.ms
    return Parts(ms[Part.COPY_IN], ms[Part.ENGINE], ms[Part.COPY_OUT], ms[Part.LABELS])
