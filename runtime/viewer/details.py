"""What the page gets of the inputs, as JSON."""

from __future__ import annotations

from typing import Any

import numpy as np

from sshr_deploy.runtime.outputs import PROBABILITIES_NAME
from sshr_deploy.runtime.pipeline.result_folders import read_summary
from sshr_deploy.runtime.report import figures
from sshr_deploy.runtime.results.file_names import THUMBNAIL_NAME
from sshr_deploy.runtime.results.findings import PatchSummary, SlideSummary, warnings_of
from sshr_deploy.runtime.viewer.catalogue import Catalogue, Entry
from sshr_deploy.runtime.viewer.opened import OpenInput
from sshr_deploy.runtime.viewer.outlines import Box
from sshr_deploy.runtime.viewer.pyramid import OVERLAP_PX, TILE_PX
from sshr_deploy.runtime.writers.geojson import MEAN_PROBABILITY

Document = dict[str, Any]

_BACKGROUND = "background"


def listing(catalogue: Catalogue) -> Document:
    """All inputs, and those that cannot be shown."""
    return {
        "inputs": [_row(entry) for entry in catalogue.entries()],
        "not_shown": [{"path": item.path, "reason": item.reason} for item in catalogue.not_shown()],
    }


def _row(entry: Entry) -> Document:
    return {
        "id": entry.id,
        "key": entry.key,
        "version": entry.version,
        "name": entry.source.name,
        "folder": str(entry.source.parent),
        "warnings": entry.warnings,
        "has_thumbnail": THUMBNAIL_NAME in entry.files,
        "tissue_area_mm2": entry.tissue_area_mm2,
        "shares": [c.share for c in entry.classes],
    }


def detail(opened: OpenInput) -> Document:
    """All that the page says of one input, and how to ask for its tiles.

    Raises:
        LookupError: its results have gone meanwhile.
    """
    entry = opened.entry
    summary = read_summary(entry.folder)
    if not isinstance(summary, SlideSummary | PatchSummary):
        raise LookupError(f"{entry.folder} has no results any more")
    palette = opened.labels.palette if opened.labels else []
    classes = [
        {
            "label": c.label,
            "name": c.name,
            "share": c.share,
            "area_mm2": c.area_mm2,
            "color": _hex(palette[c.label]) if c.label < len(palette) else "#808080",
        }
        for c in summary.classes
    ]
    mpp = summary.mpp
    return {
        **_row(entry),
        "kind": entry.kind,
        "size_px": entry.size_px,
        "tile_px": TILE_PX,
        "overlap_px": OVERLAP_PX,
        "mpp_um": mpp and [mpp.x_um, mpp.y_um],
        "mask_px": entry.l0_px_per_mask_px,
        "picture": {
            "first_level": opened.picture.first_level if opened.picture else None,
            "lack": opened.picture_lack,
        },
        "mask": {
            "last_level": opened.mask_level if opened.labels else None,
            "lack": opened.labels_lack,
        },
        "classes": classes,
        "regions": summary.regions if isinstance(summary, SlideSummary) else None,
        "has_probabilities": PROBABILITIES_NAME in entry.files,
        "warnings_text": [warning.text for warning in warnings_of(summary)],
        "facts": _facts(summary),
    }


def lines(opened: OpenInput, box: Box) -> Document:
    """Outlines of regions in a part of a slide, corners as x, y, x, y, ... in level-0 pixels.

    Raises:
        LookupError: an image has none.
        InputError: they cannot be read.
    """
    outlines = opened.outlines()
    found, is_all = outlines.lines(box)
    return {
        "complete": is_all,
        "left_out": outlines.left_out,
        "lines": [
            {
                "label": line.label,
                # rounded in float64: a float32 has no 0.1, and its digits would all be sent
                "corners": line.corners.astype(np.float64).round(1).ravel().tolist(),
            }
            for line in found
        ],
    }


def point(opened: OpenInput, l0_x: float, l0_y: float) -> Document:
    """The class at a place, and how sure it is: there, else in its region, else not known.

    Raises:
        InputError: a file is damaged there.
    """
    label = opened.label_at(l0_x, l0_y)
    if label is None:
        return {"label": None}
    names = {c.label: c.name for c in opened.entry.classes}
    if label not in names:
        return {"label": label, "name": _BACKGROUND}
    said: Document = {"label": label, "name": names[label]}
    probability = opened.probability_at(l0_x, l0_y, label)
    if probability is not None:
        return {**said, "probability": probability, "of": "here"}
    mean = opened.measurements_at(l0_x, l0_y, label).get(MEAN_PROBABILITY)
    if mean is not None:
        return {**said, "probability": mean, "of": "region"}
    return said


def _facts(summary: SlideSummary | PatchSummary) -> list[tuple[str, str]]:
    """Names and texts, in the order of the page."""
    engine, facts = summary.engine, []
    if summary.mpp is not None:
        facts += [
            ("Pixel size", figures.pixel_size(summary.mpp)),
            ("Pixel size from", summary.mpp.source),
        ]
    facts.append(("Engine", f"{engine.engine} {engine.precision}"))
    if engine.mask_agreement is not None:
        facts.append(("Agreement", f"{figures.agreement(engine.mask_agreement)} of pixels"))
    if engine.unqualified is not None:
        facts.append(("Not qualified", engine.unqualified))
    facts.append(("Profile", summary.profile))
    if isinstance(summary, SlideSummary):
        facts.append(("Read by", summary.slide.reader))
    facts.append(("Finished", figures.moment(summary.finished_utc)))
    return facts


def _hex(rgb: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*rgb)
