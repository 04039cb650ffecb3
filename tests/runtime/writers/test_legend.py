"""The strip below an overlay: classes, scale bar and notes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ImageDraw

from sshr_deploy.runtime.writers.legend import (
    LegendEntry,
    draw_legend,
    length_text,
    nice_length_um,
)


def _has_color(picture: NDArray[np.uint8], rgb: tuple[int, int, int]) -> bool:
    return bool((picture == np.asarray(rgb, np.uint8)).all(-1).any())


def test_notes_stand_whole_below_the_classes() -> None:
    entries = [LegendEntry("a", (200, 0, 0), 1.0)]
    note = "40 % of the tissue is out of focus: look at it before you use its result, " * 2
    plain = np.asarray(draw_legend(entries, title="t", width_px=500, mpp_um=1.0))
    shown = np.asarray(draw_legend(entries, title="t", width_px=500, mpp_um=1.0, notes=[note]))
    pad = 14  # the strip's margin, white
    np.testing.assert_array_equal(shown[: len(plain) - pad], plain[:-pad])
    assert len(shown) > len(plain) + 2 * pad  # several lines
    assert (shown[-pad:] == 255).all() and (shown[:, -pad:] == 255).all()
    assert _has_color(shown, (178, 92, 0)) and not _has_color(plain, (178, 92, 0))


@pytest.mark.parametrize("width_px", [40, 300, 1024, 4000])
@pytest.mark.parametrize("count", [1, 3, 16])
def test_nothing_in_the_legend_overlaps(
    width_px: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes: list[tuple[float, float, float, float]] = []
    draw_text = ImageDraw.ImageDraw.text

    def text(self: Any, xy: Any, shown: str, fill: Any, font: Any, anchor: str) -> None:
        boxes.append(self.textbbox(xy, shown, font, anchor))
        draw_text(self, xy, shown, fill, font, anchor)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    rng = np.random.default_rng(count)
    entries = [
        LegendEntry("W" * int(rng.integers(1, 80)), (10 * i, 0, 90), 0.123) for i in range(count)
    ]
    picture = draw_legend(entries, title="a slide " * 20, width_px=width_px, mpp_um=1.0)
    assert picture.width >= width_px
    pixels = np.asarray(picture)
    for entry in entries:
        rows, columns = np.nonzero((pixels == np.asarray(entry.rgb, np.uint8)).all(-1))
        swatch = pixels[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert (swatch == entry.rgb).all(), "something is drawn over a swatch"
        boxes.append((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
    filled = np.zeros(pixels.shape[:2], bool)
    for left, top, right, bottom in boxes:
        if right > left and bottom > top:
            assert left >= 0 and top >= 0 and right < picture.width and bottom < picture.height
            box = (slice(int(top), math.ceil(bottom)), slice(int(left), math.ceil(right)))
            assert not filled[box].any()
            filled[box] = True


def test_long_titles_and_any_script_fit() -> None:
    entries = [LegendEntry("nécrose 中", (200, 0, 0), None)]
    for title in ("x" * 500, "Übersicht 中\udc80\n2", ""):
        picture = np.asarray(draw_legend(entries, title=title, width_px=300, mpp_um=2.0))
        assert (picture[:, :3] == 255).all() and (picture[:, -3:] == 255).all()


@pytest.mark.parametrize(
    ("share", "text"),
    [(None, "-"), (0.0, "0.0%"), (1e-6, "<0.1%"), (0.00051, "0.1%"), (0.5, "50.0%"), (1, "100.0%")],
)
def test_share_text(share: float | None, text: str) -> None:
    assert LegendEntry("a", (0, 0, 0), share).percent == text


@pytest.mark.parametrize(
    ("longest_um", "length_um", "text"),
    [
        (0.3, 0.2, "0.2 um"),
        (1, 1, "1 um"),
        (99, 50, "50 um"),
        (100, 100, "0.1 mm"),
        (499.9, 200, "0.2 mm"),
        (5000, 5000, "5 mm"),
        (19999, 10000, "10 mm"),
    ],
)
def test_scale_bar_length(longest_um: float, length_um: float, text: str) -> None:
    assert nice_length_um(longest_um) == pytest.approx(length_um)
    assert length_text(nice_length_um(longest_um)) == text


def test_scale_bar_is_as_long_as_it_says() -> None:
    entries = [LegendEntry("a", (200, 0, 0), 1.0)]
    picture = np.asarray(draw_legend(entries, title="", width_px=1000, mpp_um=2.5))
    inked = (picture == 34).all(-1)
    gaps = [np.diff(np.flatnonzero(np.r_[True, ~row, True])) - 1 for row in inked]
    longest_run = max(int(gap.max()) for gap in gaps)
    assert longest_run == 500 / 2.5  # 0.5 mm: the longest nice length in a quarter of 2.5 mm


def test_without_a_pixel_size_there_is_no_scale_bar() -> None:
    entries = [LegendEntry("a", (200, 0, 0), 1.0)]
    for mpp_um in (2.5, None):
        picture = np.asarray(draw_legend(entries, title="", width_px=1000, mpp_um=mpp_um))
        title_line = picture[20:55]  # the font is 20 px high, the line 35
        assert (title_line == 34).all(-1).any() == (mpp_um is not None)
        assert _has_color(picture, (200, 0, 0))
