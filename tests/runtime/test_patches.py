from __future__ import annotations

import re
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from sshr_deploy.errors import InputError
from sshr_deploy.runtime.patches import read_image, resize_to_patch
from sshr_deploy.runtime.slides import open_slide


def _sixteen_bit_grey(path: Path) -> None:
    Image.fromarray(np.full((40, 60), 40_000, np.uint16)).save(path)


def _sixteen_bit_rgb(path: Path) -> None:
    deep = np.full((40, 60, 3), 40_000, np.uint16)
    if path.suffix == ".png":
        assert cv2.imwrite(str(path), deep)
    else:
        tifffile.imwrite(path, deep, photometric="rgb")


def _bilevel(path: Path) -> None:
    Image.new("1", (60, 40)).save(path)


def _cmyk(path: Path) -> None:
    _noise((60, 40)).convert("CMYK").save(path)


def _over_white(image: Image.Image) -> Image.Image:
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image.convert("RGBA"))
    return white.convert("RGB")


def _noise(size: tuple[int, int]) -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8))


def _files(image: Image.Image, folder: Path) -> Iterator[Path]:
    """The image as PNG and as TIFF, in that order."""
    for suffix in ("png", "tif"):
        path = folder / f"x.{suffix}"
        image.save(path)
        yield path


def _read(path: Path) -> NDArray[np.uint8]:
    """As an image by its reader, or as a slide by its."""
    if path.suffix != ".tif":
        return read_image(path)
    with open_slide(path) as slide:
        return slide.read_region(0, 0, 0, *slide.level_sizes_px[0])


def _half_transparent(mode: str) -> Image.Image:
    image = _noise((60, 40)).convert(mode)
    image.putalpha(Image.fromarray(np.arange(2400, dtype=np.uint16).reshape(40, 60).astype("u1")))
    return image


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (_noise((60, 40)), _noise((60, 40))),
        (_noise((60, 40)).convert("L"), _noise((60, 40)).convert("L").convert("RGB")),
        (_noise((60, 40)).quantize(99), _noise((60, 40)).quantize(99).convert("RGB")),
        (_noise((60, 40)).quantize(5), _noise((60, 40)).quantize(5).convert("RGB")),
        (_half_transparent("RGB"), _over_white(_half_transparent("RGB"))),
        (_half_transparent("L"), _over_white(_half_transparent("L"))),
    ],
    ids=["RGB", "grey", "palette", "few colours", "RGBA", "grey with alpha"],
)
def test_eight_bit_pixels_are_one_rgb_as_png_and_as_tiff(
    tmp_path: Path, image: Image.Image, expected: Image.Image
) -> None:
    for path in _files(image, tmp_path):
        found = _read(path)
        assert found.dtype == np.uint8
        assert np.abs(found.astype(int) - np.asarray(expected)).max() <= 1, path.name


@pytest.mark.parametrize(
    ("make", "suffixes", "problem"),
    [
        (_sixteen_bit_grey, ("png", "tif"), "has 16 bits a sample"),
        (_sixteen_bit_rgb, ("png", "tif"), "has 16 bits a sample"),
        (_bilevel, ("png", "tif"), "has 1 bit a sample"),
        (_cmyk, ("jpg", "tif"), "stores its colours as CMYK"),
    ],
)
def test_other_samples_are_refused_in_the_same_words_as_image_and_as_slide(
    tmp_path: Path, make: Callable[[Path], object], suffixes: tuple[str, ...], problem: str
) -> None:
    for suffix in suffixes:
        path = tmp_path / f"x.{suffix}"
        make(path)
        with pytest.raises(InputError) as caught:
            _read(path)
        assert str(caught.value) == (
            f"{path} {problem}; SSHR needs 8-bit RGB brightfield, "
            "convert it to that with glass near 255"
        )


def test_damaged_files_give_one_line_that_names_them(tmp_path: Path) -> None:
    _noise((64, 64)).save(tmp_path / "good.png")
    whole = (tmp_path / "good.png").read_bytes()
    broken = {
        "empty.png": b"",
        "text.png": b"no image at all",
        "half.png": whole[: len(whole) // 2],
        "head.png": whole[:20],
        "chunk.png": whole[:40] + bytes(20) + whole[60:],
        "gif.png": b"GIF89a" + bytes(20),
    }
    for name, content in broken.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=rf"{name} cannot be read") as caught:
            read_image(tmp_path / name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("size", "says"),
    [
        ((6000, 5000), "is 6000 x 5000 px, above the 25 Mpx .*pyramidal TIFF, which infer takes"),
        ((1, 1), "is 1 x 1 px; give an image of at least 32 px on each side"),
        ((20000, 1), "is 20000 x 1 px; give an image of at least 32 px on each side"),
        ((31, 300), "is 31 x 300 px; give an image of at least 32 px on each side"),
        ((641, 32), "is 641 x 32 px, one side more than 20 times the other; cut it into shorter"),
        ((32, 641), "is 32 x 641 px, one side more than 20 times the other; cut it into shorter"),
    ],
)
def test_sizes_that_are_no_field_of_tissue_are_refused(
    tmp_path: Path, size: tuple[int, int], says: str
) -> None:
    path = tmp_path / "x.png"
    Image.new("L", size).save(path)
    with pytest.raises(InputError, match=f"^{re.escape(str(path))} {says}"):
        read_image(path)


@pytest.mark.parametrize("size", [(32, 32), (640, 32)])
def test_sizes_at_the_limits_are_read(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("L", size).save(tmp_path / "x.png")
    assert read_image(tmp_path / "x.png").shape == (size[1], size[0], 3)


def test_a_decompression_bomb_is_not_decoded(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    _noise((64, 64)).save(path)
    header = b"IHDR" + struct.pack(">II", 20_000, 20_000) + path.read_bytes()[24:29]
    checked = header + struct.pack(">I", zlib.crc32(header))
    path.write_bytes(path.read_bytes()[:12] + checked + path.read_bytes()[33:])
    with pytest.raises(InputError, match=r"bomb\.png is above the 25 Mpx .* which infer takes"):
        read_image(path)


def test_resize_leaves_a_patch_as_it_is() -> None:
    patch = np.asarray(_noise((224, 224)))
    assert np.array_equal(resize_to_patch(patch), patch)


def test_reading_in_threads_leaves_the_warning_filters_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "palette.png"
    Image.new("P", (300, 300)).save(path, transparency=b"\x00\x80")  # Pillow warns of these
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        images = list(pool.map(read_image, [path] * 200))
    assert {image.shape for image in images} == {(300, 300, 3)}
    assert warnings.filters == before
