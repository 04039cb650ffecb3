"""Images (PNG, JPEG): read and resized to a patch as the published inference does."""

from __future__ import annotations

import threading
import warnings
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sshr_deploy.errors import InputError, first_line
from sshr_deploy.runtime.contract import PATCH_PX
from sshr_deploy.runtime.slides.reader import bits_text, over_white, wrong_samples

PATCH_SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})
MAX_IMAGE_PIXELS = 25_000_000
"""An image is held whole (75 MB); larger ones are for the slide readers, which need not."""
MIN_SIDE_PX = 32
"""A seventh of a patch's side: of less, enlarged to a patch, no cell can be told."""
MAX_ASPECT = 20
"""A strip longer than this times its width is no field of tissue; in a patch it is a smear."""

_TOO_LARGE = (
    f"above the {MAX_IMAGE_PIXELS // 1_000_000} Mpx of a PNG or JPEG image; cut it into smaller "
    "images, or convert it to a pyramidal TIFF, which infer takes as a slide"
)
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_PNG_PALETTE = 3


def read_image(path: Path) -> NDArray[np.uint8]:
    """RGB uint8 [H, W, 3] of an image file; grey and palettes become RGB, transparency white.

    Raises:
        InputError: not an 8-bit PNG or JPEG that can be decoded, in CMYK, larger than 25 Mpx, a
            side under 32 px, or one side more than 20 times the other.
    """
    try:
        if not path.is_file():
            raise InputError(f"{path} is not a file; give a PNG or JPEG image")
        _check_samples(path)
        with _without_warnings, Image.open(path, formats=("PNG", "JPEG")) as image:
            _check_size(path, *image.size)
            if image.mode == "CMYK":
                raise wrong_samples(path, "stores its colours as CMYK")
            if not image.has_transparency_data:
                return np.asarray(image.convert("RGB"))
            rgba = np.asarray(image.convert("RGBA"))
            return over_white(rgba[..., :3], rgba[..., 3])
    except InputError:
        raise
    except Image.DecompressionBombError as error:  # above 179 Mpx Pillow does not tell the size
        raise InputError(f"{path} is {_TOO_LARGE}") from error
    except (OSError, SyntaxError, ValueError) as error:
        # Pillow raises SyntaxError for broken PNG chunks.
        reason = first_line(error)
        raise InputError(f"{path} cannot be read as a PNG or JPEG image: {reason}") from error


def check_rgb(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The same pixels, if they are an image that can be segmented.

    Raises:
        InputError: not uint8 [H, W, 3], a side under 32 px, or one side more than 20 times the
            other.
    """
    if not isinstance(rgb, np.ndarray):
        raise InputError(f"an image must be a NumPy array, not {type(rgb).__name__}")
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        given = f"{rgb.dtype} {list(rgb.shape)}"
        raise InputError(f"an image must be RGB, uint8 [H, W, 3], not {given}")
    height, width = rgb.shape[:2]
    _check_sides("the image", width, height)
    return rgb


def _check_samples(path: Path) -> None:
    """Pillow cuts 16-bit RGB down to 8 bits without a word: ask the file, not Pillow's mode."""
    with path.open("rb") as file:
        head = file.read(26)
    if len(head) < 26 or not head.startswith(_PNG_MAGIC):
        return  # JPEG, or what Pillow will refuse
    bits, colour_type = head[24], head[25]  # of IHDR, always the first chunk
    if bits in (1, 2, 4, 16) and colour_type != _PNG_PALETTE:
        raise wrong_samples(path, bits_text(bits))


def _check_size(path: Path, width_px: int, height_px: int) -> None:
    size = _check_sides(path, width_px, height_px)
    if width_px * height_px > MAX_IMAGE_PIXELS:
        raise InputError(f"{size}, {_TOO_LARGE}")


def _check_sides(name: object, width_px: int, height_px: int) -> str:
    """Refuse what is too small or too narrow; gives the words for its size."""
    short, long = sorted((width_px, height_px))
    size = f"{name} is {width_px} x {height_px} px"
    if short < MIN_SIDE_PX:
        raise InputError(f"{size}; give an image of at least {MIN_SIDE_PX} px on each side")
    if long > MAX_ASPECT * short:
        raise InputError(
            f"{size}, one side more than {MAX_ASPECT} times the other; cut it into shorter images"
        )
    return size


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
    """RGB uint8 [H, W, 3] -> [224, 224, 3] by Pillow's bilinear filter, as published.

    Pixels that have that size already are given back.
    """
    if rgb.shape[:2] == (PATCH_PX, PATCH_PX):
        return rgb
    image = Image.fromarray(rgb)
    return np.asarray(image.resize((PATCH_PX, PATCH_PX), Image.Resampling.BILINEAR))
