"""How much of a field's edge must be left out: fields against one giant field on the same slide.

    python -m sshr_deploy.benchmarks.field_margins CHECKPOINT SLIDE --json FILE

Needs the extra `train`. A field is computed without a margin at several places of a giant one and
compared with it in what margins of 0 to 168 px would keep. The giant field ends 168 px or more
beyond each of them. Labels of both are made with the giant field's scales.
"""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.atomic import write_json
from sshr_deploy.benchmarks.environment import describe_environment
from sshr_deploy.bundle import file_entry
from sshr_deploy.errors import UsageError
from sshr_deploy.geometry import CELL_PX, Geometry
from sshr_deploy.model import SSHR, predict
from sshr_deploy.model.checkpoint import load_checkpoint, read_profile
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.contract import CAM_NAMES, CamBatch, FieldRule
from sshr_deploy.runtime.field_labels import (
    LevelScales,
    Scales,
    cell_scores,
    field_rule,
    labels_of,
    stacked_cams,
)
from sshr_deploy.runtime.slides import open_slide
from sshr_deploy.runtime.slides.area import read_area
from sshr_deploy.runtime.slides.grid import TileGrid
from sshr_deploy.runtime.slides.mpp import resolve_mpp
from sshr_deploy.runtime.slides.tissue import detect_tissue, thumbnail
from sshr_deploy.runtime.slides.tissue_map import TissueMap

Halves = NDArray[np.float16]
MARGINS_PX = (0, 28, 56, 84, 112, 168)
AROUND_PX = 168
"""Of the giant field, around every field in it; fields lie at multiples of it. That is 1.5 strides
of 14 cells: windows lie where the giant field's do, and between them, as on slides."""


class Outputs(NamedTuple):
    """Of one square input."""

    cams: Halves  # [3, N, C, C]
    prob: NDArray[np.float32]  # [N, C, C]


class _Sums:
    """Of one margin, over the fields."""

    def __init__(self) -> None:
        self.difference = np.zeros(len(CAM_NAMES))
        self.square = np.zeros(len(CAM_NAMES))
        self.equal = self.pixels = 0

    def row(self, margin_px: int, side_px: int) -> dict[str, Any]:
        errors = np.sqrt(self.difference / self.square)
        return {
            "margin_px": margin_px,
            "work": (side_px / (side_px - 2 * margin_px)) ** 2,
            "cam_error": dict(zip(CAM_NAMES, errors.tolist(), strict=True)),
            "labels_equal": self.equal / self.pixels,
        }


