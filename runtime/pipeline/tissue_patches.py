"""Tissue patches of slides and patch images, evenly spread over them.

An INT8 graph is calibrated on them, and a network adapted to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.errors import InputError, UsageError
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.patches import read_image, resize_to_patch
from sshr_deploy.runtime.pipeline.discovery import Input, search
from sshr_deploy.runtime.pipeline.images import model_scale, parts_of
from sshr_deploy.runtime.pipeline.patch import read_patch
from sshr_deploy.runtime.pixel_sizes import GivenMpp
from sshr_deploy.runtime.settings import InferSettings
from sshr_deploy.runtime.slides import open_slide
from sshr_deploy.runtime.slides.plan import plan_tiles, read_tile, survey_slide
from sshr_deploy.runtime.slides.stain import check_stain
from sshr_deploy.runtime.slides.tissue import detect_tissue

MIN_TISSUE_SHARE = 0.25
"""Of a patch's pixels: glass has one colour, and much of it would hide how far tissue reaches."""


class TissuePatches(NamedTuple):
    """Patches, and where they came from."""

    patches: NDArray[np.uint8]  # [P, 224, 224, 3]
    source: str
    """"64 tissue patches from 3 slides of cohort-a"."""
    skipped: tuple[str, ...]
    """Inputs that could not be used, each with its reason in one line."""
    inputs: tuple[Path, ...]
    """Slides and images that gave patches, by name."""
    of_input: NDArray[np.intp]  # [P], place in `inputs`


class _Input(Protocol):
    """A slide or an image whose tissue is known."""

    @property
    def places(self) -> int:
        """Patches that can be taken from it."""
        ...

    def read(self, chosen: Sequence[int]) -> list[NDArray[np.uint8]]:
        """RGB [224, 224, 3] of the places chosen.

        Raises:
            InputError: it is damaged.
        """
        ...


def tissue_patches(
    source: Path,
    profile: Profile,
    settings: InferSettings | None = None,
    *,
    limit: int = 64,
    seed: int = 0,
    balanced: bool = True,
) -> TissuePatches:
    """At most `limit` tissue patches of a slide, a patch image or a folder of both.

    Slides and images are read, cut and refused as in inference with `settings` (pixel size, stain,
    large images): at the profile's pixel size, images above 336 px a side in parts. A patch counts
    where tissue covers a quarter of it, by the colours of H&E even with `any_stain`. Every input
    gives as many patches as the others, as far as it has them, or in proportion to what it has if
    not `balanced`; no more inputs than `limit` are opened for good. Of a data set's split (`img`
    and `mask`) the images are read. The same files and `seed` give the same patches.

    Raises:
        UsageError: `source` is missing, of an unknown kind, or holds no slide or image; or none of
            them can be read, or none shows tissue.
    """
    settings = settings or InferSettings()
    rng = np.random.default_rng(seed)
    found, skipped = _inputs(source)
    usable: list[tuple[Input, _Input]] = []
    for index in rng.permutation(len(found)).tolist():
        try:
            opened = _open(found[index], profile, settings)
        except InputError as error:
            skipped.append(str(error))
            continue
        if opened.places:
            usable.append((found[index], opened))
        if len(usable) == limit:
            break
    usable.sort(key=lambda pair: pair[0].path)
    patches: list[NDArray[np.uint8]] = []
    served: list[Input] = []
    of_input: list[int] = []
    places = [opened.places for _, opened in usable]
    shares = _shares(places, limit) if balanced else _in_proportion(places, limit)
    for (item, opened), share in zip(usable, shares, strict=True):
        if share == 0:
            continue
        try:
            read = opened.read(_evenly(opened.places, share, rng))
        except InputError as error:
            skipped.append(str(error))
            continue
        patches += read
        of_input += [len(served)] * len(read)
        served.append(item)
    if not patches:
        raise _no_patch(source, skipped)
    return TissuePatches(
        np.stack(patches),
        _sentence(len(patches), served, source),
        (*skipped,),
        tuple(item.path for item in served),
        np.array(of_input, np.intp),
    )


def check_tissue_source(source: Path) -> None:
    """Refuse what `tissue_patches` cannot read, before the work that comes ahead of it.

    One slide or image that opens is enough; whether it shows tissue is not asked.

    Raises:
        UsageError: `source` is missing, of an unknown kind, or holds no slide or image; or none of
            them can be read.
    """
    found, skipped = _inputs(source)
    for item in found:
        try:
            if item.kind == "slide":
                with open_slide(item.path):
                    return
            read_image(item.path)
            return
        except InputError as error:
            skipped.append(str(error))
    raise _no_patch(source, skipped)


