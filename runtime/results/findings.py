"""Types of the findings in one input; a `summary.json` is written from them and read back.

Its JSON Schema is the package's data, see `schemas`. Fields stand in the file as they stand here,
those of the last base class first.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, InstanceOf

from sshr_deploy.errors import SshrDeployError
from sshr_deploy.known_tissue import Adaptation
from sshr_deploy.manifest import Frozen, Sha256, Share
from sshr_deploy.runtime.contract import SessionInfo
from sshr_deploy.runtime.settings import LargeImages
from sshr_deploy.runtime.slides import Mpp
from sshr_deploy.runtime.slides.fit import Fit

SCHEMA_VERSION: Literal[1] = 1
"""Of every document here; documents of earlier releases state none."""

Kind = Literal["slide", "patch"]
Status = Literal["done", "skipped", "failed"]
FileText = InstanceOf[str]
"""Text with the name of a file, which may hold bytes that are not UTF-8: `str` refuses them."""
Count = Annotated[int, Field(ge=0)]
StageSeconds = dict[str, float]
"""Seconds by stage, and "total"."""
Key = dict[str, str | bool | float | None]
"""Identity of a result: the same key means that computing it again would change nothing."""


class Document(Frozen):
    """Base of all parts. The docstrings of fields are their descriptions in the schema."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class Source(Document):
    """The file that was segmented."""

    path: FileText
    """Absolute."""
    kind: Kind


class SlideFacts(Document):
    """Facts of a slide's file."""

    reader: str
    """Library, its version and the format, "openslide 4.0.1 (aperio)"."""
    width_px: Count
    """Of level 0."""
    height_px: Count
    """Of level 0."""
    levels: Count


class MaskFacts(Document):
    """Size of the label map."""

    width_px: Count
    height_px: Count
    mpp_um: float | None
    """Size of one of its pixels in um, the same in x and y; null where it is not known."""


class Tiles(Document):
    """Patches or fields of the network; those of an image are its parts."""

    computed: Count
    """On a slide, those with tissue."""
    total: Count


class _ClassShare(Document):
    """How much of one class there is."""

    label: Count
    """Its value in the label map; one above the last class is background."""
    name: str
    pixels: Count
    """Of the label map."""
    share: Share
    """Of the pixels of all classes, 0 to 1."""


class SlideClass(_ClassShare):
    """One class on a slide."""

    area_mm2: float


class PatchClass(_ClassShare):
    """One class in an image."""

    area_mm2: float | None
    """Null without a given pixel size: an image states no pixel size."""
    probability: Share
    """Of the whole image; of one that was cut, the largest of its parts."""
    on: bool
    """The gate lets the class be, in one part at least."""


class Effort(Document):
    """Work on slides in all threads of a run, which run beside each other."""

    busy_s: dict[str, float]
    """Seconds of work by stage, of all threads together: plan, read, infer, keep, labels, write."""
    engine_waited_s: dict[str, float]
    """Seconds that the engine waited for others: plan, read, write."""
    limited_by: Literal["engine", "read", "write"]
    """What most of the engine's time went to: its own work, or waiting."""


class SlideWarning(Document):
    """Reason to look at a slide before its result is used."""

    code: Literal["stain", "unlike", "focus", "one-class", "border"]
    """stain: hardly stained, or not by H&E; unlike: far from what the network knows; focus: much of
    it is out of focus; one-class: all of it is of one class; border: tissue is cut off."""
    text: str
    """A sentence for people."""


class SlideResult(Document):
    """Findings on one slide."""

    slide: SlideFacts
    mpp: Mpp
    """Size of a level-0 pixel in um, and where it came from."""
    mask: MaskFacts
    tiles: Tiles
    stain_concern: str | None
    """Reason to doubt that it is H&E, where `any_stain` let it pass; null if none."""
    fit: Fit | None = None
    """How its tissue looks beside what the network knows; null where the bundle does not say what
    that is, or there is no tissue."""
    warnings: tuple[SlideWarning, ...] = ()
    """Reasons to look at it."""
    tissue_area_mm2: float
    """All classes together."""
    classes: tuple[SlideClass, ...]
    """By label."""
    regions: Count
    """Polygons in regions.geojson."""
    files: dict[str, Count]
    """Bytes by name, in the folder of the result."""
    seconds: StageSeconds
    """Of the slide's own time by stage: open, tissue, read (the engine waited for it), infer, mask,
    write, and the total."""
    effort: Effort


