"""Profiles: everything that depends on a dataset's classes, in one TOML file each.

`load_profile("luad")` reads a shipped profile, `load_profile("path/to/mine.toml")` a user's own.
"""

from __future__ import annotations

import re
from importlib import resources
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sshr_deploy.errors import ListedError, ProfileError
from sshr_deploy.toml_file import read_named_toml, shipped_names

_SHIPPED = resources.files("sshr_deploy.profiles")

_CODE_TEXT = r"^[^\x00-\x1f\\]+$"

Color = Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")]
"""RGB as "#rrggbb"."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Code(_Frozen):
    """Concept of a terminology, as DICOM states it."""

    value: Annotated[str, Field(min_length=1, max_length=16, pattern=_CODE_TEXT)]
    scheme: Annotated[str, Field(min_length=1, max_length=16, pattern=_CODE_TEXT)]
    """Its short name in DICOM: "SCT" is SNOMED CT; those of one's own begin with "99"."""
    meaning: Annotated[str, Field(min_length=1, max_length=64, pattern=_CODE_TEXT)]


class TissueClass(_Frozen):
    """One class: the name that results carry and the colour of its pixels."""

    name: Annotated[str, Field(min_length=1, max_length=80, pattern=r"^[^\x00-\x1f]+$")]
    color: Color
    code: Code | None = None
    """For DICOM Segmentations; None gives the class a code of this package's own."""
    category: Code | None = None
    """The same, of the kind of thing that `code` is (DICOM CID 7150); None is tissue."""

    @property
    def rgb(self) -> tuple[int, int, int]:
        """Colour as 0-255 red, green, blue."""
        return _rgb(self.color)


class CamWeights(_Frozen):
    """Share of each CAM level in the fused map."""

    cam_28_1: Annotated[float, Field(ge=0)] = 0.6
    cam_28_2: Annotated[float, Field(ge=0)] = 0.2
    cam_deep: Annotated[float, Field(ge=0)] = 0.2

    def as_tuple(self) -> tuple[float, float, float]:
        """Weights in the order 28_1, 28_2, deep."""
        return self.cam_28_1, self.cam_28_2, self.cam_deep


class SeamlessRule(_Frozen):
    """How a slide's label map is made of fields; see `runtime.field_labels`."""

    percentile: Annotated[float, Field(ge=50, le=100)] = 99.0
    """Of the CAMs over the tissue, which each level is divided by."""
    gate_threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    """None for the profile's own."""
    cam_weights: CamWeights | None = None
    """None for the profile's own."""
    class_bias: tuple[Annotated[float, Field(ge=-1, le=1)], ...] = ()
    """Added to the score of each class; empty for none."""


