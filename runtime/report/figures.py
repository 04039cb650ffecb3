"""Numbers, times and names as the pages show them."""

from __future__ import annotations

import math
import os
from datetime import datetime
from urllib.parse import quote

from sshr_deploy.errors import one_line
from sshr_deploy.runtime.slides import Mpp

NONE = "–"
"""Stands where there is no value."""

_BYTES = ("bytes", "kB", "MB", "GB", "TB")


def digits(value: float) -> str:
    """Three significant digits, all of those before the point, never an exponent."""
    if value == 0:
        return "0"
    places = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{places}f}"
    rounded = abs(float(text.replace(",", "")))  # 9.999 has one place fewer once it is 10
    return f"{value:,.{max(0, 2 - math.floor(math.log10(rounded)))}f}"


def area(mm2: float | None) -> str:
    """An area in mm²."""
    return NONE if mm2 is None else f"{digits(mm2)} mm²"


def share(part: float | None) -> str:
    """A fraction as percent; one that is there never shows as 0.0 %."""
    if part is None:
        return NONE
    return "< 0.1 %" if 0 < part < 0.0005 else f"{100 * part:.1f} %"


def probability(value: float) -> str:
    """A probability, 0 to 1, as the viewer shows it."""
    return f"{value:.2f}"


def agreement(part: float | None) -> str:
    """A share of pixels as percent, rounded down: 100 % is all of them."""
    if part is None:
        return NONE
    return f"{math.floor(round(part * 1e7) / 100) / 1e3:g} %"


def pixel_size(mpp: Mpp | None) -> str:
    """Size of a level-0 pixel in µm."""
    if mpp is None:
        return NONE
    x, y = f"{mpp.x_um:.4g}", f"{mpp.y_um:.4g}"
    return f"{x} µm" if x == y else f"{x} × {y} µm"


def seconds(value: float | None) -> str:
    """A duration, by its size in s, min or h."""
    if value is None:
        return NONE
    if value < 59.95:
        return f"{value:.2f} s" if value < 0.995 else f"{value:.1f} s"
    minutes, rest_s = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest_s:02d} s"
    return f"{minutes // 60:,} h {minutes % 60:02d} min"


def size(count: int) -> str:
    """Bytes as kB, MB, ... of a thousand each."""
    value, unit = float(count), 0
    while value >= 999.5 and unit < len(_BYTES) - 1:
        value, unit = value / 1000, unit + 1
    return f"{digits(value)} {_BYTES[unit]}"


def moment(utc: str) -> str:
    """A time of a document to the minute; as it stands where it is no ISO 8601."""
    try:
        return f"{datetime.fromisoformat(utc):%Y-%m-%d %H:%M} UTC"
    except ValueError:
        return utc


def count(number: int) -> str:
    """With separators of thousands."""
    return f"{number:,}"


def shown(text: str) -> str:
    """Any text, such as the name of a file, with what is no character written in ASCII."""
    if text.isprintable():
        return text
    return one_line(text).encode("utf-8", "backslashreplace").decode("utf-8")


def link(path: str) -> str:
    """Relative address of a path with forward slashes, whatever bytes it holds."""
    return quote(os.fsencode(path))