class PatchResult(Document):
    """Findings in one image (PNG, JPEG)."""

    mpp: Mpp | None
    """Size of a pixel in um as it was given; null without."""
    mask: MaskFacts
    tiles: Tiles
    large: LargeImages | None
    """How it was taken, where a side is above 336 px at the model's scale."""
    stain_concern: str | None
    """Reason to doubt that it is H&E, where `any_stain` let it pass; null if none."""
    tissue_area_mm2: float | None
    """All classes together; null without a given pixel size."""
    classes: tuple[PatchClass, ...]
    """By label."""
    files: dict[str, Count]
    """Bytes by name, in the folder of the result."""
    seconds: StageSeconds
    """By stage: infer (its share of its batches), mask, write, and the total."""


class BundleFacts(Document):
    """Which model it was."""

    path: FileText
    manifest_sha256: Sha256
    files_sha256: dict[str, Sha256]
    """By name."""
    checkpoint_sha256: Sha256
    model_metadata: dict[str, str]
    """Header of the checkpoint."""
    adaptation: Adaptation | None = None
    """To which tissue its batch norms were adapted; null for a network as training left it."""


class Provenance(Document):
    """Package, profile, engine and model behind a result or a run."""

    sshr_deploy: str
    """Version of this package."""
    profile: str
    """Name of the profile: classes, colours, pixel size."""
    relabelled_from: dict[str, Any] | None
    """Profile and class names that the network was trained with, where others were given."""
    engine: SessionInfo
    bundle: BundleFacts


class _SummaryHead(Document):
    schema_version: Literal[1]
    input: Source
    finished_utc: str
    """ISO 8601, to the second."""
    folder: FileText
    """Of the result, relative to the results of the run, with forward slashes."""


class _Keyed(Provenance):
    key: Key
    """All that decides the result; the same key is not computed again."""


class SlideSummary(_Keyed, SlideResult, _SummaryHead):
    """Content of a slide's `summary.json`."""


class PatchSummary(_Keyed, PatchResult, _SummaryHead):
    """Content of an image's `summary.json`."""


class _OtherClass(BaseModel):
    name: str
    share: float
    area_mm2: float | None


class OtherSummary(BaseModel):
    """Fields that are read of a `summary.json` of another release of this package."""

    input: Source
    finished_utc: str
    folder: FileText = ""
    mpp: Mpp | None = None
    tiles: Tiles | None = None
    large: str | None = None
    tissue_area_mm2: float | None = None
    classes: tuple[_OtherClass, ...]
    files: dict[str, int] | list[str]
    """The oldest format states names alone."""
    seconds: StageSeconds
    profile: str | None = None
    key: dict[str, Any]


Summary = SlideSummary | PatchSummary | OtherSummary


@dataclass(frozen=True)
class InputResult:
    """How one slide or image ended."""

    path: Path
    kind: Kind | None
    status: Status
    """"skipped": an earlier run did it with the same settings."""
    reason: str = ""
    """Why it failed; one line."""
    summary: Summary | None = None
    """None if it failed."""
    error: SshrDeployError | None = None
    """Raised by it, where it began and failed."""

    @property
    def fit(self) -> Fit | None:
        """Of a slide whose look was measured."""
        return self.summary.fit if isinstance(self.summary, SlideSummary) else None

    @property
    def warnings(self) -> tuple[SlideWarning, ...]:
        """Reasons to look at it."""
        return () if self.summary is None else warnings_of(self.summary)


def warnings_of(summary: Summary) -> tuple[SlideWarning, ...]:
    """Reasons to look at an input, with its stain if `any_stain` let that pass."""
    if isinstance(summary, OtherSummary):
        return ()
    warnings = summary.warnings if isinstance(summary, SlideSummary) else ()
    if summary.stain_concern is None or any(w.code == "stain" for w in warnings):
        return warnings
    return (SlideWarning(code="stain", text=summary.stain_concern), *warnings)
