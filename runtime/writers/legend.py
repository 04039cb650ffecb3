"""The strip below an overlay: title, scale bar, classes with their shares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from sshr_deploy.runtime.slides.view import Box
from sshr_deploy.runtime.writers.fonts import Font, Lettering, lettering_for

_INK = (34, 34, 34)
_PALE_INK = (120, 120, 120)
_PAPER = (236, 236, 236)
_WARNING = (178, 92, 0)


@dataclass(frozen=True)
class LegendEntry:
    """One class: name, colour, and fraction (0 to 1) of the tissue, None where unknown."""

    name: str
    rgb: tuple[int, int, int]
    share: float | None

    @property
    def percent(self) -> str:
        """The share as text; a class that is there never shows as 0.0%."""
        if self.share is None:
            return "-"
        if 0 < self.share < 0.0005:
            return "<0.1%"
        return f"{100 * self.share:.1f}%"


@dataclass(frozen=True)
class Place:
    """Of a picture on its slide."""

    box: Box
    aspect: float
    """Width of the slide over its height."""


@dataclass(frozen=True)
class _Layout:
    lettering: Lettering
    unit_px: int  # font size, the measure of all gaps
    density: int
    columns: int
    column_px: int
    width_px: int

    @property
    def font(self) -> Font:
        return self.lettering.font

    @property
    def row_px(self) -> int:
        return round(1.75 * self.unit_px)

    def rows(self, count: int) -> int:
        return math.ceil(count / self.columns)

    def wrapped(self, note: str) -> list[str]:
        """A note in lines that fit beside its mark."""
        room_px = self.width_px - 4 * self.unit_px
        lines = [""]
        for word in self.lettering.shown(note).split():
            longer = f"{lines[-1]} {word}".lstrip()
            if lines[-1] and self.font.getlength(longer) > room_px:
                lines.append(word)
            else:
                lines[-1] = longer
        return [shorten(line, self.font, room_px) for line in lines]


def draw_legend(
    entries: Sequence[LegendEntry],
    *,
    title: str,
    width_px: int,
    mpp_um: float | None,
    share_of: str = "tissue",
    place: Place | None = None,
    notes: Sequence[str] = (),
    density: int = 1,
) -> Image.Image:
    """Draw the strip.

    Args:
        entries: the classes in their order, filled row by row into as many columns as fit.
        title: one line; shortened in the middle when it is too long.
        width_px: wanted width; the strip is wider where the longest entry needs it.
        mpp_um: um per pixel of the picture above, for the scale bar; None leaves it out.
        share_of: what the shares are of, "tissue" or "image".
        place: of the picture above on its slide, drawn as a small map; None draws none.
        notes: sentences below the classes, broken into lines and each marked as a warning.
        density: pixels of the strip along one of the screen it is meant for.

    Returns:
        RGB image, at least `width_px` wide.
    """
    layout = _layout(entries, title, notes, width_px, density)
    pad, row = layout.unit_px, layout.row_px
    lines = [layout.wrapped(note) for note in notes]
    classes_end = pad + row * (layout.rows(len(entries)) + 1)
    height = classes_end + row * sum(map(len, lines)) + pad
    image = Image.new("RGB", (layout.width_px, height), "white")
    draw = ImageDraw.Draw(image)
    middle_y, right = pad + row // 2, layout.width_px - pad
    if mpp_um is not None:
        right = _draw_scale_bar(draw, layout, width_px, mpp_um, middle_y) - pad
    if place is not None:
        right = _draw_place(draw, layout, place, right, middle_y) - pad
    _draw_title(draw, layout, title, f"% of {share_of} area", right, middle_y)
    for index, entry in enumerate(entries):
        line, column = divmod(index, layout.columns)
        left = pad + column * layout.column_px
        _draw_entry(draw, layout, entry, left, pad + row * (line + 1) + row // 2)
    top = classes_end
    for note in lines:
        _draw_note(draw, layout, note, top)
        top += row * len(note)
    return image


def nice_length_um(longest_um: float) -> float:
    """The largest of 1, 2, 5 times a power of ten that is not above `longest_um` (um)."""
    power = 10.0 ** math.floor(math.log10(longest_um))
    return max(power * step for step in (1, 2, 5) if power * step <= longest_um * (1 + 1e-9))


def length_text(length_um: float) -> str:
    """A length with its unit: "50 um", "0.2 mm", "5 mm". Pillow's own font has no Greek letter."""
    return f"{length_um / 1000:g} mm" if length_um >= 100 else f"{length_um:g} um"


