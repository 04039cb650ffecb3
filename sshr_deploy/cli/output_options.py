"""Options of `infer` and `watch` for the result files of slides."""

from __future__ import annotations

from typing import Annotated

import typer

from sshr_deploy.cli.options import FILES

SimplifyOption = Annotated[
    float,
    typer.Option(
        "--simplify-um",
        metavar="UM",
        min=0,
        help="Outlines in regions.geojson lie at most so many um, and never more than 0.7 pixels, "
        "from the edges of the mask's pixels. From 0.7 pixels on, staircases are straightened; "
        "0 follows every pixel.",
        rich_help_panel=FILES,
    ),
]
MinRegionOption = Annotated[
    float,
    typer.Option(
        "--min-region-um2",
        metavar="UM2",
        min=0,
        help="Leave smaller regions, in square um, out of regions.geojson; the mask has them.",
        rich_help_panel=FILES,
    ),
]
ClassesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--classes",
        metavar="NAME",
        help="Take only regions of this class into regions.geojson; may be given several times.",
        show_default="all",
        rich_help_panel=FILES,
    ),
]
DicomSegOption = Annotated[
    bool,
    typer.Option(
        "--dicom-seg",
        help="Write segmentation.dcm too, a DICOM Segmentation.",
        rich_help_panel=FILES,
    ),
]
OmeZarrOption = Annotated[
    bool,
    typer.Option(
        "--ome-zarr",
        help="Write mask.ome.zarr too, a folder with the mask as OME-Zarr labels.",
        rich_help_panel=FILES,
    ),
]
ProbabilitiesOption = Annotated[
    bool,
    typer.Option(
        "--probabilities",
        help="Write probabilities.tif too: the probability of each class, float16, a pixel for "
        "each 8 x 8 of the mask.",
        rich_help_panel=FILES,
    ),
]
