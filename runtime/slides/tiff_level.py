"""One level of a TIFF pyramid: which stored chunk covers which pixels, decoded to RGB."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.errors import InputError
from sshr_deploy.runtime.slides.reader import bits_text, over_white, white, wrong_samples
from sshr_deploy.runtime.slides.tiff_metadata import INCOMPLETE_FIX

_VIRTUAL_STRIP_ROWS = 256
"""An uncompressed image is read in strips of this many rows, however it was written."""
_MAX_CHUNK_BYTES = 1 << 30
"""A tile or strip that decodes to more would have to be held in memory whole."""
_MINISWHITE, _MINISBLACK, _RGB, _PALETTE, _YCBCR = 0, 1, 2, 3, 6
_JPEG_COMPRESSIONS = (6, 7, 34892, 33007)
_NEEDS = "SSHR needs 8-bit RGB brightfield"
_CONVERT_FIX = "convert it to a tiled pyramid, for example with `vips tiffsave --tile --pyramid`"


@dataclass(frozen=True)
class TiffLevel:
    """A level as a grid of chunks (tiles, strips, or rows of an uncompressed image)."""

    page: Any
    """tifffile.TiffPage or TiffFrame."""
    width_px: int
    height_px: int
    chunk_width_px: int
    chunk_height_px: int
    raw: bool
    """Uncompressed and contiguous: rows are read straight from the file."""

    @property
    def chunks_across(self) -> int:
        """Chunks in one row of chunks."""
        return math.ceil(self.width_px / self.chunk_width_px)

    def read_chunk(self, row: int, column: int, file_lock: Lock) -> NDArray[np.uint8]:
        """Decode one chunk to RGB [rows, columns, 3]; not stored (sparse) chunks are white."""
        if self.raw:
            return self._read_raw_rows(row, file_lock)
        keyframe = self.page.keyframe
        down = math.ceil(self.height_px / self.chunk_height_px)
        planes = keyframe.samplesperpixel if keyframe.planarconfig == 2 else 1
        parts = []
        for plane in range(planes):
            index = (plane * down + row) * self.chunks_across + column
            data = self._read_bytes(
                self.page.dataoffsets[index], self.page.databytecounts[index], file_lock
            )
            if data is None:
                return white(self.chunk_height_px, self.chunk_width_px)
            decoded = self._decode(data, index)
            parts.append(decoded.reshape(decoded.shape[-3:]))
        return to_rgb(np.concatenate(parts, axis=2) if planes > 1 else parts[0], keyframe)

    def _decode(self, data: bytes, index: int) -> NDArray[np.uint8]:
        keyframe = self.page.keyframe
        tables = {}
        if keyframe.compression in _JPEG_COMPRESSIONS:
            tables = {"jpegtables": self.page.jpegtables, "jpegheader": keyframe.jpegheader}
        decoded: NDArray[np.uint8] = keyframe.decode(data, index, **tables)[0]
        return decoded

    def _read_raw_rows(self, row: int, file_lock: Lock) -> NDArray[np.uint8]:
        samples = self.page.keyframe.samplesperpixel
        first = row * self.chunk_height_px
        rows = min(self.chunk_height_px, self.height_px - first)
        row_bytes = self.width_px * samples
        offset = self.page.dataoffsets[0] + first * row_bytes
        data = self._read_bytes(offset, rows * row_bytes, file_lock)
        pixels = np.frombuffer(data or b"", np.uint8).reshape(rows, self.width_px, samples)
        return to_rgb(pixels, self.page.keyframe)

    def _read_bytes(self, offset: int, count: int, file_lock: Lock) -> bytes | None:
        if not offset or not count:
            return None
        handle = self.page.parent.filehandle
        with file_lock:
            handle.seek(offset)
            data: bytes = handle.read(count)
        if len(data) < count:
            raise EOFError("the file ends in the middle of a tile")
        return data


def tiff_level(path: Path, page: Any) -> TiffLevel:
    """Describe a page (tifffile.TiffPage or TiffFrame) after checking that SSHR can use it.

    Raises:
        InputError: not 8-bit RGB, grey or palette, chunks too large to decode, or data beyond the
            file.
    """
    keyframe = page.keyframe
    _check_pixels(path, keyframe)
    width, height = int(keyframe.imagewidth), int(keyframe.imagelength)
    _check_extent(path, page)
    if _is_raw(page, width, height):
        return TiffLevel(page, width, height, width, min(_VIRTUAL_STRIP_ROWS, height), raw=True)
    chunk_width, chunk_height = width, min(int(keyframe.rowsperstrip or height), height)
    if keyframe.is_tiled:
        chunk_width, chunk_height = int(keyframe.tilewidth), int(keyframe.tilelength)
    if chunk_width * chunk_height * keyframe.samplesperpixel > _MAX_CHUNK_BYTES:
        raise InputError(
            f"{path} is compressed in pieces of {chunk_width} x {chunk_height} pixels, too large "
            f"to decode; {_CONVERT_FIX}"
        )
    return TiffLevel(page, width, height, chunk_width, chunk_height, raw=False)


def to_rgb(pixels: NDArray[np.uint8], keyframe: Any) -> NDArray[np.uint8]:
    """Samples [H, W, 1-4] as TIFF stores them → RGB [H, W, 3], transparency over white."""
    colors = 1 if keyframe.photometric in (_MINISWHITE, _MINISBLACK) else 3
    if keyframe.photometric == _PALETTE:  # [3, 256] of 16 bits, TIFF 6.0 ColorMap
        palette = (keyframe.colormap >> 8).astype(np.uint8).T
        pixels, colors = np.concatenate([palette[pixels[..., 0]], pixels[..., 1:]], axis=2), 3
    if keyframe.photometric == _MINISWHITE:
        pixels = np.concatenate([255 - pixels[..., :1], pixels[..., 1:]], axis=2)
    rgb = np.repeat(pixels[..., :1], 3, axis=2) if colors == 1 else pixels[..., :3]
    if pixels.shape[2] == colors or not keyframe.extrasamples:
        return np.ascontiguousarray(rgb)
    alpha = pixels[..., colors]
    kind = int(keyframe.extrasamples[0])
    if kind == 2:  # unassociated, TIFF 6.0 ExtraSamples
        return over_white(rgb, alpha)
    if kind == 1:  # associated: already multiplied by alpha
        lifted = rgb.astype(np.uint16) + (255 - alpha[..., None])
        rgb = np.minimum(lifted, 255).astype(np.uint8)
    return np.ascontiguousarray(rgb)


def _check_pixels(path: Path, keyframe: Any) -> None:
    bits = keyframe.bitspersample
    problem = None
    if bits != 8 or keyframe.dtype != np.uint8:
        raise wrong_samples(path, bits_text(bits))
    if keyframe.imagedepth != 1:
        problem = "is a volume"
    elif keyframe.photometric in (_MINISWHITE, _MINISBLACK, _PALETTE):
        if keyframe.samplesperpixel - len(keyframe.extrasamples) != 1:
            problem = f"has {keyframe.samplesperpixel} channels that are not colours"
    elif keyframe.photometric not in (_RGB, _YCBCR):
        raise wrong_samples(path, f"stores its colours as {_photometric_name(keyframe)}")
    elif keyframe.photometric == _YCBCR and keyframe.compression not in _JPEG_COMPRESSIONS:
        problem = "stores its colours as YCbCr without JPEG"
    elif keyframe.samplesperpixel not in (3, 4):
        problem = f"has {keyframe.samplesperpixel} samples a pixel"
    if problem is not None:
        raise InputError(f"{path} {problem}; {_NEEDS}")


def _photometric_name(keyframe: Any) -> str:
    name = str(getattr(keyframe.photometric, "name", keyframe.photometric)).lower()
    return "CMYK" if name == "separated" else name


def _check_extent(path: Path, page: Any) -> None:
    """A file that was copied in part still has its tables: compare them with its size."""
    keyframe = page.keyframe
    offsets, counts = page.dataoffsets, page.databytecounts
    tile = keyframe.chunks if keyframe.is_tiled else None
    across = math.ceil(keyframe.imagewidth / keyframe.tilewidth) if tile else 1
    rows = keyframe.tilelength if tile else min(keyframe.rowsperstrip, keyframe.imagelength)
    wanted = across * math.ceil(keyframe.imagelength / max(1, rows))
    if keyframe.planarconfig == 2:
        wanted *= keyframe.samplesperpixel
    if len(offsets) < wanted or len(counts) < wanted:
        raise InputError(
            f"{path} lists {min(len(offsets), len(counts))} of its {wanted} tiles or strips; "
            f"{INCOMPLETE_FIX}"
        )
    file_bytes = page.parent.filehandle.size
    missing = sum(o + c > file_bytes for o, c in zip(offsets, counts, strict=True))
    if missing:
        share = 100 * missing / len(offsets)
        raise InputError(
            f"{path} ends before {share:.0f} % of the tiles of its {keyframe.imagewidth} x "
            f"{keyframe.imagelength} image; {INCOMPLETE_FIX}"
        )


def _is_raw(page: Any, width: int, height: int) -> bool:
    keyframe = page.keyframe
    return bool(
        keyframe.compression == 1
        and keyframe.predictor == 1
        and keyframe.fillorder == 1
        and keyframe.planarconfig == 1
        and not keyframe.is_tiled
        and page.is_contiguous
        and sum(page.databytecounts) >= width * height * keyframe.samplesperpixel
    )
