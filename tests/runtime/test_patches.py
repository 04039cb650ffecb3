from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sshr_deploy.errors import InputError
from sshr_deploy.runtime.patches import read_image, resize_to_patch


def _noise(size: tuple[int, int]) -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1"])
def test_eight_bit_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    image = _noise((30, 20)).convert(mode)
    image.save(tmp_path / "x.png")
    rgb = read_image(tmp_path / "x.png")
    assert rgb.shape == (20, 30, 3)
    assert np.array_equal(rgb, np.asarray(image.convert("RGB")))


def test_cmyk_jpeg_becomes_rgb(tmp_path: Path) -> None:
    _noise((30, 20)).convert("CMYK").save(tmp_path / "x.jpg")
    assert read_image(tmp_path / "x.jpg").shape == (20, 30, 3)


def test_sixteen_bit_images_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(tmp_path / "x.png")
    with pytest.raises(InputError, match="convert it to 8-bit RGB"):
        read_image(tmp_path / "x.png")


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


def test_huge_images_are_no_patches(tmp_path: Path) -> None:
    Image.new("1", (6000, 5000)).save(tmp_path / "big.png")
    with pytest.raises(InputError, match=r"6000 x 5000 px, too large"):
        read_image(tmp_path / "big.png")


def test_a_decompression_bomb_is_not_decoded(tmp_path: Path) -> None:
    Image.new("1", (20000, 20000)).save(tmp_path / "bomb.png")
    with pytest.raises(InputError, match=r"bomb\.png"):
        read_image(tmp_path / "bomb.png")


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
