"""Options that mean the same in every command."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from sshr_deploy.precision import Precision
from sshr_deploy.runtime.engines.kinds import AUTO, ENGINES, TARGETS
from sshr_deploy.runtime.settings import LargeImages, Mode, TissueChoice

if TYPE_CHECKING:
    EngineChoice: TypeAlias = str
    Target: TypeAlias = str
else:  # typer takes its choices from an enum
    EngineChoice = StrEnum("EngineChoice", {name: name for name in (AUTO, *ENGINES)})
    Target = StrEnum("Target", {name: name for name in TARGETS})

SLIDES, FILES, ENGINE = "Slides and images", "Result files", "Engine"
UNATTENDED = "Unattended"
"""Panels of the help."""

NAME_OR_FILE = "NAME|FILE"
"""Placeholder of what the package ships under a name, or a path that ends in .toml."""
BUNDLE_HELP = "Bundle folder written by sshr-deploy export."

BundleArgument = Annotated[Path, typer.Argument(metavar="BUNDLE", help=BUNDLE_HELP)]
ModelOption = Annotated[Path, typer.Option("--model", metavar="BUNDLE", help=BUNDLE_HELP)]
_PROFILE_CHOICES = "luad, bcss, wsss4luad, or the path of your own .toml file."
ProfileOption = Annotated[
    str,
    typer.Option("--profile", metavar=NAME_OR_FILE, help=f"Classes and scale: {_PROFILE_CHOICES}"),
]
CheckpointProfileOption = Annotated[
    str | None,
    typer.Option(
        "--profile",
        metavar=NAME_OR_FILE,
        help=f"Classes and scale of a checkpoint: {_PROFILE_CHOICES}",
        show_default="what the model carries",
    ),
]
RelabelOption = Annotated[
    bool,
    typer.Option(
        "--relabel",
        help="Take the class names as given although the model was trained on others; results "
        "record both.",
    ),
]
WidthOption = Annotated[
    int,
    typer.Option(
        "--width",
        min=1,
        max=256,
        help="Channels of the first convolution; 64 is the published network.",
    ),
]
PrecisionOption = Annotated[
    Precision | None,
    typer.Option(
        "--precision",
        help="Numbers the network computes in, among those that the bundle has.",
        show_default="the fastest for the engine",
        rich_help_panel=ENGINE,
    ),
]
NoBuildOption = Annotated[
    bool,
    typer.Option(
        "--no-build",
        help="Refuse what this machine has not built and compared with the reference yet.",
        rich_help_panel=ENGINE,
    ),
]
AllowUnqualifiedOption = Annotated[
    bool,
    typer.Option(
        "--allow-unqualified",
        help="Run a network that is not shown to equal the reference here; every result says so.",
        rich_help_panel=ENGINE,
    ),
]
EngineOption = Annotated[
    EngineChoice,
    typer.Option(
        "--engine",
        help="What runs the network; auto: the fastest that works here.",
        rich_help_panel=ENGINE,
    ),
]
BatchOption = Annotated[
    int | None,
    typer.Option(
        "--batch",
        min=1,
        max=1024,
        help="Patches in one call of the engine, or fields of as many pixels; TensorRT engines are "
        "built for it.",
        show_default="8 on a CPU, 32 on a GPU",
        rich_help_panel=ENGINE,
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        "--threads",
        min=1,
        max=1024,
        help="CPU threads.",
        show_default="OMP_NUM_THREADS, or by the network's width and the cores",
        rich_help_panel=ENGINE,
    ),
]
StreamsOption = Annotated[
    int | None,
    typer.Option(
        "--streams",
        min=1,
        max=1024,
        help="Calls of ONNX Runtime at the same time on a CPU; they share its threads.",
        show_default="one a thread for patches of a network of width 8 and below, else 1",
        rich_help_panel=ENGINE,
    ),
]
MaxSlideMinutesOption = Annotated[
    float | None,
    typer.Option(
        "--max-slide-minutes",
        metavar="MINUTES",
        help="A slide that takes longer fails; what is computed of it is kept for the next run.",
        show_default="no limit",
        rich_help_panel=SLIDES,
    ),
]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Print errors only.")]
MppOption = Annotated[
    float | None,
    typer.Option(
        "--mpp",
        metavar="UM",
        help="Pixel size in um per level-0 pixel (0.05 to 80), for slides whose file states none "
        "(or an impossible one), and for all images (PNG, JPEG), which state none: with it they "
        "are brought to the model's pixel size and get areas in mm2; without it they are taken "
        "to have that size.",
        show_default="what the file states",
        rich_help_panel=SLIDES,
    ),
]
LargeOption = Annotated[
    LargeImages,
    typer.Option(
        "--large",
        help="Images (PNG, JPEG) with a side above 336 px; tiles: at their full size, in fields "
        "that show no borders or in reference mode cut evenly into parts of about 224 px; whole: "
        "shrunk to one patch of 224 px, as published.",
        rich_help_panel=SLIDES,
    ),
]
AnyStainOption = Annotated[
    bool,
    typer.Option(
        "--any-stain",
        help="Segment what does not look like H&E as well, every tile of it; else it is refused.",
        rich_help_panel=SLIDES,
    ),
]
ForceMppOption = Annotated[
    bool,
    typer.Option(
        "--force-mpp",
        help="Use the given pixel size even where the slide states its own.",
        rich_help_panel=SLIDES,
    ),
]
MppTableOption = Annotated[
    Path | None,
    typer.Option(
        "--mpp-table",
        metavar="FILE",
        help="Pixel sizes by slide, ahead of --mpp: a CSV file with the columns name or pattern "
        "(as in --include), and mpp in um.",
        rich_help_panel=SLIDES,
    ),
]
_PATTERN_HELP = (
    "a name such as *.svs, or with a / the path below the folder, such as 2026-11/*; may be "
    "given several times; upper and lower case are the same."
)
IncludeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--include",
        metavar="PATTERN",
        help=f"Take only inputs of this pattern: {_PATTERN_HELP}",
        show_default="all",
    ),
]
ExcludeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude",
        metavar="PATTERN",
        help="Leave out inputs of such a pattern; old/ is all that is below the folder old.",
    ),
]
RayOption = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="auto|HOST:PORT",
        help="Do the slides in workers of a Ray cluster, one for each GPU or for each so many "
        "cores; auto: one that runs here, or else all GPUs of this machine. See docs/cluster.md; "
        "needs the extra [ray].",
        rich_help_panel=ENGINE,
    ),
]
RayCoresOption = Annotated[
    int | None,
    typer.Option(
        "--ray-cores",
        min=1,
        help="Cores of a worker without a GPU.",
        show_default="as many as the network has work for",
        rich_help_panel=ENGINE,
    ),
]
ModeOption = Annotated[
    Mode | None,
    typer.Option(
        "--mode",
        help="seamless: large fields that share their context, so that no borders show; "
        "reference: tiles of 224 px, each alone, as published.",
        show_default="seamless, if the bundle has graphs for fields",
        rich_help_panel=SLIDES,
    ),
]
TissueOption = Annotated[
    TissueChoice,
    typer.Option(
        "--tissue",
        help="Tiles to compute; auto: those with tissue, all: every one.",
        rich_help_panel=SLIDES,
    ),
]
ReadersOption = Annotated[
    int | None,
    typer.Option(
        "--readers",
        min=1,
        max=256,
        help="Threads that read slides.",
        show_default="as many as keep up with the engine, 2 to the number of cores",
        rich_help_panel=ENGINE,
    ),
]
QUEUE_NAME = "queue.sqlite"
QueueOption = Annotated[
    Path | None,
    typer.Option(
        "--queue",
        metavar="FILE",
        help="File of the queue; where OUT is on a network share, give one on a disk of this "
        "machine.",
        show_default=f"{QUEUE_NAME} in OUT",
    ),
]
