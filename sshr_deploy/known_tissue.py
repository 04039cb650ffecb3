"""The tissue that a network knows: what it was trained on, and what it was adapted to.

Both are in the header of a checkpoint, and from there in the manifest of a bundle.
"""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sshr_deploy.errors import CheckpointError

KNOWN_TISSUE_KEY, ADAPTATION_KEY = "known_tissue", "adaptation"
"""Of the JSON of `KnownTissue` and `Adaptation` in a checkpoint's header."""
ORIGINAL_TISSUE_KEY = "original_known_tissue"
"""There, of the `KnownTissue` that a network had before it was adapted."""

_T = TypeVar("_T", bound=BaseModel)
_Share = Annotated[float, Field(ge=0, le=1)]
_Count = Annotated[int, Field(ge=0)]
_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Text = Annotated[str, Field(max_length=2000)]


class _Frozen(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )


class Appearance(_Frozen):
    """How stained tissue looks to a network, in figures that need no label."""

    density_mean: tuple[float, float, float]
    """Natural optical density of red, green and blue, mean over tissue pixels."""
    density_spread: tuple[float, float, float]
    """Its standard deviation."""
    density_correlation: tuple[float, float, float]
    """Of red and green, red and blue, green and blue."""
    layer_mean: tuple[float, ...]
    """Channels of the network's first convolution, mean over tissue pixels."""
    layer_spread: tuple[float, ...]
    """Their standard deviation."""


class KnownTissue(_Frozen):
    """Patches that a network was trained on or adapted to."""

    source: _Text
    """Where they came from, "64 tissue patches from 3 slides of cohort-a"."""
    patches: _Count
    class_shares: tuple[_Share, ...] | None
    """Share of each class in the label maps that the network made of its training set, as training
    left it; None if not known."""
    appearance: Appearance


class Checks(_Frozen):
    """What changed by an adaptation on the patches that it was made from, without labels."""

    agreement: _Share
    """Share of labels, one for each 8 x 8 px, that are the same before and after."""
    shares_before: tuple[_Share, ...]
    """Of each class in the label maps."""
    shares_after: tuple[_Share, ...]
    entropy_before: float
    """Of the class probabilities of patches, mean, in nats by class."""
    entropy_after: float
    slides_apart: float
    """Largest difference of one slide from all of them together: in the mean optical density of a
    colour, in standard deviations of all tissue pixels."""
    mean_iou_before: float | None = None
    """On labelled images, where some were given."""
    mean_iou_after: float | None = None
    mean_iou_gain_interval: tuple[float, float] | None = None
    """95 % interval of the gain in mean IoU, by bootstrap over images."""


class Adaptation(_Frozen):
    """How batch norms were adapted to other tissue."""

    adapted_utc: str
    source: _Text
    """As `KnownTissue.source`."""
    inputs_sha256: _Sha256
    """Over the fingerprints of the slides and images that gave patches."""
    slides: _Count
    """Slides and images that gave patches."""
    patches: _Count
    depth: str
    """Deepest stage of the backbone whose norms were adapted, "b3"."""
    balance: str
    strength: _Share
    min_spread: _Share
    original_sha256: _Sha256
    """Of the checkpoint that was adapted."""
    checks: Checks
    forced: tuple[_Text, ...] = ()
    """Objections that were overruled."""


def known_tissue_of(header: dict[str, str], origin: str) -> KnownTissue | None:
    """What a checkpoint's header says of the tissue that it knows; None where it says nothing.

    Raises:
        CheckpointError: it cannot be read.
    """
    return _parsed(KnownTissue, KNOWN_TISSUE_KEY, header, origin)


def adaptation_of(header: dict[str, str], origin: str) -> Adaptation | None:
    """How a checkpoint was adapted, by its header; None where it was not.

    Raises:
        CheckpointError: it cannot be read.
    """
    return _parsed(Adaptation, ADAPTATION_KEY, header, origin)


def _parsed(kind: type[_T], key: str, header: dict[str, str], origin: str) -> _T | None:
    text = header.get(key)
    if text is None:
        return None
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise CheckpointError(
            f"{origin} holds an unusable entry {key!r} in its header; train or adapt it again"
        ) from error
