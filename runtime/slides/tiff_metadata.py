"""Pixel size in TIFF files, and whether a TIFF file is all there."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import BinaryIO
from xml.etree import ElementTree

import numpy as np
import tifffile
from numpy.typing import NDArray

from sshr_deploy.errors import InputError

_UM_PER_UNIT = {
    "pm": 1e-6, "nm": 1e-3, "Å": 1e-4, "µm": 1.0, "μm": 1.0, "um": 1.0, "micron": 1.0,
    "mm": 1e3, "cm": 1e4, "dm": 1e5, "m": 1e6, "in": 25400.0, "inch": 25400.0,
}  # fmt: skip
"""OME's length units (micro sign and Greek mu both) and ImageJ's spellings."""
_UM_PER_RESOLUTION_UNIT = {2: 25400.0, 3: 1e4}
"""TIFF 6.0 ResolutionUnit: 2 inch, 3 centimetre; 1 means none."""
_TYPE_BYTES = {
    1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4,
    16: 8, 17: 8, 18: 8,
}  # fmt: skip
"""Bytes of a value of each TIFF and BigTIFF field type."""
_NUMPY_TYPES = {3: "u2", 4: "u4", 13: "u4", 16: "u8", 18: "u8"}
_DATA_TAG_PAIRS = ((273, 279), (324, 325))
"""StripOffsets and StripByteCounts, TileOffsets and TileByteCounts."""
_DATA_TAGS = frozenset(tag for pair in _DATA_TAG_PAIRS for tag in pair)
_MAX_PAGES = 65536

INCOMPLETE_FIX = "the file is damaged or was copied only in part, copy it again"


def tiff_mpp_um(
    tiff: tifffile.TiffFile, page: tifffile.TiffPage, size_px: tuple[int, int]
) -> tuple[float, float] | None:
    """Pixel size (x, y) in um from OME-XML, ImageJ's description or the resolution tags.

    Args:
        tiff: the open file.
        page: the page of level 0.
        size_px: (width, height) of level 0, which picks the right image of an OME file.
    """
    if tiff.is_ome and tiff.ome_metadata:
        found = _ome_mpp(tiff.ome_metadata, size_px)
        if found is not None:
            return found
    unit = _UM_PER_RESOLUTION_UNIT.get(int(page.tags.valueof(296, 2)))
    if tiff.is_imagej and tiff.imagej_metadata:
        name = str(tiff.imagej_metadata.get("unit", "")).replace("\\u00B5", "µ")
        unit = _UM_PER_UNIT.get(name, unit)
    x, y = (_rational(page.tags.valueof(tag)) for tag in (282, 283))
    if unit is None or x is None or y is None:
        return None
    return unit / x, unit / y


def ome_magnification(tiff: tifffile.TiffFile) -> float | None:
    """NominalMagnification of the objective where OME-XML names exactly one; else None."""
    if not (tiff.is_ome and tiff.ome_metadata):
        return None
    stated = {
        element.get("NominalMagnification", "")
        for element in ElementTree.fromstring(tiff.ome_metadata).iter()
        if element.tag.rpartition("}")[2] == "Objective"
    }
    try:
        (value,) = map(float, stated)
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None


def _ome_mpp(xml: str, size_px: tuple[int, int]) -> tuple[float, float] | None:
    for element in ElementTree.fromstring(xml).iter():
        if element.tag.rpartition("}")[2] != "Pixels":
            continue
        if (element.get("SizeX"), element.get("SizeY")) != tuple(map(str, size_px)):
            continue
        sizes = [_ome_length_um(element, axis) for axis in "XY"]
        if sizes[0] is not None and sizes[1] is not None:
            return sizes[0], sizes[1]
    return None


def _ome_length_um(pixels: ElementTree.Element, axis: str) -> float | None:
    factor = _UM_PER_UNIT.get(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
    try:
        value = float(pixels.get(f"PhysicalSize{axis}", ""))
    except ValueError:
        return None
    return value * factor if factor is not None and math.isfinite(value) and value > 0 else None


def _rational(value: object) -> float | None:
    if not (isinstance(value, tuple) and len(value) == 2 and value[0] > 0 and value[1] > 0):
        return None
    return float(value[0]) / float(value[1])


def check_pages_complete(path: Path) -> None:
    """Follow the chain of image directories (TIFF 6.0 section 2; BigTIFF) to its end.

    Readers stop silently at a directory that is missing, so a half-copied pyramid would pass for a
    whole file with fewer levels; and tiles that are missing would be met after hours of work.
    Sub-directories (OME levels) are not followed here; `tiff_level` checks theirs.

    Raises:
        InputError: a directory, its values or its tiles lie beyond the end of the file, or the
            chain loops.
        OSError, struct.error: the file cannot be read; the caller maps them.
    """
    file_bytes = path.stat().st_size
    with path.open("rb") as file:
        header = file.read(16)
        order = "<" if header[:2] == b"II" else ">"
        big = struct.unpack(order + "H", header[2:4])[0] == 43
        offset: int | None
        offset = struct.unpack_from(order + ("Q" if big else "I"), header, 8 if big else 4)[0]
        seen: set[int] = set()
        while offset is not None and 0 < offset < file_bytes:
            if offset in seen or len(seen) > _MAX_PAGES:
                raise InputError(f"{path} has a loop in its image directories; {INCOMPLETE_FIX}")
            seen.add(offset)
            offset = _next_directory(file, order, big, offset, file_bytes)
        if offset != 0:
            raise InputError(f"{path} ends before image {max(1, len(seen))} does; {INCOMPLETE_FIX}")


def _next_directory(
    file: BinaryIO, order: str, big: bool, offset: int, file_bytes: int
) -> int | None:
    """Offset of the directory after the one at `offset`, 0 for none, None if this one is cut."""
    word, entry = ("Q", "HHQ8s") if big else ("I", "HHI4s")
    count_format, entry_bytes = order + ("Q" if big else "H"), struct.calcsize("<" + entry)
    file.seek(offset)
    count = _unpack(file, count_format)
    if count is None or offset + count * entry_bytes > file_bytes:
        return None
    entries = list(struct.iter_unpack(order + entry, file.read(count * entry_bytes)))
    following = _unpack(file, order + word)
    data: dict[int, NDArray[np.uint64]] = {}
    for tag, kind, values, raw in entries:
        size = values * _TYPE_BYTES.get(kind, 0)
        place = None if size <= len(raw) else struct.unpack(order + word, raw)[0]
        if place is not None and place + size > file_bytes:
            return None
        if tag in _DATA_TAGS and kind in _NUMPY_TYPES:
            if place is not None:
                file.seek(place)
                raw = file.read(size)
            numbers = np.frombuffer(raw[:size], order + _NUMPY_TYPES[kind])
            data[tag] = numbers.astype(np.uint64)
    return following if _data_inside(data, file_bytes) else None


def _data_inside(data: dict[int, NDArray[np.uint64]], file_bytes: int) -> bool:
    """Whether tiles and strips end within the file, given their offsets and sizes by tag."""
    for offsets_tag, sizes_tag in _DATA_TAG_PAIRS:
        offsets, sizes = data.get(offsets_tag), data.get(sizes_tag)
        if offsets is not None and sizes is not None and len(offsets) == len(sizes):
            stored = offsets[sizes > 0].astype(np.float64) + sizes[sizes > 0]
            if stored.size and stored.max() > file_bytes:
                return False
    return True


def _unpack(file: BinaryIO, form: str) -> int | None:
    raw = file.read(struct.calcsize(form))
    if len(raw) < struct.calcsize(form):
        return None
    value: int = struct.unpack(form, raw)[0]
    return value
