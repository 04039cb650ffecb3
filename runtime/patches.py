"""Patch images (PNG, JPEG): read and resized as the published inference does."""

from __future__ import annotations

import threading
import warnings
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sshr_deploy.errors import InputError, first_line
from sshr_deploy.runtime.sessions.session import PATCH_PX

PATCH_SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})
MAX_PATCH_PIXELS = 25_000_000
"""Larger images are no patches: shrunk to 224 x 224 nothing of them would be left."""

_EIGHT_BIT_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"})


def read_image(path: Path) -> NDArray[np.uint8]:
    """RGB uint8 [H, W, 3] of an image file; alpha is dropped, as published.

    Raises:
        InputError: not an 8-bit PNG or JPEG that can be decoded, or larger than 25 Mpx.
    """
    try:
        if not path.is_file():
            raise InputError(f"{path} is not a file; give a PNG or JPEG image")
        with _without_warnings, Image.open(path, formats=("PNG", "JPEG")) as image:
            width, height = image.size
            if width * height > MAX_PATCH_PIXELS:
                raise InputError(
                    f"{path} is {width} x {height} px, too large for one patch; "
                    "cut it into patches, or convert it to a pyramidal TIFF and give that"
                )
            if image.mode not in _EIGHT_BIT_MODES:
                raise InputError(f"{path} has mode {image.mode}; convert it to 8-bit RGB")
            return np.asarray(image.convert("RGB"))
    except InputError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        # Pillow raises SyntaxError for broken PNG chunks.
        reason = first_line(error)
        raise InputError(f"{path} cannot be read as a PNG or JPEG image: {reason}") from error


class _Silence:
    """Pillow warns of large images and odd palettes; sizes are judged here, palettes converted.

    Python's warning filters belong to the whole process, so threads that read at the same time
    share one silence: the first to enter begins it, the last to leave ends it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readers = 0
        self._filters = ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if self._readers == 0:
                self._filters.enter_context(warnings.catch_warnings())
                warnings.simplefilter("ignore")
            self._readers += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._readers -= 1
            if self._readers == 0:
                self._filters.close()


_without_warnings = _Silence()


def resize_to_patch(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGB uint8 [H, W, 3] -> [224, 224, 3] by Pillow's bilinear filter, as published."""
    image = Image.fromarray(rgb)
    return np.asarray(image.resize((PATCH_PX, PATCH_PX), Image.Resampling.BILINEAR))
