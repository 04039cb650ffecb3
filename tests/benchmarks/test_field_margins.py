from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from sshr_deploy.benchmarks import field_margins
from sshr_deploy.benchmarks.field_margins import MARGINS_PX, measure
from sshr_deploy.errors import UsageError
from sshr_deploy.geometry import Geometry
from sshr_deploy.model import SSHR, NetworkOutput

REACH_CELLS = 7


def edge_seen_56_px_deep(_model: SSHR, rgb: NDArray[np.uint8], geometry: Geometry) -> NetworkOutput:
    """CAMs are the colours; near the edge of the input the classes are exchanged."""
    cells = cv2.resize(rgb[0], (geometry.cells, geometry.cells), interpolation=cv2.INTER_AREA)
    cam = cells.transpose(2, 0, 1)[None] / np.float32(255)
    inner = slice(REACH_CELLS, -REACH_CELLS)
    changed = cam[:, ::-1].copy()
    changed[:, :, inner, inner] = cam[:, :, inner, inner]
    return NetworkOutput(cam, changed, changed, np.ones_like(cam))


@pytest.fixture
def figures(
    own_checkpoint: Path, demo_slide: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    monkeypatch.setattr(field_margins, "predict", edge_seen_56_px_deep)
    return measure(own_checkpoint, demo_slide, giant_px=1008, side_px=448, window_cells=28)


def test_a_margin_as_deep_as_the_edge_reaches_leaves_no_difference(
    figures: dict[str, Any],
) -> None:
    assert figures["fields"] == 4
    rows = {row["margin_px"]: row for row in figures["rows"]}
    assert tuple(rows) == MARGINS_PX
    for margin, row in rows.items():
        assert row["work"] == pytest.approx((448 / (448 - 2 * margin)) ** 2)
        assert row["cam_error"]["cam_28_1"] == 0
        assert (row["cam_error"]["cam_deep"] == 0) == (margin >= 56)
        assert (row["labels_equal"] == 1) == (margin > 56), "labels are interpolated across cells"
    deep = [row["cam_error"]["cam_deep"] for row in rows.values()]
    assert deep[0] > deep[1] > 0 == deep[2]
    assert 0 < rows[0]["labels_equal"] < rows[28]["labels_equal"] < rows[56]["labels_equal"]


def test_fields_need_room_around_them(own_checkpoint: Path, demo_slide: Path) -> None:
    sizes = {"window_cells": 28}
    with pytest.raises(UsageError, match="no place inside one of 896"):
        measure(own_checkpoint, demo_slide, giant_px=896, side_px=784, **sizes)
    with pytest.raises(UsageError, match="give a slide of 1904 px or more"):
        measure(own_checkpoint, demo_slide, giant_px=1904, side_px=896, **sizes)