class Profile(_Frozen):
    """The meaning of a network's outputs: classes, scale, gate and label notation."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,39}$")]
    """Letters, digits, - and _; at most 40."""
    title: Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f]*$")]
    """Shown to people: of the data set."""
    mpp_um: Annotated[float, Field(gt=0.05, lt=20)]
    """Pixel size, in um, of the patches the network was trained on."""
    gate_threshold: Annotated[float, Field(ge=0, le=1)]
    """Classes whose probability is not above this are switched off in a patch; the best stays."""
    cam_weights: CamWeights = CamWeights()
    """Shares of the CAM levels."""
    seamless: SeamlessRule = SeamlessRule()
    """What differs for slides that are computed as fields."""
    label_pattern: Annotated[str, Field(max_length=200)] = r"\[(?P<flags>[01](?:[ ,]*[01])*)\]"
    """Regular expression whose group `flags` holds one 0 or 1 a class in a training file's name."""
    classes: Annotated[tuple[TissueClass, ...], Field(min_length=1, max_length=16)]
    """In the order of the labels."""
    background_color: Color = "#ffffff"
    """Of pixels without tissue."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [c.name for c in self.classes]
        if len(set(names)) != len(names):
            raise ValueError("class names must differ")
        for weights in (self.cam_weights, self.seamless.cam_weights):
            if weights is not None and sum(weights.as_tuple()) <= 0:
                raise ValueError("cam_weights must not all be 0")
        if len(self.seamless.class_bias) not in (0, len(self.classes)):
            raise ValueError("seamless.class_bias needs one number for each class")
        try:
            groups = re.compile(self.label_pattern).groupindex
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"label_pattern is not a regular expression: {error}") from error
        if "flags" not in groups:
            raise ValueError("label_pattern needs a group named 'flags'")
        return self

    @property
    def num_classes(self) -> int:
        """N; label maps hold 0 to N-1 for the classes and N for background."""
        return len(self.classes)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of labels 0 to N-1."""
        return tuple(tissue.name for tissue in self.classes)

    @property
    def palette(self) -> list[tuple[int, int, int]]:
        """RGB of labels 0 to N, the last being the background."""
        return [*(c.rgb for c in self.classes), _rgb(self.background_color)]

    def labels_in_name(self, filename: str) -> tuple[int, ...]:
        """Patch-level labels in a file's name: `x[1 0 0 1].png`, `x[1001].png`, `x-[1, 0, 0].png`.

        Raises:
            ProfileError: no labels in the name, or not one for each class.
        """
        matches = list(re.finditer(self.label_pattern, filename))
        if not matches:
            raise ProfileError(f"{filename} has no labels like [1 0 1] in its name")
        flags = tuple(int(c) for c in matches[-1]["flags"] or "" if c in "01")
        if len(flags) != self.num_classes:
            raise ProfileError(
                f"{filename} has {len(flags)} labels, profile {self.name} has "
                f"{self.num_classes} classes"
            )
        return flags


def relabelled_from(own: Profile | None, profile: Profile) -> dict[str, Any] | None:
    """Names of a network's classes by its own profile, for JSON.

    None where `profile` calls them the same, or the network has no profile of its own.
    """
    if own is None or own.class_names == profile.class_names:
        return None
    return {"profile": own.name, "classes": list(own.class_names)}


def shipped_profiles() -> list[str]:
    """Names of the profiles inside the package."""
    return shipped_names(_SHIPPED)


def load_profile(name_or_path: str) -> Profile:
    """Read a shipped profile by name, or a user's own from a path that ends in `.toml`.

    Raises:
        ProfileError: unknown name, unreadable file, or fields that are wrong (all of them named).
    """
    content = read_named_toml(name_or_path, _SHIPPED, "profile", ProfileError)
    return profile_from(content, f"profile {name_or_path}")


def profile_from(content: dict[str, Any], origin: str) -> Profile:
    """A profile from its fields, as `Profile.model_dump` gives them.

    Raises:
        ProfileError: fields are missing, unknown or wrong (all of them named, after `origin`).
    """
    try:
        return Profile.model_validate(content)
    except ValidationError as error:
        raise invalid_fields(error, origin, ProfileError) from error


def invalid_fields(
    error: ValidationError, origin: str, error_type: type[ListedError]
) -> ListedError:
    """The error for fields that are missing, unknown or wrong; a line for each of them."""
    first, *others = validation_problems(error)
    if not others:
        return error_type(f"{origin}: {first}")
    text = f"{origin} has {len(others) + 1} problems, the first: {first}"
    return error_type(text, [f"{origin}: {problem}" for problem in (first, *others)])


def describe_validation(error: ValidationError) -> str:
    """The first problem of a pydantic error as one line: `classes.0.color: ...`."""
    first, *others = validation_problems(error)
    return first + (f" (and {len(others)} more)" if others else "")


def validation_problems(error: ValidationError) -> list[str]:
    """Every problem of a pydantic error as one line: `classes.0.color: ...`."""
    found = error.errors(include_url=False)
    places = [".".join(str(part) for part in problem["loc"]) for problem in found]
    return [
        f"{place}: {problem['msg']}" if place else problem["msg"]
        for place, problem in zip(places, found, strict=True)
    ]


def _rgb(color: str) -> tuple[int, int, int]:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)
