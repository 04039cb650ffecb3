"""A picture of a few images: each beside its label map and what the network says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from sshr_deploy.atomic import atomic_path
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.writers.fonts import Font, Lettering, lettering_for
from sshr_deploy.runtime.writers.legend import shorten
from sshr_deploy.runtime.writers.overlay import blend
from sshr_deploy.scores import scores_from

CELL_PX = 320
"""Longest side of a picture on the sheet; larger images are shrunk to it."""

_MIN_CELL_PX = 200
_FONT_PX = 17
_TITLE_PX = 20
_GAP_PX = 14
_LINE_PX = 30
_SWATCH_PX = 34  # with the gap behind it
_INK = (34, 34, 34)
_PALE_INK = (110, 110, 110)
_COLUMNS = ("image", "truth", "prediction")
_COLUMNS_OF_BOTH = ("image", "truth", "seamless", "reference")
_NOTE = "Background of the truth is not scored and is left bare."
_RULE = (214, 214, 214)
_Entry = tuple[str, tuple[int, int, int]]


@dataclass(frozen=True)
class Sample:
    """One row of the sheet, already of the size in which it is shown."""

    name: str
    rgb: NDArray[np.uint8]  # [h, w, 3], no side above CELL_PX
    truth: NDArray[np.uint8]  # [h, w], N background
    prediction: NDArray[np.uint8]  # [h, w], N where it is background in the truth
    pixel_accuracy: float | None
    """Of the whole image at its own size; None where it holds background only."""
    mean_iou: float | None
    """Likewise."""


def make_sample(
    name: str,
    rgb: NDArray[np.uint8],  # [H, W, 3]
    truth: NDArray[np.uint8],  # [H, W]
    prediction: NDArray[np.uint8],  # [H, W]
    confusion: NDArray[np.int64],  # [N, N + 1]
) -> Sample:
    """Shrink an image, its labels and its prediction for the sheet, with its own scores."""
    num_classes = len(confusion)
    height, width = truth.shape
    scale = min(1.0, CELL_PX / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small_truth = _resized(truth, size, Image.Resampling.NEAREST)
    small_prediction = _resized(prediction, size, Image.Resampling.NEAREST)
    small_prediction[small_truth == num_classes] = num_classes
    scores = scores_from(confusion) if confusion.any() else None
    return Sample(
        name,
        _resized(rgb, size, Image.Resampling.LANCZOS),
        small_truth,
        small_prediction,
        None if scores is None else scores.pixel_accuracy,
        None if scores is None else scores.mean_iou,
    )


def write_sheet(
    path: Path,
    samples: Sequence[Sample],
    profile: Profile,
    title: str,
    *,
    reference: Sequence[Sample] = (),
) -> None:
    """Write a PNG with a row for each sample: image, truth, prediction; a legend below.

    Truth and prediction are the image tinted by class (`blend`). Above a row stand the file's name,
    pixel accuracy and mean IoU of that image. With samples of the same images in reference mode, a
    fourth column shows these beside those of seamless mode.

    Raises:
        OutputError: the file cannot be written.
    """
    cell = max([_MIN_CELL_PX, *(s.rgb.shape[1] for s in samples)])
    columns = _COLUMNS_OF_BOTH if reference else _COLUMNS
    width = len(columns) * (cell + _GAP_PX) + _GAP_PX
    names = [c.name for c in profile.classes] + [s.name for s in samples]
    lettering, title_lettering = lettering_for(names, _FONT_PX), lettering_for([title], _TITLE_PX)
    font = lettering.font
    entries = [(lettering.shown(c.name), c.rgb) for c in profile.classes]
    legend = _legend_lines(entries, font, width - 2 * _GAP_PX)
    height = 3 * _GAP_PX + _LINE_PX * (3 + len(legend)) + sum(_row_px(s) for s in samples)
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    shown = shorten(title_lettering.shown(title), title_lettering.font, width - 2 * _GAP_PX)
    top = _GAP_PX
    draw.text((_GAP_PX, top + _LINE_PX // 2), shown, _INK, title_lettering.font, anchor="lm")
    top += _LINE_PX
    for column, text in enumerate(columns):
        left = _GAP_PX + column * (cell + _GAP_PX)
        draw.text((left, top + _LINE_PX // 2), text, _PALE_INK, font, anchor="lm")
    top += _LINE_PX
    for index, sample in enumerate(samples):
        shown_of = [sample, *reference[index : index + 1]]
        _draw_sample(sheet, draw, lettering, shown_of, profile, top, cell)
        top += _row_px(sample)
    _draw_legend(draw, font, legend, top + _GAP_PX)
    note_y = top + _GAP_PX + _LINE_PX * len(legend) + _LINE_PX // 2
    draw.text((_GAP_PX, note_y), _NOTE, _PALE_INK, font, anchor="lm")
    with atomic_path(path) as partial, partial.open("wb") as file:
        sheet.save(file, format="PNG")


def _row_px(sample: Sample) -> int:
    return _LINE_PX + len(sample.rgb) + _GAP_PX


def _draw_sample(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    lettering: Lettering,
    predictions: Sequence[Sample],  # of one image
    profile: Profile,
    top: int,
    cell: int,
) -> None:
    """A line across the sheet, the caption, the pictures."""
    right = sheet.width - _GAP_PX
    draw.line((_GAP_PX, top, right - 1, top), _RULE)
    sample = predictions[0]
    caption = "background only"
    if sample.pixel_accuracy is not None:
        accuracy = " / ".join(f"{s.pixel_accuracy:.3f}" for s in predictions)
        mean_iou = " / ".join(f"{s.mean_iou:.3f}" for s in predictions)
        caption = f"pixel accuracy {accuracy}   mean IoU {mean_iou}"
    font, middle = lettering.font, top + _LINE_PX // 2
    draw.text((right, middle), caption, _INK, font, anchor="rm")
    room = right - font.getlength(caption) - 3 * _GAP_PX
    draw.text(
        (_GAP_PX, middle), shorten(lettering.shown(sample.name), font, room), _INK, font, "lm"
    )
    pictures = (
        sample.rgb,
        blend(sample.rgb, sample.truth, profile),
        *(blend(sample.rgb, s.prediction, profile) for s in predictions),
    )
    for column, picture in enumerate(pictures):
        left = _GAP_PX + column * (cell + _GAP_PX)
        sheet.paste(Image.fromarray(picture), (left, top + _LINE_PX))


def _legend_lines(entries: Sequence[_Entry], font: Font, room_px: int) -> list[list[_Entry]]:
    """As many entries in a line as fit."""
    lines: list[list[_Entry]] = [[]]
    used = 0
    for name, rgb in entries:
        shown = shorten(name, font, room_px - _SWATCH_PX)
        entry_px = _entry_px(shown, font)
        if lines[-1] and used + entry_px > room_px:
            lines.append([])
            used = 0
        lines[-1].append((shown, rgb))
        used += entry_px
    return lines


def _entry_px(name: str, font: Font) -> int:
    return _SWATCH_PX + math.ceil(font.getlength(name)) + 2 * _GAP_PX


def _draw_legend(
    draw: ImageDraw.ImageDraw, font: Font, lines: Sequence[Sequence[_Entry]], top: int
) -> None:
    half = _FONT_PX // 2
    for index, line in enumerate(lines):
        left, middle = _GAP_PX, top + index * _LINE_PX + _LINE_PX // 2
        for name, rgb in line:
            swatch = (left, middle - half, left + _SWATCH_PX - 9, middle + half)
            draw.rectangle(swatch, fill=rgb, outline=(0, 0, 0))
            draw.text((left + _SWATCH_PX, middle), name, _INK, font, anchor="lm")
            left += _entry_px(name, font)


def _resized(
    pixels: NDArray[np.uint8], size: tuple[int, int], filter_: Image.Resampling
) -> NDArray[np.uint8]:
    return np.array(Image.fromarray(pixels).resize(size, filter_))
