"""What is plainly no H&E is refused; real H&E, however stained or scanned, never is."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import openslide
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from sshr_deploy.errors import InputError
from sshr_deploy.runtime.settings import TissueChoice
from sshr_deploy.runtime.slides.stain import check_stain, stain_concern
from tests.runtime.running import Recorder, Runner, read_summary

Rgb = NDArray[np.uint8]

# Ruifrok and Johnston 2001, table 1: haematoxylin, eosin, DAB in optical density of R, G, B
VECTORS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)
CROPS = ((900, 400), (1000, 1500), (1300, 2200))
"""Corners in the demo slide."""


@pytest.fixture(scope="module")
def slide(demo_slide: Path) -> Rgb:
    """The whole demo slide (CC0) at 4 um/px."""
    with openslide.OpenSlide(demo_slide) as reader:
        whole = np.asarray(reader.read_region((0, 0), 0, reader.dimensions).convert("RGB"))
    return cv2.resize(whole, None, fx=0.125, fy=0.125, interpolation=cv2.INTER_AREA).astype(
        np.uint8
    )


@pytest.fixture(scope="module")
def patches(demo_slide: Path) -> list[Rgb]:
    with openslide.OpenSlide(demo_slide) as reader:
        return [np.asarray(reader.read_region(c, 0, (224, 224)).convert("RGB")) for c in CROPS]


def amounts(rgb: Rgb) -> NDArray[np.float64]:
    """Haematoxylin, eosin and DAB at each pixel, [h, w, 3]."""
    stains: NDArray[np.float64] = -np.log((rgb + 1.0) / 244) @ np.linalg.inv(VECTORS)
    return np.maximum(stains, 0)


def painted(stains: NDArray[np.float64]) -> Rgb:
    rgb: Rgb = np.clip(244 * np.exp(-stains @ VECTORS) - 1, 0, 255).astype(np.uint8)
    return rgb


def stained(rgb: Rgb, haematoxylin: float, eosin: float) -> Rgb:
    return painted(amounts(rgb) * (haematoxylin, eosin, 1.0))


def immunostained(rgb: Rgb, dab: float) -> Rgb:
    """DAB where there was eosin, as cytoplasm and fibres in a strongly positive section."""
    was = amounts(rgb)
    return painted(np.stack([was[..., 0], 0 * was[..., 0], dab * was[..., 1]], axis=-1))


def grey(rgb: Rgb) -> Rgb:
    return np.repeat(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)


def in_jpeg(rgb: Rgb, quality: int) -> Rgb:
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file).convert("RGB"))


def dapi(rgb: Rgb) -> Rgb:
    """Nuclei that shine blue on a dark, slightly noisy background."""
    light = np.clip(amounts(rgb)[..., :1], 0, 1) * (15, 40, 235)
    noise = np.random.default_rng(0).normal(6, 2, rgb.shape)
    return np.clip(light + noise, 0, 255).astype(np.uint8)


def with_second_dye(rgb: Rgb) -> Rgb:
    """DAPI, and fibres in green."""
    light = np.clip(amounts(rgb)[..., 1:2] * 0.7, 0, 1) * (10, 220, 30)
    return np.clip(dapi(rgb) + light, 0, 255).astype(np.uint8)


H_AND_E: dict[str, Callable[[Rgb], Rgb]] = {
    "as scanned": lambda rgb: rgb,
    "tinted": lambda rgb: np.clip(rgb * (1.05, 0.97, 0.88), 0, 255).astype(np.uint8),
    "more eosin": lambda rgb: stained(rgb, 1, 1.4),
    "less eosin": lambda rgb: stained(rgb, 1, 0.6),
    "less haematoxylin": lambda rgb: stained(rgb, 0.5, 1),
    "gamma 1.4": lambda rgb: (255 * (rgb / 255) ** 1.4).astype(np.uint8),
    "gamma 0.7": lambda rgb: (255 * (rgb / 255) ** 0.7).astype(np.uint8),
    "pale": lambda rgb: stained(rgb, 0.4, 0.4),
    "dark": lambda rgb: stained(rgb, 2, 2),
    "coarse JPEG": lambda rgb: in_jpeg(rgb, 30),
    "black fill": lambda rgb: np.pad(rgb, ((0, 0), (0, 3 * rgb.shape[1]), (0, 0))),
}


@pytest.mark.parametrize("name", H_AND_E)
def test_h_and_e_is_never_refused(name: str, slide: Rgb, patches: list[Rgb]) -> None:
    for picture in (slide, *patches):
        assert stain_concern(H_AND_E[name](picture)) is None


NOT_H_AND_E: dict[str, tuple[Callable[[Rgb], Rgb], str]] = {
    "inverted": (lambda rgb: 255 - rgb, "background is dark|not those of haematoxylin and eosin"),
    "grey": (grey, "no colours, only greys"),
    "light grey": (lambda rgb: 130 + grey(rgb) // 3, "no colours, only greys"),
    "grey JPEG": (lambda rgb: in_jpeg(grey(rgb), 75), "no colours, only greys"),
    "DAPI": (dapi, "background is dark"),
    "two dyes": (with_second_dye, "background is dark|not those of haematoxylin and eosin"),
    "DAPI in grey": (lambda rgb: grey(dapi(rgb)), "background is dark"),
    "black": (np.zeros_like, "background is dark"),
    "almost black": (
        lambda rgb: np.random.default_rng(0).integers(0, 12, rgb.shape).astype(np.uint8),
        "background is dark",
    ),
    "immunostain": (lambda rgb: immunostained(rgb, 1.0), "immunostains"),
    "strong immunostain": (lambda rgb: immunostained(rgb, 1.5), "immunostains"),
}


@pytest.mark.parametrize("name", NOT_H_AND_E)
def test_other_stains_are_named(name: str, slide: Rgb, patches: list[Rgb]) -> None:
    change, says = NOT_H_AND_E[name]
    shown = [slide] if "immunostain" in name else [slide, *patches]  # a part may hold no brown
    for picture in shown:
        with pytest.raises(InputError, match=says) as caught:
            check_stain(Path("x.svs"), change(picture), any_stain=False)
        assert "`any_stain`" in str(caught.value)
        concern = check_stain(Path("x.svs"), change(picture), any_stain=True)
        assert concern is not None and concern in str(caught.value)


def test_pictures_without_tissue_are_no_concern() -> None:
    """Glass bright and dim, a coverslip's edge, marks of four pens on glass."""
    for level in (255, 242, 200, 160):
        assert stain_concern(np.full((224, 224, 3), level, np.uint8)) is None
    for ink in ((20, 22, 30), (200, 20, 45), (45, 150, 130), (40, 60, 160)):
        glass = np.random.default_rng(0).normal(240, 2, (400, 400, 3))
        y, x = np.mgrid[:400, :400]
        mark = np.clip(1.3 - np.abs(x - y) / 40, 0, 1)[..., None]
        picture = np.clip(glass * (1 - mark) + mark * ink, 0, 255).astype(np.uint8)
        assert stain_concern(picture) is None, ink


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 1), (5000, 40)])
def test_any_size_is_judged(shape: tuple[int, int]) -> None:
    assert stain_concern(np.full((*shape, 3), 255, np.uint8)) is None
    assert stain_concern(np.zeros((*shape, 3), np.uint8)) is not None


