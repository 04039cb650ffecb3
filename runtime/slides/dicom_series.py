"""Headers of a DICOM series, as the files of one slide tell them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import pydicom

from sshr_deploy.errors import InputError
from sshr_deploy.runtime.slides.reader import bits_text, wrong_samples

_REMEMBERED = 1 << 14
"""Headers that are kept; a watched folder is looked through again and again."""
_VOLUME_TAGS = (
    "ImageType",
    "ConcatenationUID",
    "InConcatenationTotalNumber",
    "BitsAllocated",
    "SamplesPerPixel",
)


def series_uid(path: Path) -> str | None:
    """SeriesInstanceUID (0020,000E); None for what is no readable DICOM file."""
    try:
        facts = path.stat()
    except OSError:
        return None
    return _read_series_uid(path, facts.st_size, facts.st_mtime_ns)


@lru_cache(_REMEMBERED)
def _read_series_uid(path: Path, _size: int, _mtime_ns: int) -> str | None:
    try:
        return str(_header(path, "SeriesInstanceUID").SeriesInstanceUID)
    except Exception:  # a parser of untrusted files raises nearly anything; opening will say what
        return None


def volume_files(paths: Iterable[Path]) -> list[Path]:
    """Those that hold a level of the slide, or a part of one: no label, overview or thumbnail.

    An instance that was cut into files (a concatenation) counts its parts. Libraries that find one
    missing fail late, or take what it held for glass.

    Raises:
        InputError: a part is missing, or it is not 8-bit RGB.
        Exception: whatever pydicom raises of a damaged file.
    """
    headers = {path: _header(path, *_VOLUME_TAGS) for path in sorted(paths)}
    volumes = {
        p: header for p, header in headers.items() if "VOLUME" in header.get("ImageType", ())
    }
    parts: dict[str, list[Path]] = defaultdict(list)
    for path, header in volumes.items():
        _check_samples(path, header)
        if "ConcatenationUID" in header:
            parts[header.ConcatenationUID].append(path)
    for first, *rest in parts.values():
        here, all_ = 1 + len(rest), int(volumes[first].InConcatenationTotalNumber)
        if here < all_:
            raise InputError(
                f"{first} is one of {all_} files of an image, of which {here} are here; copy all "
                "of them into one folder"
            )
    return list(volumes)


def _check_samples(path: Path, header: pydicom.FileDataset) -> None:
    if header.BitsAllocated != 8:
        raise wrong_samples(path, bits_text(header.BitsAllocated))
    if header.SamplesPerPixel != 3:
        raise wrong_samples(path, f"has {header.SamplesPerPixel} samples a pixel, not 3")


def magnification(path: Path) -> float | None:
    """Of the objective, as ObjectiveLensPower states it; None if missing."""
    for optical_path in _header(path, "OpticalPathSequence").get("OpticalPathSequence", ()):
        power = optical_path.get("ObjectiveLensPower")
        if power:
            return float(power)
    return None


def _header(path: Path, *tags: str) -> pydicom.FileDataset:
    return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(tags))
