"""Synthetic H&E-like textures with patch labels and label maps, for demos and tests.

They are no tissue: four textures, named after what they look like, in a random mosaic. Stains
mix as in a transmitted-light microscope (Beer-Lambert): concentration maps of haematoxylin and
eosin -> optical density along two stain vectors -> RGB. At 1.0 um a pixel a nucleus is 5-11 px.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from sshr_deploy.runtime.slides.stain import EOSIN_OD, HAEMATOXYLIN_OD

CLASS_NAMES = ("dense nuclei", "pink fibres", "small round cells", "dark layers")
GLASS = len(CLASS_NAMES)
"""Value of empty glass in a label map."""

_MIN_SHARE = 0.03
"""A texture that would cover less than this of a patch is left out of it."""

Plane = NDArray[np.float32]
"""A map [H, W]."""


class Stains(NamedTuple):
    """Concentrations of the two stains, each a map [H, W], >= 0."""

    haematoxylin: Plane
    eosin: Plane


@dataclass(frozen=True)
class TexturePatch:
    """One synthetic patch."""

    rgb: NDArray[np.uint8]  # [H, W, 3]
    labels: NDArray[np.uint8]  # [N], 1 where the texture occurs
    label_map: NDArray[np.uint8]  # [H, W], 0 to N-1, GLASS for glass


def make_patch(rng: np.random.Generator, size_px: int = 224) -> TexturePatch:
    """Draw a mosaic of one to three textures, sometimes with glass, `size_px` a side at 1.0 um/px.

    The labels are exactly the textures in the label map. The same generator state gives the same
    patch.
    """
    label_map = _partition(rng, size_px)
    labels = np.array([(label_map == k).any() for k in range(GLASS)], np.uint8)
    strength = rng.uniform(0.75, 1.25, 2)
    haematoxylin = np.zeros((size_px, size_px), np.float32)
    eosin = np.zeros_like(haematoxylin)
    edge = rng.uniform(0.5, 1.2)
    for k in np.flatnonzero(labels):
        share = cv2.GaussianBlur((label_map == k).astype(np.float32), (0, 0), edge)
        stains = _TEXTURES[k](rng, size_px)
        haematoxylin += share * stains.haematoxylin * strength[0]
        eosin += share * stains.eosin * strength[1]
    return TexturePatch(_photograph(rng, Stains(haematoxylin, eosin)), labels, label_map)


def make_patches(seed: int, count: int, size_px: int = 224) -> list[TexturePatch]:
    """`count` patches from one seed."""
    rng = np.random.default_rng(seed)
    return [make_patch(rng, size_px) for _ in range(count)]


def _partition(rng: np.random.Generator, size: int) -> NDArray[np.uint8]:
    """Label map [H, W]: the largest of a few smooth noise fields wins, then glass cuts in."""
    count = int(rng.choice([1, 2, 3], p=[0.3, 0.45, 0.25]))
    chosen = rng.permutation(GLASS)[:count]
    scale = rng.uniform(40, 90)
    rough = rng.uniform(0.0, 0.25)
    fields = np.stack(
        [_smooth_noise(rng, size, scale) + rough * _smooth_noise(rng, size, 10) for _ in chosen]
    )
    empty = np.zeros((size, size), bool)
    if rng.random() < 0.4:
        field = _smooth_noise(rng, size, rng.uniform(50, 120))
        field = field + 0.2 * _smooth_noise(rng, size, 8)
        empty = field < np.quantile(field, rng.uniform(0.1, 0.6))
    while True:
        label_map: NDArray[np.uint8] = chosen[fields.argmax(0)].astype(np.uint8)
        label_map[empty] = GLASS
        shares = np.array([(label_map == k).mean() for k in chosen])
        if len(chosen) == 1 or shares.min() >= _MIN_SHARE:
            return label_map
        keep = np.arange(len(chosen)) != shares.argmin()
        chosen, fields = chosen[keep], fields[keep]


def _dense_nuclei(rng: np.random.Generator, size: int) -> Stains:
    """Oval nuclei of 7-11 px in a purple ground with faint pale cell borders."""
    pitch = rng.uniform(11, 19)
    nuclei = _ellipses(rng, size, pitch, (3.2, 5.2), (0.6, 1.0), angle=rng.uniform(0, 180))
    ground = rng.uniform(0.3, 0.62) * (1 + 0.10 * _smooth_noise(rng, size, 30))
    grain = 1 + 0.06 * _smooth_noise(rng, size, 3)
    chromatin = 1 + 0.15 * _smooth_noise(rng, size, 2.5)
    haematoxylin = ground * grain + rng.uniform(0.3, 0.75) * nuclei * chromatin
    eosin = rng.uniform(0.16, 0.4) * grain * (1 - 0.3 * nuclei)
    return _stains(haematoxylin, eosin)


def _pink_fibres(rng: np.random.Generator, size: int) -> Stains:
    """Wavy pink bundles with pale gaps and a few thin dark nuclei along them."""
    angle = rng.uniform(0, 180)
    thickness = rng.uniform(1.5, 9)
    length, wave = thickness * rng.uniform(5, 9), rng.uniform(1, 5)
    fibres = _streaks(rng, size, angle, length, thickness, wave)
    fine = _streaks(rng, size, angle, 14, 1.5, wave=4)
    bundle = _step(fibres + 0.5 * fine, rng.uniform(-1.3, -0.3), 0.5)
    nuclei = _ellipses(rng, size, rng.uniform(18, 34), (3.0, 5.0), (0.25, 0.45), angle, spread=30)
    base = rng.uniform(0.32, 0.62)
    eosin = rng.uniform(0.02, 0.12) + base * bundle * (1 + 0.2 * fine)
    haematoxylin = rng.uniform(0.0, 0.12) * (0.4 + bundle) + rng.uniform(0.6, 1.1) * nuclei
    return _stains(haematoxylin, eosin)


def _small_round_cells(rng: np.random.Generator, size: int) -> Stains:
    """Crowded dark round nuclei of 5-7 px on a pale ground that is torn in places."""
    pitch = rng.uniform(6.5, 9.5)
    nuclei = _ellipses(rng, size, pitch, (2.2, 3.4), (0.65, 1.0), rng.uniform(0, 180), spread=90)
    ground = _step(_smooth_noise(rng, size, 7), rng.uniform(-1.2, 0.0), 0.5)
    haematoxylin = rng.uniform(0.05, 0.25) * ground + rng.uniform(0.8, 1.3) * nuclei
    eosin = rng.uniform(0.1, 0.28) * ground
    return _stains(haematoxylin, eosin)


def _dark_layers(rng: np.random.Generator, size: int) -> Stains:
    """Long parallel dark sheets, close together or parted by white gaps; no nuclei."""
    angle = rng.uniform(0, 180)
    wave = rng.uniform(1, 6)
    sheets = _streaks(rng, size, angle, rng.uniform(40, 90), rng.uniform(1.2, 3.5), wave)
    gap = _streaks(rng, size, angle, 40, rng.uniform(3, 8), wave)
    solid = _step(gap, rng.choice([-3.0, rng.uniform(-1.0, 0.4)]), 0.15)
    depth = np.clip(1 + 0.35 * sheets, 0.25, 1.8) * solid
    return _stains(rng.uniform(0.7, 1.5) * depth, rng.uniform(0.25, 0.6) * depth)


_TEXTURES: tuple[Callable[[np.random.Generator, int], Stains], ...] = (
    _dense_nuclei,
    _pink_fibres,
    _small_round_cells,
    _dark_layers,
)


def _photograph(rng: np.random.Generator, stains: Stains) -> NDArray[np.uint8]:
    """Concentrations -> RGB uint8 [H, W, 3]: I = I0 10^-OD, lens blur, sensor noise."""
    lamp = rng.uniform(240, 252) + rng.uniform(-2, 2, 3)
    density = np.stack(stains, axis=-1) @ _stain_vectors(rng)
    light = (lamp * 10.0**-density).astype(np.float32)
    blurred = cv2.GaussianBlur(light, (0, 0), rng.uniform(0.35, 0.7))
    noise = rng.standard_normal(light.shape, np.float32) * rng.uniform(0.5, 3)
    rgb: NDArray[np.uint8] = np.clip(np.rint(blurred + noise), 0, 255).astype(np.uint8)
    return rgb


def _stain_vectors(rng: np.random.Generator) -> Plane:
    """Unit stain vectors [2, 3], jittered; scanners and dyes mostly differ in the blue channel."""
    vectors = np.array([HAEMATOXYLIN_OD, EOSIN_OD])
    vectors += rng.uniform(-0.04, 0.04, (2, 3))
    vectors[0, 2] += rng.uniform(0, 0.15)
    vectors[1, 2] += rng.uniform(0.05, 0.6)
    unit: Plane = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit


def _smooth_noise(rng: np.random.Generator, size: int, scale: float) -> Plane:
    """Noise of about unit variance whose features are `scale` px wide."""
    cells = int(np.ceil(size / scale)) + 3
    grid = rng.standard_normal((cells, cells), np.float32)
    side = round(cells * scale)
    field = cv2.resize(grid, (side, side), interpolation=cv2.INTER_CUBIC)
    start = int(rng.integers(0, side - size + 1))
    return np.asarray(field[start : start + size, start : start + size] * 1.4, np.float32)


def _streaks(
    rng: np.random.Generator, size: int, angle: float, length: float, thickness: float, wave: float
) -> Plane:
    """Noise drawn out along `angle` degrees to `length` by `thickness` px and bent by `wave` px."""
    side = int(1.5 * size + 6 * wave)
    shape = (int(side / thickness) + 3, int(side / length) + 3)
    grid = rng.standard_normal(shape, np.float32)
    y, x = np.mgrid[:size, :size].astype(np.float32) - size / 2
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    bend = wave * _smooth_noise(rng, size, 28)
    u = (cos * x + sin * y + side / 2) / length + 0.5
    v = (cos * y - sin * x + bend + side / 2) / thickness + 0.5
    streaks = cv2.remap(
        grid,
        np.asarray(u, np.float32),
        np.asarray(v, np.float32),
        cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REFLECT,
    )
    return np.asarray(streaks * 1.4, np.float32)


def _ellipses(
    rng: np.random.Generator,
    size: int,
    pitch: float,
    radius: tuple[float, float],
    flatness: tuple[float, float],
    angle: float,
    spread: float = 40,
) -> Plane:
    """Ellipses about `pitch` px apart; long half axis, short-to-long ratio; darkness 0.6-1."""
    cells = int(np.ceil(size / pitch)) + 2
    grid = np.stack(np.meshgrid(np.arange(cells), np.arange(cells)), -1).reshape(-1, 2)
    centres = (grid - 0.5 + rng.uniform(-0.42, 0.42, grid.shape)) * pitch
    long = rng.uniform(*radius, len(grid))
    short = long * rng.uniform(*flatness, len(grid))
    angles = angle + rng.uniform(-spread, spread, len(grid))
    darkness = rng.uniform(150, 255, len(grid))
    canvas = np.zeros((size, size), np.uint8)
    for centre, a, b, turn, value in zip(centres, long, short, angles, darkness, strict=True):
        box = (tuple(centre.tolist()), (2 * a, 2 * b), turn)
        cv2.ellipse(canvas, box, value, cv2.FILLED, cv2.LINE_AA)
    return np.asarray(canvas / 255, np.float32)


def _step(field: Plane, threshold: float, softness: float) -> Plane:
    """Smooth step 0 -> 1 at `threshold`."""
    return np.asarray(np.clip(0.5 + (field - threshold) / (2 * softness), 0, 1), np.float32)


def _stains(haematoxylin: NDArray[np.floating], eosin: NDArray[np.floating]) -> Stains:
    return Stains(
        np.maximum(haematoxylin, 0).astype(np.float32), np.maximum(eosin, 0).astype(np.float32)
    )
