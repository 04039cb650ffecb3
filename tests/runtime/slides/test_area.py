from __future__ import annotations

import math
import threading
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from sshr_deploy.errors import InputError
from sshr_deploy.runtime.slides import Mpp, read_area
from sshr_deploy.runtime.slides.area import read_in_blocks
from sshr_deploy.runtime.slides.reader import downsamples_of
from tests.runtime.slides.synthetic import ArrayReader, Rgb, pyramid, smooth_noise

HALF = Mpp(0.5, 0.5, "file")
PATIENCE_S = 30.0


def overlap_matrix(source_px: int, target_px: int) -> NDArray[np.float64]:
    """[target, source]: share of each source pixel in each target pixel, rows sum to 1."""
    scale = source_px / target_px
    matrix = np.zeros((target_px, source_px))
    for t in range(target_px):
        for s in range(source_px):
            matrix[t, s] = max(0.0, min((t + 1) * scale, s + 1) - max(t * scale, s)) / scale
    return matrix


def area_average(rgb: Rgb, width_px: int, height_px: int) -> NDArray[np.float64]:
    """Float64 area average by explicit overlaps, [height_px, width_px, 3]."""
    down = overlap_matrix(rgb.shape[0], height_px)
    across = overlap_matrix(rgb.shape[1], width_px)
    out: NDArray[np.float64] = np.einsum("ts,swc,vw->tvc", down, rgb.astype(np.float64), across)
    return out


@pytest.mark.parametrize("target_mpp_um", [0.5, 0.61, 0.75, 1.0, 1.37, 2.0])
def test_shrinking_is_an_area_average(target_mpp_um: float) -> None:
    picture = smooth_noise(400, 300)
    reader = ArrayReader([picture])
    size, x, y = 64, 37, 21
    got = read_area(
        reader, HALF, target_mpp_um=target_mpp_um, l0_x=x, l0_y=y, width_px=size, height_px=size
    )
    _, l_x, l_y, columns, rows = reader.reads[0]
    assert (l_x, l_y) == (x, y)
    assert abs(columns - size * target_mpp_um / 0.5) <= 0.5
    wanted = area_average(picture[y : y + rows, x : x + columns], size, size)
    assert np.abs(got - wanted).max() <= 0.51
    assert abs(float((got - wanted).mean())) < 0.15  # halves of a level are rounded up


def test_x_and_y_are_scaled_apart() -> None:
    picture = smooth_noise(400, 300)
    reader = ArrayReader([picture])
    mpp = Mpp(0.5, 0.54, "file")
    got = read_area(reader, mpp, target_mpp_um=1.08, l0_x=0, l0_y=0, width_px=50, height_px=40)
    assert reader.reads[0][3:] == (108, 80)
    assert np.abs(got - area_average(picture[:80, :108], 50, 40)).max() <= 0.51


@pytest.mark.parametrize(
    ("target_mpp_um", "level"),
    [(0.5, 0), (0.496, 0), (0.9, 0), (0.99, 0), (0.991, 1), (1.0, 1), (1.9, 1), (2.0, 2), (9.0, 2)],
)
def test_the_coarsest_level_not_coarser_than_the_target_is_read(
    target_mpp_um: float, level: int
) -> None:
    reader = ArrayReader(pyramid(smooth_noise(256, 256), 3))
    read_area(reader, HALF, target_mpp_um=target_mpp_um, l0_x=0, l0_y=0, width_px=8, height_px=8)
    assert reader.reads[0][0] == level


def test_positions_do_not_drift_and_neighbours_touch() -> None:
    reader = ArrayReader(pyramid(smooth_noise(64, 64), 2))
    target_mpp_um, size = 1.3, 224
    step_l0 = size * target_mpp_um / 0.5
    for t_x in range(200):
        read_area(
            reader,
            HALF,
            target_mpp_um=target_mpp_um,
            l0_x=t_x * step_l0,
            l0_y=0.0,
            width_px=size,
            height_px=2,
        )
    starts = np.array([read[1] for read in reader.reads])
    ends = starts + np.array([read[3] for read in reader.reads])
    assert np.abs(starts - np.arange(200) * step_l0 / 2).max() <= 0.5
    np.testing.assert_array_equal(starts[1:], ends[:-1])


