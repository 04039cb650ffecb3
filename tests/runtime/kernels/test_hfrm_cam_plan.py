"""What a launch of `hfrm_cam` is, and which sizes a build that was made ahead of time takes."""

from __future__ import annotations

import pytest

from sshr_deploy.errors import KernelArgumentError
from sshr_deploy.runtime.kernels.hfrm_cam.plan import (
    check_fit,
    choose_config,
    make_plan,
    variant_name,
    variants,
)


def _check(shape: tuple[int, int, int, int], layout: str = "nchw") -> None:
    _, channels, height, width = shape
    config = choose_config(90, "fp16", 4)
    image = channels * height * width
    strides = (image, height * width, width, 1)
    if layout == "nhwc":
        strides = (image, 1, width * channels, channels)
    (build,) = (v for v in variants(90) if v.name == variant_name("fp16", layout, 4))
    check_fit(build, make_plan(config, shape, strides, 4, 132).cam.scalars)


def test_the_networks_maps_fit() -> None:
    for channels in (512, 1024):
        for layout in ("nchw", "nhwc"):
            _check((3, channels, 28, 28), layout)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 16, 8, 6), "W is 6; fp16-nchw-n4 needs a multiple of 4"),
        ((1, 16, 8, 30), "W is 30; fp16-nchw-n4 needs a multiple of 4"),
        ((1, 16, 4, 132), "W is 132; fp16-nchw-n4 takes at most 128"),
        ((1, 24, 8, 28), "C is 24; fp16-nchw-n4 needs a multiple of 16"),
        ((1, 16, 3, 4), "stride_c is 12; fp16-nchw-n4 needs a multiple of 16"),
    ],
)
def test_maps_that_a_build_would_read_wrongly_are_named(
    shape: tuple[int, int, int, int], message: str
) -> None:
    with pytest.raises(KernelArgumentError, match=message):
        _check(shape)


def test_few_tiles_split_the_channels_and_many_do_not() -> None:
    config = choose_config(90, "fp16", 4)
    strides = (512 * 784, 784, 28, 1)
    one, many = (make_plan(config, (b, 512, 28, 28), strides, 4, 132) for b in (1, 128))
    assert one.splits == 8  # of 64 channels
    assert one.add is not None
    assert (many.splits, many.add) == (1, None)


def test_maps_too_large_for_the_kernel_are_refused() -> None:
    config = choose_config(90, "fp16", 4)
    with pytest.raises(KernelArgumentError, match="smaller than 2\\*\\*31 elements"):
        make_plan(config, (1, 512, 3000, 3000), (512 * 9_000_000, 9_000_000, 3000, 1), 4, 132)
    wide = 66_000 * 114
    with pytest.raises(KernelArgumentError, match=f"feature is {wide} wide; split it"):
        make_plan(config, (1, 16, 1, wide), (16 * wide, wide, wide, 1), 4, 132)