@pytest.fixture
def mixed(tmp_path: Path, slide: Rgb, patches: list[Rgb]) -> Path:
    """A fluorescence slide, a grey one, a black patch, and a patch of H&E."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name, rgb in (("dapi.tif", dapi(slide)), ("grey.tif", grey(slide))):
        tifffile.imwrite(
            folder / name, rgb, photometric="rgb", metadata=None,
            resolution=(1e4, 1e4), resolutionunit="CENTIMETER",
        )  # fmt: skip
    Image.new("RGB", (224, 224)).save(folder / "black.png")
    Image.fromarray(patches[0]).save(folder / "tissue.png")
    return folder


@pytest.mark.parametrize("tissue", list(TissueChoice))
def test_a_run_refuses_them_before_the_engine(
    infer: Runner, mixed: Path, tmp_path: Path, tissue: TissueChoice
) -> None:
    recorder = Recorder()
    result = infer(mixed, tmp_path / "out", reporter=recorder, tissue=tissue)
    reasons = {r.path.name: r.reason for r in result.results if r.status == "failed"}
    assert set(reasons) == {"dapi.tif", "grey.tif", "black.png"}
    assert all("does not look like H&E" in reason for reason in reasons.values())
    assert recorder.announced == 1
    assert result.exit_code == 1


def test_any_stain_segments_every_tile_and_says_so(
    infer: Runner, mixed: Path, demo_slide: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert infer(mixed, out, any_stain=True).exit_code == 0
    for name, says in (("dapi.tif", "dark"), ("grey.tif", "only greys")):
        summary = read_summary(out / name)
        assert says in summary["stain_concern"]
        assert summary["tiles"]["computed"] == summary["tiles"]["total"] > 0
    again = infer(mixed, out)
    assert {r.status for r in again.results} == {"skipped"}, "what was asked for once is kept"
