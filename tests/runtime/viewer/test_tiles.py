"""Tiles against the pixels and labels they were cut from."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sshr_deploy.errors import InputError
from sshr_deploy.runtime.pipeline.discovery import fingerprint_of
from sshr_deploy.runtime.viewer.pictures import open_picture
from sshr_deploy.runtime.viewer.pyramid import OVERLAP_PX, TILE_PX, Pyramid
from sshr_deploy.runtime.viewer.serving import Server
from tests.runtime.small_slides import small_picture, small_slide
from tests.runtime.viewer.asking import ask, listed
from tests.runtime.viewer.conftest import EVIL
from tests.runtime.viewer.results import PROFILE, labels

LAST = 10
"""Level of the small slides at full size, 700 x 600 px."""


def image(server: Server, name: str, tail: str) -> Image.Image:
    number = listed(server)[name]["id"]
    answer = ask(server, f"inputs/{number}/{tail}")
    assert answer.status == 200, answer.body
    return Image.open(io.BytesIO(answer.body))


def rgb(server: Server, name: str, tail: str) -> NDArray[np.uint8]:
    return np.asarray(image(server, name, tail).convert("RGB"))


def test_tiles_of_a_level_cover_it() -> None:
    pyramid = Pyramid(1000, 700)
    assert pyramid.last_level == 10
    seen = np.zeros((700, 1000), int)
    for column in range(2):
        for row in range(2):
            box = pyramid.tile(10, column, row)
            seen[box.y_px : box.y_px + box.height_px, box.x_px : box.x_px + box.width_px] += 1
    assert seen.min() == 1
    assert np.unique(np.nonzero(seen > 1)[1]).tolist()[:2] == [0, 1]  # rows overlap all along
    doubled = np.flatnonzero((seen > 1).all(0))
    assert doubled.tolist() == list(range(TILE_PX - OVERLAP_PX, TILE_PX + OVERLAP_PX))
    with pytest.raises(LookupError):
        pyramid.tile(10, 2, 0)
    with pytest.raises(LookupError):
        pyramid.tile(11, 0, 0)


@pytest.mark.parametrize(("step", "level"), [(1, 10), (1.9, 10), (2, 9), (4.2, 8), (5000, 0)])
def test_level_of_a_pixel_size(step: float, level: int) -> None:
    assert Pyramid(1000, 700).level_of(step) == level


@pytest.mark.parametrize("name", ["a.tif", EVIL])
def test_slide_tiles_are_its_pixels(server: Server, name: str) -> None:
    picture = small_picture()
    tile = rgb(server, name, f"picture/{LAST}/1_0").astype(int)
    wanted = picture[0:513, 511:700]
    assert tile.shape == wanted.shape
    assert np.abs(tile - wanted).mean() < 3  # JPEG
    half = rgb(server, name, f"picture/{LAST - 1}/0_0")
    assert half.shape == (300, 350, 3)
    assert np.abs(half.astype(int) - picture.reshape(300, 2, 350, 2, 3).mean((1, 3))).mean() < 3


def test_image_tiles_are_its_pixels(server: Server) -> None:
    tile = rgb(server, "image.png", "picture/9/0_0").astype(int)
    assert np.abs(tile - small_picture(300, 400)).mean() < 3


@pytest.mark.parametrize("name", ["a.tif", "gone.tif"])
def test_mask_tiles_are_the_mask(server: Server, name: str) -> None:
    tile = np.asarray(image(server, name, f"mask/7/{LAST}/1_0"))
    assert (tile == labels(600, 700)[0:513, 511:700]).all()


def test_mask_tiles_of_coarse_levels_are_labels(server: Server) -> None:
    tile = np.asarray(image(server, "a.tif", f"mask/7/{LAST - 2}/0_0"))
    mask = labels(600, 700)
    assert tile.shape == (150, 175)
    assert (tile == mask[2::4, 2::4]).all()


def test_mask_of_an_image(server: Server) -> None:
    tile = np.asarray(image(server, "image.png", "mask/7/9/0_0"))
    assert (tile == labels(300, 400)).all()


@pytest.mark.parametrize("shown", [0, 1, 2, 5, 7])
def test_classes_are_shown_or_transparent(server: Server, shown: int) -> None:
    rgba = np.asarray(image(server, "a.tif", f"mask/{shown:x}/{LAST}/0_0").convert("RGBA"))
    mask = labels(600, 700)[:513, :513]
    for label in range(PROFILE.num_classes + 1):
        pixels = rgba[mask == label]
        is_shown = label < PROFILE.num_classes and bool(shown >> label & 1)
        assert set(pixels[:, 3].tolist()) == {255 if is_shown else 0}
        if is_shown:
            assert (pixels[:, :3] == PROFILE.classes[label].rgb).all()


def test_mask_lies_where_the_slide_does(server: Server) -> None:
    """The huge slide's mask has a pixel for each 32 x 32 of its own."""
    number = listed(server)["huge.tif"]["id"]
    detail = json.loads(ask(server, f"inputs/{number}").body)
    level = detail["mask"]["last_level"]
    assert level == 17 - 5  # 2 ** 17 >= 100,000, and pixels of 32 x 32
    tile = np.asarray(image(server, "huge.tif", f"mask/7/{level}/1_2"))
    assert (tile == labels(3125, 3125, cell=250)[1023:1537, 511:1025]).all()
    assert ask(server, f"inputs/{number}/mask/7/{level + 1}/0_0").status == 404


def test_huge_slide_has_tiles_everywhere(server: Server) -> None:
    assert (rgb(server, "huge.tif", "picture/17/195_0") == 255).all()
    middle = rgb(server, "huge.tif", "picture/17/100_100")[256, 256].astype(int)
    assert np.abs(middle - (190, 80, 140)).max() < 6
    number = listed(server)["huge.tif"]["id"]
    first = json.loads(ask(server, f"inputs/{number}").body)["picture"]["first_level"]
    assert rgb(server, "huge.tif", f"picture/{first}/0_0").size


def test_a_slide_that_is_gone_says_so(server: Server, results: Path) -> None:
    number = listed(server)["gone.tif"]["id"]
    detail = json.loads(ask(server, f"inputs/{number}").body)
    assert detail["picture"]["first_level"] is None
    gone = results.parent / "slides" / "gone.tif"
    assert detail["picture"]["lack"] == f"{gone} is not there any more"
    assert detail["mask"]["last_level"] == LAST
    assert ask(server, f"inputs/{number}/picture/{LAST}/0_0").status == 404


def test_another_slide_of_the_same_size_in_its_place_is_not_shown(tmp_path: Path) -> None:
    path = small_slide(tmp_path / "a.tif", seed=1)
    entry = path, "slide", (700, 600), fingerprint_of(path)
    open_picture(*entry).close()
    small_slide(path, seed=2)
    with pytest.raises(InputError, match="is not the file that was segmented; run infer on it"):
        open_picture(*entry)


def test_point_names_the_class(server: Server) -> None:
    number = listed(server)["a.tif"]["id"]

    def at(x: float, y: float) -> object:
        return json.loads(ask(server, f"inputs/{number}/point?x={x}&y={y}").body)

    assert at(20, 20) == {"label": 0, "name": "tumour"}
    assert at(70, 20) == {"label": 1, "name": "stroma"}
    assert at(170, 20) == {"label": 3, "name": "background"}
    assert at(-1, 20) == at(20, 600) == {"label": None}


def test_listing_has_failures(server: Server) -> None:
    (failed,) = json.loads(ask(server, "inputs").body)["not_shown"]
    assert failed["path"].endswith("broken.tif")
    assert failed["reason"].endswith("is empty (0 bytes)")
