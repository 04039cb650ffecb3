"""Overlay and label image as Pillow reads them back."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sshr_deploy.profiles import Profile, TissueClass, load_profile
from sshr_deploy.runtime.slides.view import Box
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


def test_the_small_file_is_the_coloured_picture_without_its_legend(tmp_path: Path) -> None:
    thumbnail, mask = np.full((700, 1000, 3), 220, np.uint8), _mask(700, 1000)
    path = tmp_path / "small.jpg"
    write_overlay(
        tmp_path / "o.png", thumbnail, mask, profile=PROFILE, shares=SHARES, title="s.svs",
        mpp_um=1.0, path_small=path,
    )  # fmt: skip
    with Image.open(path) as image:
        assert (image.format, image.size) == ("JPEG", (320, 224))
        small = np.asarray(image).astype(float)
    shown = np.asarray(Image.open(tmp_path / "o.png"))[:700]
    for x in (60, 250, 410, 580, 750, 940):  # background, the middles of the stripes, background
        expected = shown[350, x]
        np.testing.assert_allclose(small[112, round(x * 0.32)], expected, atol=6)


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