def test_outside_the_slide_is_white() -> None:
    reader = ArrayReader([np.zeros((100, 120, 3), np.uint8)])
    got = read_area(
        reader, HALF, target_mpp_um=0.5, l0_x=-10.0, l0_y=80.0, width_px=200, height_px=50
    )
    wanted = np.full((50, 200, 3), 255, np.uint8)
    wanted[:20, 10:130] = 0
    np.testing.assert_array_equal(got, wanted)


def test_enlarging_is_bilinear_up_to_twice() -> None:
    ramp = np.repeat(np.arange(0, 200, 2, dtype=np.uint8)[None, :, None], 100, axis=0)
    reader = ArrayReader([np.ascontiguousarray(np.repeat(ramp, 3, axis=2))])
    got = read_area(reader, HALF, target_mpp_um=0.25, l0_x=10, l0_y=10, width_px=60, height_px=60)
    wanted = 20 + np.clip((np.arange(60) + 0.5) / 2 - 0.5, 0, 29) * 2
    assert np.abs(got[30, :, 0] - wanted).max() <= 0.51


def test_a_slide_too_coarse_for_the_model_is_refused() -> None:
    reader = ArrayReader([np.zeros((100, 100, 3), np.uint8)])
    with pytest.raises(InputError, match=r"synthetic.svs is too coarse.*2 um/px.*0.25.*`mpp`"):
        read_area(
            reader,
            Mpp(2.0, 2.0, "file"),
            target_mpp_um=0.25,
            l0_x=0,
            l0_y=0,
            width_px=8,
            height_px=8,
        )
    assert not reader.reads


@pytest.mark.parametrize(
    ("sizes", "wanted"),
    [
        (((4443, 3567), (2221, 1783)), (1.0, 2.0)),
        (((4443, 3567), (2222, 1784), (1111, 892)), (1.0, 2.0, 4.0)),
        (((100000, 80000), (1562, 1250)), (1.0, 64.0)),
        (((1000, 800), (300, 240)), (1.0, 10 / 3)),
    ],
)
def test_downsamples_are_whole_where_sizes_allow(
    sizes: tuple[tuple[int, int], ...], wanted: tuple[float, ...]
) -> None:
    assert all(math.isclose(a, b) for a, b in zip(downsamples_of(sizes), wanted, strict=True))


class MeetingReader(ArrayReader):
    """Two of its reads go on at the same time, or all fail."""

    def __init__(self, levels: Sequence[Rgb]) -> None:
        super().__init__(levels)
        self._both = threading.Barrier(2)

    def read_region(self, level: int, l_x: int, l_y: int, width_px: int, height_px: int) -> Rgb:
        self._both.wait(PATIENCE_S)
        return super().read_region(level, l_x, l_y, width_px, height_px)


def test_blocks_are_read_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sshr_deploy.runtime.slides.area._BLOCK_SOURCE_PX", 1 << 12)
    monkeypatch.setattr("sshr_deploy.runtime.slides.area.usable_cores", lambda: 2)
    rgb = smooth_noise(128, 128)
    reader = MeetingReader([rgb])
    picture = read_in_blocks(reader, HALF, target_mpp_um=0.5, width_px=128, height_px=128)
    np.testing.assert_array_equal(picture, rgb)
    assert len(reader.reads) == 4


def test_a_stop_between_blocks_ends_the_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sshr_deploy.runtime.slides.area._BLOCK_SOURCE_PX", 1 << 8)
    reader = ArrayReader([smooth_noise(128, 128)])
    checks = iter(range(3))

    def stop() -> None:
        if next(checks) == 2:
            raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        read_in_blocks(
            reader, HALF, target_mpp_um=0.5, width_px=128, height_px=128,
            check_stop=stop,
        )  # fmt: skip
    assert len(reader.reads) < 64
    assert threading.active_count() == before
