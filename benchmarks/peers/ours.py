"""The product itself, by its Python API, on the whole slide: what its peers are compared with.

    python -m sshr_deploy.benchmarks.peers.ours JOB.json OUT

Reference mode, whose tiles its peers are given. It also finds the tissue, and writes the mask as a
pyramid, overlays, regions, areas and the report.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import sshr_deploy as sshr
from sshr_deploy.geometry import PATCH_PX


def main() -> None:
    """Do the job; the last line on stdout is what was found, as JSON."""
    job, out = json.loads(Path(sys.argv[1]).read_text("utf-8")), Path(sys.argv[2])
    with sshr.load(
        job["bundle"], job["engine"], precision=job["precision"],
        batch=job["batch"], threads=job["given_threads"],
    ) as model:  # fmt: skip
        times_s: list[float] = []  # of the plan that is made, and of each call's label maps
        start = time.perf_counter()
        found = model.slide(
            job["slide"], out / "results", mode="reference",
            mpp=job["given_mpp_um"], force_mpp=job["force_mpp"],
            on_tiles=lambda *_: times_s.append(time.perf_counter()),
        )  # fmt: skip
        work_s = time.perf_counter() - start
        info = model.info
    tiles = len(job["places"])
    assert found.summary.tiles is not None and found.summary.tiles.computed == tiles
    np.save(out / "labels.npy", tiles_of(found.mask, job["places"], background=job["classes"]))
    version = f"sshr-deploy {sshr.__version__}, {info.engine} {info.precision}, {info.library}"
    told = {"work_s": work_s, "tiles_s": times_s[-1] - times_s[0], "tiles": tiles}
    if info.mask_agreement is not None:
        told["mask_agreement"] = info.mask_agreement
    print(json.dumps({**told, "version": version}))


def tiles_of(
    mask: NDArray[np.uint8], places: Sequence[tuple[int, int]], *, background: int
) -> NDArray[np.uint8]:
    """Tiles of a mask by (row, column); past its edges is background: uint8 [tiles, 224, 224]."""
    tiles = np.full((len(places), PATCH_PX, PATCH_PX), background, np.uint8)
    for tile, (row, column) in zip(tiles, places, strict=True):
        top, left = row * PATCH_PX, column * PATCH_PX
        part = mask[top : top + PATCH_PX, left : left + PATCH_PX]
        tile[: part.shape[0], : part.shape[1]] = part
    return tiles


if __name__ == "__main__":
    main()
