"""Contenders that answer at once with what the bundle's reference says, or with something else."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.benchmarks.contenders.contender import Contender
from sshr_deploy.benchmarks.contenders.judging import reference_of
from sshr_deploy.bundle import Bundle
from sshr_deploy.errors import SessionError
from sshr_deploy.precision import Precision
from sshr_deploy.runtime.contract import CamBatch, Session
from sshr_deploy.runtime.engines.qualification import TOLERANCES
from tests.benchmarks.contenders.recalled import RecalledSession, classes_reversed


class AnswersSession(RecalledSession):
    """Recalls the reference of a bundle, all wrong if asked to, for calls up to a size."""

    def __init__(self, bundle: Bundle, *, wrong: bool = False, largest: int = 1000) -> None:
        change = classes_reversed if wrong else lambda cams: cams
        super().__init__(reference_of(bundle), change)
        self.geometry = bundle.geometry
        self.is_closed, self._largest = False, largest

    def _compute(self, patches: NDArray[np.uint8]) -> CamBatch:
        if len(patches) > self._largest:
            raise SessionError(f"no memory for {len(patches)} patches")
        return super()._compute(patches)

    def close(self) -> None:
        """Remember it."""
        self.is_closed = True


class GraphsSession(AnswersSession):
    """Counts its calls by whether they may be replayed."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle)
        self.cuda_graphs = True
        self.calls = {True: 0, False: 0}

    def _compute(self, patches: NDArray[np.uint8]) -> CamBatch:
        self.calls[bool(self.cuda_graphs)] += 1
        return super()._compute(patches)


def contender(name: str, opened: Callable[[int], Session]) -> Contender:
    """One in FP32."""
    return Contender(name, Precision.FP32, TOLERANCES[Precision.FP32], opened, "")


def never(batch: int) -> NoReturn:
    """Opens no session."""
    raise AssertionError(batch)
