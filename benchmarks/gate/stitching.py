"""Kept results of fields to the labels of a slide, band by band."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from numpy.typing import NDArray

from sshr_deploy.benchmarks.gate.counting import Finding, cpu_ratio, peak_bytes, tallied
from sshr_deploy.benchmarks.gate.reading import SIDE_PX, TARGET_MPP_UM
from sshr_deploy.errors import SshrDeployError
from sshr_deploy.geometry import BLOCK_CELLS, CELL_PX, field_geometry
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.contract import CamBatch, FieldRule
from sshr_deploy.runtime.field_labels import field_rule
from sshr_deploy.runtime.pipeline.unit_store import UnitStore
from sshr_deploy.runtime.pipeline.units import FieldUnits
from sshr_deploy.runtime.slides import open_slide
from sshr_deploy.runtime.slides.fields import Field
from sshr_deploy.runtime.slides.plan import FieldPlan, plan_fields, survey_slide
from sshr_deploy.runtime.writers.bands import BAND_PX

_TURNS = 5
_REGION_CELLS = 20
"""Side of the patches of one class, about."""


def check_stitching(slide: Path, profile: Profile) -> Iterator[Finding]:
    """Labels of the whole slide from smooth random CAMs."""
    with open_slide(slide) as reader:
        plan = plan_fields(survey_slide(reader, TARGET_MPP_UM), field_geometry(SIDE_PX))
    units, maps = FieldUnits(plan, profile), _maps(plan, profile.num_classes)
    tissue = _tissue(plan)
    with TemporaryDirectory() as folder, UnitStore(Path(folder), units.record_type, "") as store:
        for unit in units.places:
            store.put({unit: units.record(_output(maps, Field(*unit)), 0)})
        kept = sum(path.stat().st_size for path in Path(folder).iterdir())
        yield Finding("store: bytes kept", kept / units.kept_bytes, 1.01, "of the records'")

        def ours() -> NDArray[np.uint8]:
            return np.concatenate([band.labels for band in units.bands(store)])

        def plain() -> NDArray[np.uint8]:
            return _plain_labels(maps, tissue, field_rule(profile))

        same = float((ours() == plain()).mean())
        if not same > 0.999:
            raise SshrDeployError(f"stitched labels agree with the plain ones on {same:.2%} only")
        with tallied(store, "rows", lambda rows: rows.nbytes) as read, tallied(cv2, "resize") as up:
            ours()
        yield Finding("stitching: bytes read", read.amount / units.kept_bytes, 2.2, "of those kept")
        parts = np.prod([-(-side // BAND_PX) for side in (plan.grid.height_px, plan.grid.width_px)])
        enlarged = up.calls / float(parts * profile.num_classes)
        yield Finding("stitching: enlarged maps", enlarged, 1, "of a part's classes")
        peak = peak_bytes(lambda: deque(units.bands(store), 0))
        band_bytes = BAND_PX * plan.grid.width_px
        yield Finding("stitching: memory", peak / band_bytes, 14, "bands of labels")
        ratio = cpu_ratio(ours, plain, _TURNS)
        yield Finding("stitching: processor time", ratio, 5, "of the plain way's")


def _tissue(plan: FieldPlan) -> NDArray[np.bool_]:
    """Of the whole slide, [height_px, width_px]."""
    size, scales = (plan.grid.width_px, plan.grid.height_px), plan.grid.l0_px_per_px
    return plan.tissue_map.window(0, 0, size[0] * scales[0], size[1] * scales[1], *size)


def _maps(plan: FieldPlan, classes: int) -> NDArray[np.float32]:
    """CAMs and probabilities [4, N, cell rows, cell columns]; nil where there is no field."""
    rows, columns = (
        max(*(core.stop for core in cores), blocks) * BLOCK_CELLS
        for cores, blocks in zip(
            zip(*(field.core for field in plan.fields), strict=True), plan.blocks.shape, strict=True
        )
    )
    rng = np.random.default_rng(0)
    coarse = 2 + rows // _REGION_CELLS, 2 + columns // _REGION_CELLS
    maps = [cv2.resize(rng.random(coarse, np.float32), (columns, rows)) for _ in range(4 * classes)]
    covered = np.zeros((rows, columns), np.bool_)
    for field in plan.fields:
        covered[_cells(field)] = True
    by_class = np.stack(maps).reshape(4, classes, rows, columns)
    by_class[..., ~covered] = 0
    return by_class.astype(np.float32)


def _cells(field: Field) -> tuple[slice, slice]:
    rows, columns = (slice(BLOCK_CELLS * s.start, BLOCK_CELLS * s.stop) for s in field.core)
    return rows, columns


def _output(maps: NDArray[np.float32], field: Field) -> CamBatch:
    return CamBatch(*maps[:, None, :, *_cells(field)])


def _plain_labels(
    maps: NDArray[np.float32], tissue: NDArray[np.bool_], rule: FieldRule
) -> NDArray[np.uint8]:
    """The same for the whole slide at once; `tissue` [height_px, width_px] is known already."""
    cells = tissue[CELL_PX // 2 :: CELL_PX, CELL_PX // 2 :: CELL_PX]
    rows, columns = (-(-side // CELL_PX) for side in tissue.shape)
    *cams, prob = maps[:, :, :rows, :columns].astype(np.float16).astype(np.float32)
    scores = np.zeros_like(prob)
    for cam, weight in zip(cams, rule.weights, strict=True):
        strongest = cam.max(0)[: cells.shape[0], : cells.shape[1]][cells]
        scores += cam * np.float32(weight / np.percentile(strongest, rule.percentile))
    scores[(prob <= rule.threshold) & (prob != prob.max(0))] = 0
    best = cv2.resize(scores[0], (columns * CELL_PX, rows * CELL_PX))
    labels = np.zeros(best.shape, np.uint8)
    for label in range(1, len(scores)):
        up = cv2.resize(scores[label], best.shape[::-1])
        labels[up > best] = label
        best = np.maximum(best, up)
    return np.where(tissue, labels[: tissue.shape[0], : tissue.shape[1]], np.uint8(len(scores)))
