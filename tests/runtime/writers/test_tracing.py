"""Outlines of a mask, strip by strip."""

from __future__ import annotations

import numpy as np
import pytest

from sshr_deploy.runtime.writers import tracing
from sshr_deploy.runtime.writers.tracing import RegionTracer


def test_open_regions_are_not_among_the_complete_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "_STRIP_PX", 80)  # two rows
    background = 4
    mask = np.tile(np.array([0, 1], np.uint8), (40, 20))  # stripes from top to bottom
    mask[:, -2:] = background
    mask[1::4, -1] = 2  # lone pixels beside them
    tracer = RegionTracer(40, background)
    pieces = [*tracer.put(mask), *tracer.finish()]
    assert sum(len(piece.labels) for piece in pieces) == 38 + 10
    assert max(len(piece.labels) for piece in pieces[:-1]) == 1
    for piece in pieces:
        regions, corners = np.unique(piece.corners >> 41, return_counts=True)
        np.testing.assert_array_equal(regions, np.arange(len(piece.labels)))
        np.testing.assert_array_equal(corners, 4)
        assert len(piece.prob_sums) == len(piece.labels)