def measure(
    checkpoint: Path,
    slide: Path,
    *,
    giant_px: int,
    side_px: int,
    window_cells: int,
    mpp_um: float | None = None,
) -> dict[str, Any]:
    """CAM error (relative RMS) and share of equal labels on tissue, by margin.

    Raises:
        UsageError: the giant field leaves no room for one of `side_px` within it.
        InputError: the slide cannot be read.
    """
    room = giant_px - side_px - 2 * AROUND_PX
    if room < 0:
        raise UsageError(f"a field of {side_px} px has no place inside one of {giant_px} px")
    model, profile = load_checkpoint(checkpoint), read_profile(checkpoint)
    rgb, tissue = _middle(slide, profile, giant_px, mpp_um)
    giant = outputs_of(model, rgb, Geometry(giant_px, 0, window_cells))
    rule = field_rule(profile)
    counted = LevelScales()
    counted.add(giant.cams, tissue[CELL_PX // 2 :: CELL_PX, CELL_PX // 2 :: CELL_PX])
    scales = counted.scales(rule.percentile)
    labels = _labels(giant, scales, rule)
    places = range(AROUND_PX, giant_px - AROUND_PX - side_px + 1, AROUND_PX)
    sums = {margin: _Sums() for margin in MARGINS_PX if 2 * margin < side_px}
    for y, x in product(places, places):
        part = slice(y, y + side_px), slice(x, x + side_px)
        field = outputs_of(model, rgb[part], Geometry(side_px, 0, window_cells))
        same = _labels(field, scales, rule) == labels[part]
        cells = tuple(slice(s.start // CELL_PX, s.stop // CELL_PX) for s in part)
        wanted = giant.cams[:, :, *cells].astype(np.float64)
        error = field.cams.astype(np.float64) - wanted
        for margin, row in sums.items():
            kept = slice(margin, side_px - margin), slice(margin, side_px - margin)
            inside = tissue[part][kept]
            row.equal += int(same[kept][inside].sum())
            row.pixels += int(inside.sum())
            cut = slice(-(-margin // CELL_PX), (side_px - margin) // CELL_PX)
            row.difference += np.square(error[:, :, cut, cut]).sum((1, 2, 3))
            row.square += np.square(wanted[:, :, cut, cut]).sum((1, 2, 3))
    return {
        "benchmark": "field_margins",
        "environment": describe_environment(),
        "checkpoint": {"sha256": file_entry(checkpoint).sha256, "width": model.config.width},
        "slide": {"name": slide.name, "tissue_share": float(tissue.mean())},
        "giant_px": giant_px,
        "side_px": side_px,
        "window_cells": window_cells,
        "fields": len(places) ** 2,
        "rows": [row.row(margin, side_px) for margin, row in sums.items()],
    }


def outputs_of(model: SSHR, rgb: NDArray[np.uint8], geometry: Geometry) -> Outputs:
    """Outputs of one field, the CAMs as they are kept."""
    output = predict(model, rgb[None], geometry)
    return Outputs(stacked_cams(CamBatch(*output), 0), output.prob[0])


def _labels(outputs: Outputs, scales: Scales, rule: FieldRule) -> NDArray[np.uint8]:
    return labels_of(cell_scores(outputs.cams, outputs.prob, scales, rule))


def _middle(
    slide: Path, profile: Profile, side_px: int, mpp_um: float | None
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Pixels and tissue of a square in a slide's middle, at the profile's scale."""
    with open_slide(slide) as reader:
        mpp = resolve_mpp(reader, mpp_um)
        grid = TileGrid.of_slide(reader.level_sizes_px[0], mpp, profile.mpp_um)
        size = grid.width_px, grid.height_px
        if min(size) < side_px:
            raise UsageError(
                f"{slide} is {size[0]} x {size[1]} px at the model's scale; give a slide of "
                f"{side_px} px or more on each side"
            )
        scale_x, scale_y = grid.l0_px_per_px
        l0_x, l0_y = (size[0] - side_px) // 2 * scale_x, (size[1] - side_px) // 2 * scale_y
        rgb = read_area(
            reader, mpp, target_mpp_um=profile.mpp_um, l0_x=l0_x, l0_y=l0_y,
            width_px=side_px, height_px=side_px,
        )  # fmt: skip
        picture, picture_um = thumbnail(reader, mpp)
    per_px = picture_um / mpp.x_um, picture_um / mpp.y_um
    tissue = TissueMap(detect_tissue(picture, picture_um), per_px, picture_um)
    sides = side_px * scale_x, side_px * scale_y
    return rgb, tissue.window(l0_x, l0_y, *sides, side_px, side_px)


def main() -> None:
    """Measure, print a line for each margin, and write everything where `--json` says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, help="a checkpoint with its profile inside")
    parser.add_argument("slide", type=Path)
    parser.add_argument("--giant-px", type=int, default=2016, help="default: %(default)s")
    parser.add_argument("--side-px", type=int, default=896, help="default: %(default)s")
    parser.add_argument("--window-cells", type=int, default=56, help="default: %(default)s")
    parser.add_argument("--mpp", type=float, help="pixel size of the slide, where it states none")
    parser.add_argument("--json", type=Path, help="file for everything")
    args = parser.parse_args()
    report = measure(
        args.checkpoint, args.slide, giant_px=args.giant_px, side_px=args.side_px,
        window_cells=args.window_cells, mpp_um=args.mpp,
    )  # fmt: skip
    for row in report["rows"]:
        print(json.dumps(row))
    if args.json is not None:
        write_json(args.json, report)


if __name__ == "__main__":
    main()