def _inputs(source: Path) -> tuple[list[Input], list[str]]:
    """Slides and images, and why folders could not be read, a line each."""
    is_split = (source / "img").is_dir() and (source / "mask").is_dir()
    folder = source / "img" if is_split else source
    found = search(folder, folder)
    return found.inputs, [failure.reason for failure in found.failures]


def _no_patch(source: Path, skipped: Sequence[str]) -> UsageError:
    why = skipped[0] if skipped else "nothing in it shows tissue"
    return UsageError(
        f"{source} gives no patch of tissue: {why}; give slides or patches with tissue"
    )


class _Slide:
    def __init__(self, path: Path, profile: Profile, settings: InferSettings) -> None:
        self._path = path
        with open_slide(path) as reader:
            survey = survey_slide(
                reader,
                profile.mpp_um,
                given=GivenMpp(settings.mpp_um, settings.force_mpp),
                concern_of=partial(_refuse_stain, path, any_stain=settings.any_stain),
            )
        plan = plan_tiles(survey)
        self._mpp, self._grid = plan.mpp, plan.grid  # its thumbnail is large
        self._tiles = [
            tile for tile, tissue in plan.tissue.items() if tissue.mask().mean() >= MIN_TISSUE_SHARE
        ]

    @property
    def places(self) -> int:
        return len(self._tiles)

    def read(self, chosen: Sequence[int]) -> list[NDArray[np.uint8]]:
        with open_slide(self._path) as reader:
            return [
                read_tile(reader, self._mpp, self._grid, self._tiles[index]) for index in chosen
            ]


def _refuse_stain(path: Path, picture: NDArray[np.uint8], *, any_stain: bool) -> None:
    """Tell the survey of no concern, for which all of a slide would count as tissue."""
    check_stain(path, picture, any_stain=any_stain)


class _Image:
    def __init__(self, path: Path, profile: Profile, settings: InferSettings) -> None:
        self._path = path
        rgb = read_patch(path, path.parent, profile, settings).rgb
        scale = model_scale(profile, settings.mpp_um)
        self._parts = [
            part
            for part in parts_of(rgb.shape[0], rgb.shape[1], settings.large, scale)
            if detect_tissue(part.of(rgb), profile.mpp_um * scale).mean() >= MIN_TISSUE_SHARE
        ]

    @property
    def places(self) -> int:
        return len(self._parts)

    def read(self, chosen: Sequence[int]) -> list[NDArray[np.uint8]]:
        rgb = read_image(self._path)
        return [resize_to_patch(self._parts[index].of(rgb)) for index in chosen]


def _open(item: Input, profile: Profile, settings: InferSettings) -> _Input:
    return (_Slide if item.kind == "slide" else _Image)(item.path, profile, settings)


def _shares(places: Sequence[int], limit: int) -> list[int]:
    """How many patches each input gives: equally many, as far as it has them."""
    shares = [0] * len(places)
    left = min(limit, sum(places))
    for rank, index in enumerate(sorted(range(len(places)), key=places.__getitem__)):
        shares[index] = min(places[index], left // (len(places) - rank))
        left -= shares[index]
    return shares


def _in_proportion(places: Sequence[int], limit: int) -> list[int]:
    """How many patches each input gives: as many of all places as of its own."""
    ends = np.cumsum([0, *places])
    part = min(1.0, limit / max(1, ends[-1]))
    shares: list[int] = np.diff(np.round(ends * part).astype(np.intp)).tolist()
    return shares


def _evenly(places: int, count: int, rng: np.random.Generator) -> list[int]:
    """`count` different indices below `places`, evenly spaced from a random start."""
    start = rng.random()
    return [int((index + start) * places / count) for index in range(count)]


def _sentence(patches: int, served: Sequence[Input], source: Path) -> str:
    counts = {kind: sum(item.kind == kind for item in served) for kind in ("slide", "patch")}
    names = {"slide": "slide", "patch": "image"}
    inputs = " and ".join(
        f"{count} {names[kind]}{'s' if count > 1 else ''}"
        for kind, count in counts.items()
        if count
    )
    word = "patch" if patches == 1 else "patches"
    return f"{patches} tissue {word} from {inputs} of {source.name}"
