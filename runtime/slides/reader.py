"""Base of all slide readers; failures of the libraries below become `InputError`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.errors import InputError, SshrDeployError

_MAX_REASON_CHARACTERS = 200


class SlideReader(Protocol):
    """One slide, its levels finest first; a context manager, and reads may come from any thread."""

    @property
    def path(self) -> Path:
        """The file that was opened."""
        ...

    @property
    def reader(self) -> str:
        """Library, version and format, as `openslide 4.0.1 (aperio)`."""
        ...

    @property
    def level_sizes_px(self) -> tuple[tuple[int, int], ...]:
        """(width, height) of each level."""
        ...

    @property
    def level_downsamples(self) -> tuple[float, ...]:
        """Level-0 pixels along one pixel of each level; 1.0 for the first."""
        ...

    @property
    def file_mpp_um(self) -> tuple[float, float] | None:
        """Pixel size of level 0 in um (x, y) as the file states it, not judged; None if missing."""
        ...

    @property
    def file_magnification(self) -> float | None:
        """Magnification of the objective as the file states it (20 for 20x); None if missing."""
        ...

    def read_region(
        self, level: int, l_x: int, l_y: int, width_px: int, height_px: int
    ) -> NDArray[np.uint8]:
        """RGB pixels, [height_px, width_px, 3]; all arguments in pixels of that level.

        The corner may be negative or past the edge: whatever is outside the level, not scanned or
        transparent comes back white.

        Raises:
            InputError: the file is damaged there; names level and place.
        """
        ...

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        ...

    def __enter__(self) -> Self:
        """Return the reader itself."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        ...


@contextmanager
def mapped_read_errors(path: Path, what: str, fix: str) -> Iterator[None]:
    """Turn whatever a parser of untrusted files raises into one line: `path what: reason; fix`.

    Parsers of damaged files raise nearly anything (struct.error, KeyError, RuntimeError of codecs),
    so every Exception is mapped: keep the block around calls of the libraries only.

    Raises:
        InputError: in place of any exception that is not one of ours.
    """
    try:
        yield
    except SshrDeployError:
        raise
    except Exception as error:
        raise InputError(f"{path} {what}: {one_line_reason(error)}; {fix}") from error


def one_line_reason(error: Exception) -> str:
    """An exception's text without line breaks and of bounded length."""
    if isinstance(error, MemoryError):
        return "not enough memory"
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    printable = "".join(c if c.isprintable() else " " for c in text)
    reason = " ".join(printable.split()) or type(error).__name__
    if len(reason) > _MAX_REASON_CHARACTERS:
        reason = reason[: _MAX_REASON_CHARACTERS - 3] + "..."
    return reason


def wrong_samples(path: Path, problem: str) -> InputError:
    """The one refusal of bit depths and colours that would have to be guessed at.

    `problem` continues the path: "has 16 bits a sample". Nothing is converted silently: whether
    white is 65535 or 4095, and which ink profile a file means, is not in it.
    """
    return InputError(
        f"{path} {problem}; SSHR needs 8-bit RGB brightfield, convert it to that with glass near "
        "255"
    )


def bits_text(bits: int) -> str:
    """A bit depth in the words of `wrong_samples`."""
    return f"has {bits} bit{'s' if bits != 1 else ''} a sample"


def downsamples_of(level_sizes_px: Sequence[tuple[int, int]]) -> tuple[float, ...]:
    """Level-0 pixels per pixel of each level, from the sizes alone.

    Writers drop or pad the odd last pixel (4443 → 2221), so W / w is a little off (2.0005). Where
    a whole number explains both sizes to within one pixel, it is the true factor.
    """
    width, height = level_sizes_px[0]
    factors = []
    for w, h in level_sizes_px:
        mean = (width / w + height / h) / 2
        whole = max(1, round(mean))
        exact = abs(width / whole - w) < 1 and abs(height / whole - h) < 1
        factors.append(float(whole) if exact else mean)
    return tuple(factors)


def clipped_box(
    size_px: tuple[int, int], l_x: int, l_y: int, width_px: int, height_px: int
) -> tuple[int, int, int, int] | None:
    """The part of a rectangle inside a level as (x0, y0, x1, y1), or None if there is none."""
    x0, y0 = max(0, l_x), max(0, l_y)
    x1, y1 = min(size_px[0], l_x + width_px), min(size_px[1], l_y + height_px)
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def white(height_px: int, width_px: int) -> NDArray[np.uint8]:
    """A white RGB picture, [height_px, width_px, 3]."""
    return np.full((height_px, width_px, 3), 255, np.uint8)


def over_white(rgb: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Lay straight (not premultiplied) RGB [H, W, 3] with alpha [H, W] over white."""
    a = alpha[..., None].astype(np.uint16)
    mixed = (rgb.astype(np.uint16) * a + 255 * (255 - a) + 127) // 255
    return mixed.astype(np.uint8)