def _layout(
    entries: Sequence[LegendEntry], title: str, notes: Sequence[str], width_px: int, density: int
) -> _Layout:
    unit = density * min(30, max(14, round(width_px / density / 50)))
    lettering = lettering_for([title, *notes, *(e.name for e in entries)], unit)
    font = lettering.font
    name_px = max(math.ceil(font.getlength(lettering.shown(e.name))) for e in entries)
    percent_px = math.ceil(max(font.getlength(e.percent) for e in entries))
    entry_px = 2 * unit + name_px + unit + percent_px  # swatch, name, gap, share
    column_px = entry_px + 2 * unit
    room = max(width_px, 24 * unit) - 2 * unit
    columns = min(len(entries), max(1, (room + 2 * unit) // column_px))
    columns = math.ceil(len(entries) / math.ceil(len(entries) / columns))  # even rows
    width = max(width_px, 24 * unit, entry_px + 2 * unit)
    return _Layout(lettering, unit, density, columns, column_px, width)


def _draw_title(
    draw: ImageDraw.ImageDraw, layout: _Layout, title: str, note: str, right: int, middle_y: int
) -> None:
    left, font = layout.unit_px, layout.font
    shown = shorten(layout.lettering.shown(title), font, right - left)
    draw.text((left, middle_y), shown, _INK, font, anchor="lm")
    left += math.ceil(font.getlength(shown)) + layout.unit_px
    if left + font.getlength(note) <= right:
        draw.text((left, middle_y), note, _PALE_INK, font, anchor="lm")


def _draw_entry(
    draw: ImageDraw.ImageDraw, layout: _Layout, entry: LegendEntry, left: int, middle_y: int
) -> None:
    unit = layout.unit_px
    half = unit // 2
    swatch = (left, middle_y - half, left + round(1.4 * unit), middle_y + half)
    draw.rectangle(swatch, fill=entry.rgb, outline=(0, 0, 0), width=layout.density)
    name = layout.lettering.shown(entry.name)
    draw.text((left + 2 * unit, middle_y), name, _INK, layout.font, anchor="lm")
    right = left + layout.column_px - 2 * unit
    draw.text((right, middle_y), entry.percent, _INK, layout.font, anchor="rm")


def _draw_scale_bar(
    draw: ImageDraw.ImageDraw, layout: _Layout, picture_px: int, mpp_um: float, middle_y: int
) -> int:
    """Draw the bar at the right end of the title line; returns the x where it begins."""
    unit = layout.unit_px
    length_um = nice_length_um(max(picture_px / 4, 2) * mpp_um)
    text = length_text(length_um)
    right = layout.width_px - unit
    bar_right = right - math.ceil(layout.font.getlength(text)) - unit // 2
    bar_left = bar_right - round(length_um / mpp_um)
    thick = max(2, unit // 6)
    draw.rectangle((bar_left, middle_y - thick // 2, bar_right - 1, middle_y + thick // 2), _INK)
    for x in (bar_left, bar_right - thick):
        draw.rectangle((x, middle_y - unit // 3, x + thick - 1, middle_y + unit // 3), _INK)
    draw.text((right, middle_y), text, _INK, layout.font, anchor="rm")
    return bar_left


def _draw_place(
    draw: ImageDraw.ImageDraw, layout: _Layout, place: Place, right: int, middle_y: int
) -> int:
    """Draw the slide as a small frame with the picture's place in it; returns its left edge."""
    high = round(1.4 * layout.unit_px)
    wide = round(high * min(4.0, max(0.25, place.aspect)))
    left, top = right - wide, middle_y - high // 2
    frame = left, top, right, top + high
    box = place.box
    inner = (
        *(left + round(box.left * wide), top + round(box.top * high)),
        *(left + round(box.right * wide), top + round(box.bottom * high)),
    )
    draw.rectangle(frame, fill=_PAPER)
    draw.rectangle(inner, fill=_PALE_INK)
    draw.rectangle(frame, outline=_PALE_INK, width=layout.density)
    return left


def _draw_note(draw: ImageDraw.ImageDraw, layout: _Layout, lines: Sequence[str], top: int) -> None:
    """Draw a triangle with an exclamation mark, and the lines beside it."""
    unit, middle_y = layout.unit_px, top + layout.row_px // 2
    left, half = unit, round(0.6 * unit)
    bottom = middle_y + round(0.5 * unit)
    peak = (left + half, bottom - round(1.1 * unit))
    draw.polygon([peak, (left, bottom), (left + 2 * half, bottom)], _WARNING)
    thick = max(1, unit // 14)
    for start, stop in ((0.45, 0.75), (0.86, 0.94)):  # the two strokes of "!"
        y0, y1 = (peak[1] + share * 1.1 * unit for share in (start, stop))
        draw.rectangle((peak[0] - thick, y0, peak[0] + thick, y1), "white")
    for index, line in enumerate(lines):
        y = middle_y + index * layout.row_px
        draw.text((left + 2 * unit, y), line, _INK, layout.font, anchor="lm")


def shorten(text: str, font: Font, room_px: float) -> str:
    """The text, with "..." for its middle where it is wider than `room_px`."""
    if font.getlength(text) <= room_px:
        return text
    for keep in range(len(text) - 1, 0, -1):
        head, tail = (keep + 1) // 2, keep // 2
        shorter = f"{text[:head]}...{text[len(text) - tail :]}"
        if font.getlength(shorter) <= room_px:
            return shorter
    return ""
