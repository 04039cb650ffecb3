"""Results folders without a network: masks that are given, written by the product's writers."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from sshr_deploy.atomic import write_json
from sshr_deploy.profiles import load_profile
from sshr_deploy.runtime.outputs import Outputs
from sshr_deploy.runtime.pipeline.discovery import fingerprint_of
from sshr_deploy.runtime.pipeline.result_folders import file_sizes
from sshr_deploy.runtime.writers.bands import bands_of
from sshr_deploy.runtime.writers.geojson import MaskScale, regions_sink
from sshr_deploy.runtime.writers.ome_tiff import write_ome_tiff
from sshr_deploy.runtime.writers.overlay import write_label_png

PROFILE = load_profile("wsss4luad")
_SHA = "0" * 64


def labels(height: int, width: int, *, cell: int = 50) -> NDArray[np.uint8]:
    """A mask with all classes and background in blocks of `cell` pixels."""
    rows, columns = np.arange(height) // cell, np.arange(width) // cell
    blocks = (3 * rows[:, None] + columns[None, :]) % (PROFILE.num_classes + 1)
    return blocks.astype(np.uint8)


def write_regions(path: Path, mask: NDArray[np.uint8], mpp_um: float, l0_px_per_px: float) -> int:
    """Regions along the mask's pixels; returns their number."""
    scale = MaskScale((mask.shape[1], mask.shape[0]), mpp_um, (l0_px_per_px, l0_px_per_px))
    with regions_sink(path, scale, profile=PROFILE, outputs=Outputs(simplify_um=0)) as sink:
        for band in bands_of(mask):
            sink.put(band.labels)
    return sink.count


def add_slide(
    out: Path,
    source: Path,
    mask: NDArray[np.uint8],
    size_px: tuple[int, int],
    *,
    mpp_um: float = 1.0,
    mask_mpp_um: float = 1.0,
    **changes: Any,
) -> Path:
    """Results of a slide of `size_px` (width, height), whether it is there or not."""
    folder = out / source.name
    scale = mask_mpp_um / mpp_um
    write_ome_tiff(
        folder / "mask.ome.tif",
        mask,
        profile=PROFILE,
        mask_mpp_um=mask_mpp_um,
        name=source.name,
    )
    regions = write_regions(folder / "regions.geojson", mask, mask_mpp_um, scale)
    summary = {
        **_head(out, folder, source, "slide"),
        "slide": {
            "reader": "test 1.0",
            "width_px": size_px[0],
            "height_px": size_px[1],
            "levels": 1,
        },
        "mpp": {"x_um": mpp_um, "y_um": mpp_um, "source": "file"},
        "tiles": {"computed": 1, "total": 1},
        "stain_concern": None,
        "fit": None,
        "regions": regions,
        "effort": {"busy_s": {}, "engine_waited_s": {}, "limited_by": "engine"},
        **_counted(mask, mask_mpp_um),
        **_tail(folder, ("mask.ome.tif", "regions.geojson")),
        **changes,
    }
    write_json(folder / "summary.json", summary)
    return folder


def add_image(out: Path, source: Path, mask: NDArray[np.uint8]) -> Path:
    """Results of an image without a pixel size."""
    folder = out / source.name
    write_label_png(folder / "mask.png", mask, profile=PROFILE)
    counted = _counted(mask, None)
    for one in counted["classes"]:
        one |= {"probability": 0.5, "on": True}
    summary = {
        **_head(out, folder, source, "patch"),
        "mpp": None,
        "tiles": {"computed": 1, "total": 1},
        "large": None,
        "stain_concern": None,
        **counted,
        **_tail(folder, ("mask.png",)),
    }
    write_json(folder / "summary.json", summary)
    return folder


def add_failure(out: Path, source: Path, reason: str) -> None:
    """`run.json` with one input that failed; only what the viewer reads of it."""
    row = {"path": str(source), "kind": "slide", "status": "failed", "reason": reason}
    (out / "run.json").write_text(json.dumps({"folder": {"inputs": [row]}}), "utf-8")


def huge_slide(path: Path, side_px: int = 100_000) -> Path:
    """A sparse pyramid of white, with coloured tiles on its diagonal; pixels of 0.5 um."""
    sides = [side_px]
    while sides[-1] > 1024:
        sides.append(sides[-1] // 4)
    with tifffile.TiffWriter(path) as tiff:
        for index, side in enumerate(sides):
            tiff.write(
                _diagonal(-(-side // 512)),
                shape=(side, side, 3),
                dtype=np.uint8,
                tile=(512, 512),
                photometric="rgb",
                compression="zlib",
                subifds=0 if index else len(sides) - 1,
                subfiletype=1 if index else 0,
                metadata=None,
                resolution=(2e4, 2e4),
                resolutionunit="CENTIMETER",
            )
    return path


def _diagonal(tiles: int) -> Iterator[bytes]:
    coloured = zlib.compress(np.full((512, 512, 3), (190, 80, 140), np.uint8).tobytes())
    for row in range(tiles):
        for column in range(tiles):
            yield coloured if row == column else b""  # not stored: white


def _head(out: Path, folder: Path, source: Path, kind: str) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "input": {"path": str(source), "kind": kind},
        "finished_utc": "2026-11-28T10:00:00+00:00",
        "folder": folder.relative_to(out).as_posix(),
        "key": {"input_fingerprint": fingerprint_of(source)} if source.is_file() else {},
    }


def _counted(mask: NDArray[np.uint8], mpp_um: float | None) -> dict[str, Any]:
    counts = [int(np.count_nonzero(mask == label)) for label in range(PROFILE.num_classes)]
    area = None if mpp_um is None else mpp_um**2 / 1e6
    return {
        "mask": {"width_px": mask.shape[1], "height_px": mask.shape[0], "mpp_um": mpp_um},
        "tissue_area_mm2": None if area is None else sum(counts) * area,
        "classes": [
            {
                "label": label,
                "name": tissue.name,
                "pixels": count,
                "share": count / max(1, sum(counts)),
                "area_mm2": None if area is None else count * area,
            }
            for label, (tissue, count) in enumerate(zip(PROFILE.classes, counts, strict=True))
        ],
    }


def _tail(folder: Path, names: tuple[str, ...]) -> dict[str, Any]:
    return {
        "files": file_sizes(folder, names),
        "seconds": {"total": 1.0},
        "sshr_deploy": "0.1.0",
        "profile": PROFILE.name,
        "relabelled_from": None,
        "engine": {
            "engine": "onnx-cpu",
            "precision": "fp32",
            "device": "test",
            "library": "onnxruntime 1",
        },
        "bundle": {
            "path": "bundle",
            "manifest_sha256": _SHA,
            "files_sha256": {},
            "checkpoint_sha256": _SHA,
            "model_metadata": {},
        },
    }
