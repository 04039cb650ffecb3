"""Overlay and label image as Pillow reads them back."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from sshr_deploy.profiles import Profile, TissueClass, load_profile
from sshr_deploy.runtime.slides.view import Box
from sshr_deploy.runtime.writers.legend import (
    LegendEntry,
    draw_legend,
    length_text,
    nice_length_um,
)
from sshr_deploy.runtime.writers.overlay import (
    LabelPicker,
    blend,
    write_label_png,
    write_overlay,
    write_thumbnail,
)

PROFILE = load_profile("luad")
SHARES = {c.name: 0.25 for c in PROFILE.classes}


def _thumbnail(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(120, 250, (height, width, 3)).astype(np.uint8)


def _mask(height: int, width: int) -> NDArray[np.uint8]:
    """Background frame around four vertical stripes."""
    mask = np.full((height, width), 4, np.uint8)
    for label in range(4):
        left, right = width * (label + 1) // 6, width * (label + 2) // 6
        mask[height // 4 : height * 3 // 4, left:right] = label
    return mask


def _has_color(picture: NDArray[np.uint8], rgb: tuple[int, int, int]) -> bool:
    return bool((picture == np.asarray(rgb, np.uint8)).all(-1).any())


def test_overlay_keeps_background_and_tints_tissue(tmp_path: Path) -> None:
    thumbnail = _thumbnail(300, 600)
    path = tmp_path / "o.png"
    write_overlay(
        path, thumbnail, _mask(1200, 2400), profile=PROFILE, shares=SHARES, title="s.svs",
        mpp_um=8.0,
    )  # fmt: skip
    image = Image.open(path)
    assert image.format == "PNG" and image.mode == "RGB" and image.width == 600
    shown = np.asarray(image)
    labels = _mask(300, 600)
    np.testing.assert_array_equal(shown[:300][labels == 4], thumbnail[labels == 4])
    inner = (slice(100, 200), slice(120, 180))  # inside the first stripe, off its edges
    expected = 0.55 * thumbnail[inner] + 0.45 * np.asarray(PROFILE.classes[0].rgb)
    np.testing.assert_allclose(shown[inner], expected, atol=0.51)
    for tissue_class in PROFILE.classes:
        assert _has_color(shown[300:], tissue_class.rgb)


@pytest.mark.parametrize("shape", [(70, 50), (700, 300), (1234, 900), (1, 1), (200, 2000)])
def test_labels_picked_from_bands_are_those_nearest(shape: tuple[int, int]) -> None:
    mask = np.random.default_rng(0).integers(0, 5, (700, 600)).astype(np.uint8)
    picker = LabelPicker((600, 700), shape)
    for y in range(0, 700, 64):
        picker.put(mask[y : y + 64])
    rows, columns = (
        np.floor((np.arange(length) + 0.5) * length_px / length).astype(int)
        for length, length_px in zip(shape, mask.shape, strict=True)
    )
    np.testing.assert_array_equal(picker.labels, mask[np.ix_(rows, columns)])


def test_lines_are_darker_and_one_pixel_wide() -> None:
    thumbnail = np.full((20, 20, 3), 200, np.uint8)
    labels = np.full((20, 20), 4, np.uint8)
    labels[5:15, 5:10] = 0
    labels[5:15, 10:15] = 1
    shown = blend(thumbnail, labels, PROFILE)
    row = shown[10].astype(int).sum(1)
    plain = [row[7], row[12]]  # middle of each class
    for edges, label in (((5, 9), 0), ((10, 14), 1)):
        for edge in edges:
            dark = 0.55 * np.asarray(PROFILE.classes[label].rgb)
            np.testing.assert_allclose(shown[10, edge], dark, atol=0.51)
            assert row[edge] < plain[label]
    assert (row[6:9] == plain[0]).all() and (row[11:14] == plain[1]).all()
    assert (row[:5] == 600).all() and (row[15:] == 600).all()
    assert thumbnail.min() == thumbnail.max() == 200  # the input is not painted on


@pytest.mark.parametrize("line_px", [1.0, 2.0, 2.6, 5.0])
@pytest.mark.parametrize("degrees", [0, 10, 30, 43])
def test_a_line_is_as_wide_at_any_angle_and_smooth(line_px: float, degrees: float) -> None:
    y, x = np.mgrid[-60.0:60, -60.0:60] + 0.5
    turn = math.radians(degrees)
    labels = np.where(x * math.cos(turn) + y * math.sin(turn) > 0, 0, 4).astype(np.uint8)
    shown = blend(np.full((120, 120, 3), 250, np.uint8), labels, PROFILE, line_px)
    tint = np.rint(0.55 * 250 + 0.45 * np.asarray(PROFILE.classes[0].rgb))
    dark = 0.55 * np.asarray(PROFILE.classes[0].rgb)
    channel = int(np.argmax(tint - dark))
    under = np.where(labels == 0, tint[channel], 250)
    cover = (under - shown[..., channel]) / (under - dark[channel])
    widths = cover[20:100].sum(1) * math.cos(turn)  # of each row, across the line
    assert widths.mean() == pytest.approx(line_px, rel=0.04)
    assert np.ptp(widths) < 0.5  # a staircase of whole pixels has 1
    if degrees:
        between = (cover > 0.15) & (cover < 0.85)
        assert between.sum() > 60


def test_a_picture_in_parts_has_the_lines_of_a_whole_one(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = (np.random.default_rng(3).normal(size=(90, 70)) > 0).astype(np.uint8)
    whole = blend(_thumbnail(90, 70), labels, PROFILE)
    monkeypatch.setattr("sshr_deploy.runtime.writers.overlay._ROWS", 7)
    np.testing.assert_array_equal(blend(_thumbnail(90, 70), labels, PROFILE), whole)


def test_all_background_shows_the_thumbnail(tmp_path: Path) -> None:
    thumbnail = _thumbnail(400, 700)
    mask = np.full((50, 90), 4, np.uint8)
    path = tmp_path / "o.png"
    write_overlay(path, thumbnail, mask, profile=PROFILE, shares={}, title="", mpp_um=1.0)
    np.testing.assert_array_equal(np.asarray(Image.open(path))[:400], thumbnail)


@pytest.mark.parametrize("size", [(300, 600), (301, 607), (40, 31)])
def test_the_second_file_is_twice_as_large_and_shows_the_same(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    height, width = size
    small, large = tmp_path / "o.png", tmp_path / "o@2x.png"
    write_overlay(
        small, _thumbnail(height, width), _mask(height, width), profile=PROFILE, shares=SHARES,
        title="s.svs", mpp_um=1.0, path_2x=large,
    )  # fmt: skip
    one, two = (np.asarray(Image.open(path)).astype(int) for path in (small, large))
    assert two.shape == (2 * one.shape[0], 2 * one.shape[1], 3)
    means = two.reshape(one.shape[0], 2, one.shape[1], 2, 3).mean((1, 3))
    np.testing.assert_allclose(one, means, atol=0.51)
    left = (two.shape[1] - width) // 2
    shown = blend(_thumbnail(height, width), _mask(height, width), PROFILE, 2.0)
    np.testing.assert_array_equal(two[:height, left : left + width], shown)


def test_labels_of_a_part_are_those_of_the_whole_there() -> None:
    mask = np.random.default_rng(0).integers(0, 5, (700, 600)).astype(np.uint8)
    whole = LabelPicker((600, 700), (350, 300))
    part = LabelPicker((600, 700), (70, 150), Box(0.25, 0.4, 0.75, 0.6))
    for y in range(0, 700, 64):
        whole.put(mask[y : y + 64])
        part.put(mask[y : y + 64])
    np.testing.assert_array_equal(part.labels, whole.labels[140:210, 75:225])


def test_a_part_of_a_slide_says_where_it_is(tmp_path: Path) -> None:
    """The small map in the strip, on a slide of 2000 x 1000 px."""
    box = Box(0.5, 0.25, 0.75, 1.0)
    strips = []
    for place in (None, Box(), box):
        write_overlay(
            tmp_path / "o.png", _thumbnail(750, 500), _mask(75, 50), profile=PROFILE,
            shares=SHARES, title="", mpp_um=None, box=place,
        )  # fmt: skip
        strips.append(np.asarray(Image.open(tmp_path / "o.png"))[750:])
    np.testing.assert_array_equal(strips[0], strips[1])
    rows, columns = np.nonzero((strips[2] != strips[0]).any(-1))
    frame = strips[2][rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    assert frame.shape[1] == pytest.approx(2 * frame.shape[0], abs=1)
    inner = (frame[1:-1, 1:-1] == 120).all(-1)
    rows, columns = np.nonzero(inner)
    found = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    wide, high = frame.shape[1] - 2, frame.shape[0] - 2
    expected = box.left * wide, box.top * high, box.right * wide, box.bottom * high
    np.testing.assert_allclose(found, expected, atol=1.5)


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


@pytest.mark.parametrize("count", [1, 4, 16])
def test_label_png_holds_labels_and_palette(tmp_path: Path, count: int) -> None:
    classes = tuple(TissueClass(name=f"c{i}", color=f"#{i:02x}10ff") for i in range(count))
    profile = Profile(
        name="x", title="x", mpp_um=1.0, gate_threshold=0.2, classes=classes,
        background_color="#fefefe",
    )  # fmt: skip
    mask = np.random.default_rng(0).integers(0, count + 1, (37, 53)).astype(np.uint8)
    path = tmp_path / "m.png"
    write_label_png(path, mask, profile=profile)
    image = Image.open(path)
    assert image.mode == "P"
    np.testing.assert_array_equal(np.asarray(image), mask)
    colors = np.asarray(profile.palette, np.uint8)[mask]
    np.testing.assert_array_equal(np.asarray(image.convert("RGB")), colors)


def test_label_png_refuses_labels_without_a_colour(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="label 5 in a mask of 4 classes"):
        write_label_png(tmp_path / "m.png", np.full((2, 2), 5, np.uint8), profile=PROFILE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("size", "small"), [((1000, 700), (320, 224)), ((90, 3000), (10, 320)), ((5, 300), (5, 300))]
)
def test_a_thumbnail_is_a_small_picture_of_the_same(
    tmp_path: Path, size: tuple[int, int], small: tuple[int, int]
) -> None:
    height, width = size
    ramp = np.linspace(40, 240, width)[None, :, None] * np.ones((height, 1, 3))
    write_thumbnail(tmp_path / "t.jpg", ramp.astype(np.uint8))
    image = Image.open(tmp_path / "t.jpg")
    assert (image.format, image.size) == ("JPEG", small[::-1])
    shown = np.asarray(image.convert("L")).mean(0)
    expected = np.interp(np.linspace(0, 1, small[1]), [0, 1], [40, 240])
    np.testing.assert_allclose(shown, expected, atol=4)
