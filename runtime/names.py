"""Names of the files in the folder of an input's results."""

MASK_NAME = "mask.ome.tif"
PATCH_MASK_NAME = "mask.png"
OVERLAY_NAME = "overlay.png"
REGIONS_NAME = "regions.geojson"
SUMMARY_NAME = "summary.json"
ERROR_NAME = "error.txt"

SLIDE_RESULTS = (MASK_NAME, OVERLAY_NAME, REGIONS_NAME)
PATCH_RESULTS = (PATCH_MASK_NAME, OVERLAY_NAME)
RESULT_NAMES = (*SLIDE_RESULTS, PATCH_MASK_NAME, SUMMARY_NAME, ERROR_NAME)
"""All of them."""
