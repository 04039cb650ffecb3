"""Settings of a run that a user chooses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import TypedDict

from sshr_deploy.choice import Choice
from sshr_deploy.errors import UsageError, check_count
from sshr_deploy.precision import Precision
from sshr_deploy.runtime import name_patterns
from sshr_deploy.runtime.outputs import Outputs
from sshr_deploy.runtime.pixel_sizes import FROM_TABLE, GivenMpp, MppTable, read_mpp_table


class Mode(Choice):
    """How a slide or large image is labelled."""

    SEAMLESS = "seamless"
    """As fields that share their context, all of them scaled alike: no borders show."""
    REFERENCE = "reference"
    """Each tile alone, as published; no overlap."""


class TissueChoice(Choice):
    """Which tiles of a slide are computed."""

    AUTO = "auto"
    """Those with tissue, found on a thumbnail; the rest is background."""
    ALL = "all"
    """Every tile, glass too."""


class LargeImages(Choice):
    """Ways to take an image (PNG, JPEG) with a side above 1.5 patch sides (336 px)."""

    TILES = "tiles"
    """At their full size: as fields, or in reference mode cut evenly into parts of about a patch's
    size, each treated as published."""
    WHOLE = "whole"
    """Shrunk to one patch, as published."""


CPU_BATCH, GPU_BATCH = 8, 32
"""Patches in a call. A processor gains nothing by more (218 GFLOP/s with 1, 214 with 8); a GPU
reads 225 MB of FP16 weights a call, and few patches do not fill its units."""


MAX_READERS = 256
_PATTERNS = "patterns such as *.svs"


class RunOptions(TypedDict, total=False):
    """Options of a run in the Python API: those of `sshr-deploy infer`, and `InferSettings`."""

    mpp: float | None
    """`InferSettings.mpp_um`."""
    force_mpp: bool
    tissue: str
    """A name of `TissueChoice`."""
    large: str
    """A name of `LargeImages`."""
    any_stain: bool
    overwrite: bool
    mode: str
    """A name of `Mode`; without it seamless, where the bundle has graphs for fields."""
    readers: int | None
    """`InferSettings.readers`."""
    mpp_table: MppTable | str | Path | None
    """Pixel sizes by name, or the path of a file with them, see `read_mpp_table`."""
    max_slide_minutes: float | None
    """`InferSettings.max_slide_minutes`."""
    include: Sequence[str]
    exclude: Sequence[str]
    simplify_um: float
    """This and what follows: see `Outputs`."""
    min_region_um2: float
    classes: Sequence[str]
    dicom_seg: bool
    ome_zarr: bool
    probabilities: bool


@dataclass(frozen=True)
class InferSettings:
    """Settings of one run of `sshr-deploy infer`."""

    mode: Mode | None = None
    """None for seamless where the bundle has graphs for fields, else reference."""
    mpp_um: float | None = None
    """Level-0 pixel size for slides whose file states none, and of all images, in um."""
    force_mpp: bool = False
    """Use the given pixel size even where the file has its own."""
    tissue: TissueChoice = TissueChoice.AUTO
    batch: int = CPU_BATCH
    """Patches in one call of the engine, or fields of as many pixels; see
    `engines.kinds.default_batch`."""
    overwrite: bool = False
    """Compute again what an earlier run finished."""
    large: LargeImages = LargeImages.TILES
    """How large images are taken; slides are always cut."""
    readers: int | None = None
    """Threads that read slides; None for as many as keep up with the engine."""
    any_stain: bool = False
    """Segment what does not look like H&E too. It decides which results there are, not what they
    hold, so it is no part of their key."""
    max_slide_minutes: float | None = None
    """A slide that takes longer fails, and another run may go on with it; None for no limit. No
    part of the key either."""
    include: tuple[str, ...] = ()
    """Patterns of the inputs to take, see `name_patterns.matches`; all of them where there is none.
    """
    exclude: tuple[str, ...] = ()
    """Patterns of inputs that are not taken, though others include them."""
    mpp_table: MppTable | None = None
    """Pixel sizes of single slides and images, in place of `mpp_um`."""
    outputs: Outputs = field(default_factory=Outputs)
    """Result files of slides."""

    def mpp_of(self, place: PurePath) -> GivenMpp:
        """The pixel size given for an input, by its path below the folder that is searched.

        Raises:
            InputError: patterns of the table contradict each other.
        """
        um = None if self.mpp_table is None else self.mpp_table.mpp_um(place)
        if um is not None:
            return GivenMpp(um, self.force_mpp, FROM_TABLE)
        return GivenMpp(self.mpp_um, self.force_mpp and self.mpp_um is not None)

    def takes(self, relative: PurePath) -> bool:
        """Whether an input is chosen, by its path below the folder that is searched."""
        return name_patterns.takes(relative, self.include, self.exclude)

    def leaves_out(self, folder: PurePath) -> bool:
        """Whether nothing below a folder is chosen, so that it need not be searched."""
        return name_patterns.leaves_out(folder, self.exclude)

    def changed(self, options: RunOptions) -> InferSettings:
        """These settings with some of them chosen anew.

        Raises:
            UsageError: there is no such option, or a name is none of its choices.
        """
        if unknown := sorted(set(options) - set(RunOptions.__annotations__)):
            names = ", ".join(RunOptions.__annotations__)
            raise UsageError(f"there is no option {unknown[0]!r}; there are {names}")
        mode = options.get("mode")
        return replace(
            self,
            mode=self.mode if mode is None else Mode.of(mode),
            mpp_um=_number("mpp", options.get("mpp", self.mpp_um)),
            mpp_table=_table(options.get("mpp_table", self.mpp_table)),
            tissue=TissueChoice.of(options.get("tissue", self.tissue)),
            large=LargeImages.of(options.get("large", self.large)),
            force_mpp=_flag("force_mpp", options.get("force_mpp", self.force_mpp)),
            any_stain=_flag("any_stain", options.get("any_stain", self.any_stain)),
            overwrite=_flag("overwrite", options.get("overwrite", self.overwrite)),
            readers=options.get("readers", self.readers),
            max_slide_minutes=_number(
                "max_slide_minutes", options.get("max_slide_minutes", self.max_slide_minutes)
            ),
            include=_names("include", options.get("include", self.include), _PATTERNS),
            exclude=_names("exclude", options.get("exclude", self.exclude), _PATTERNS),
            outputs=_outputs(self.outputs, options),
        )

    def __post_init__(self) -> None:
        if self.readers is not None:
            check_count("readers", self.readers, MAX_READERS)
        if self.max_slide_minutes is not None and not self.max_slide_minutes > 0:
            raise UsageError(
                f"`max_slide_minutes` is {self.max_slide_minutes:g}; give a number above 0"
            )
        for setting in ("include", "exclude"):
            if "" in getattr(self, setting):
                raise UsageError(f"`{setting}` has an empty pattern; give one such as *.svs")


@dataclass(frozen=True)
class OpenOptions:
    """Settings of a user for the opening of an engine."""

    precision: Precision | None = None
    """None takes the fastest that the bundle has for the engine."""
    batch: int | None = None
    """Patches in the largest call, for which TensorRT engines are built; None for the engine's
    `default_batch`."""
    build: bool = True
    """Build and qualify what this machine has not yet."""
    allow_unqualified: bool = False
    """Run what has not been shown to equal the reference; recorded in every output."""
    streams: int | None = None
    """Calls of ONNX Runtime at the same time on a CPU, which share its threads; None chooses."""

    def __post_init__(self) -> None:
        if self.batch is not None:
            check_count("batch", self.batch)
        if self.streams is not None:
            check_count("streams", self.streams)


def _number(name: str, value: object) -> float | None:
    try:
        return None if value is None else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise UsageError(f"`{name}` is {value!r}; give a number") from None


def _outputs(outputs: Outputs, options: RunOptions) -> Outputs:
    simplify_um = _number("simplify_um", options.get("simplify_um"))
    least_um2 = _number("min_region_um2", options.get("min_region_um2"))
    return Outputs(
        outputs.simplify_um if simplify_um is None else simplify_um,
        outputs.min_region_um2 if least_um2 is None else least_um2,
        _names("classes", options.get("classes", outputs.classes), "class names"),
        _flag("dicom_seg", options.get("dicom_seg", outputs.dicom_seg)),
        _flag("ome_zarr", options.get("ome_zarr", outputs.ome_zarr)),
        _flag("probabilities", options.get("probabilities", outputs.probabilities)),
    )


def _table(value: object) -> MppTable | None:
    if value is None or isinstance(value, MppTable):
        return value
    if isinstance(value, str | Path):
        return read_mpp_table(Path(value))
    raise UsageError(f"`mpp_table` is {value!r}; give the path of a CSV file")


def _names(setting: str, value: object, what: str) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, Sequence) or not all(isinstance(name, str) for name in value):
        raise UsageError(f"`{setting}` is {value!r}; give a list of {what}")
    return tuple(value)


def _flag(name: str, value: object) -> bool:
    if value not in (True, False):
        raise UsageError(f"`{name}` is {value!r}; give True or False")
    return bool(value)
