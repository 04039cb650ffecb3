"""Names of the files in the folder of an input's results, and of a run's."""

from __future__ import annotations

import re

from sshr_deploy.runtime.outputs import ON_REQUEST

MASK_NAME = "mask.ome.tif"
PATCH_MASK_NAME = "mask.png"
OVERLAY_NAME = "overlay.png"
OVERLAY_2X_NAME = "overlay@2x.png"
OVERLAY_SMALL_NAME = "overlay-small.jpg"
"""Without its legend, as large as the thumbnail."""
THUMBNAIL_NAME = "thumbnail.jpg"
REGIONS_NAME = "regions.geojson"
SUMMARY_NAME = "summary.json"
ERROR_NAME = "error.txt"
REPORT_NAME = "report.html"
"""Of one input in its folder, and of all in the folder of the results."""

SMALL_PICTURES = (THUMBNAIL_NAME, OVERLAY_SMALL_NAME)
"""For pages that show many inputs."""
SLIDE_RESULTS = (MASK_NAME, OVERLAY_NAME, OVERLAY_2X_NAME, *SMALL_PICTURES, REGIONS_NAME)
PATCH_RESULTS = (PATCH_MASK_NAME, OVERLAY_NAME, *SMALL_PICTURES)
RESULT_NAMES = (
    *SLIDE_RESULTS,
    *ON_REQUEST,
    PATCH_MASK_NAME,
    SUMMARY_NAME,
    REPORT_NAME,
    ERROR_NAME,
)
"""All of them."""

UNFINISHED_NAME = ".unfinished"
"""Tiles or fields of a slide that are computed, until it is done; see `unit_store`."""

RUN_NAME = "run.json"
TABLE_NAME = "summary.csv"
RECORDS_NAME = "runs"
"""Folder with the record of each run."""
RECORD_NAME = re.compile(r"[0-9]{8}T[0-9]{6}\.[0-9]{3}Z-[0-9a-f]{6}\.json")
"""Names of the files in it: UTC time at the end of the run, so that they sort by it, and chance."""
