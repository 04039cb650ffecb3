"""A mask as rows from top to bottom: what feeds every writer, and the counts of its labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

BAND_PX = 512
"""Rows of a band, the height of a tile of the mask's file; the last band may have fewer."""


class Band(NamedTuple):
    """The next rows of a slide: their labels, and the probabilities behind them; N classes."""

    labels: NDArray[np.uint8]  # [rows, width_px]: 0 to N-1, N background
    prob: NDArray[np.float16] | None = None
    """[N, rows / 8, width_px / 8], rounded up: of each class at each cell of 8 x 8 px, 0 where the
    network saw nothing. None where it saw nothing in all of the band."""


class BandSink(Protocol):
    """Takes the bands of a mask as they come."""

    def put(self, labels: NDArray[np.uint8]) -> None:
        """Take the next rows of the mask, uint8 [rows, width_px]: 0 to N-1, N background.

        They are only read, and not kept. Rows without tissue cost nearly nothing as a broadcast
        row (`np.broadcast_to`).
        """


class ProbSink(Protocol):
    """Takes the bands of a mask with their probabilities as they come."""

    def put(self, labels: NDArray[np.uint8], prob: NDArray[np.float16] | None) -> None:
        """Take the next rows; see `Band`. They are only read, and not kept."""


def feed(
    bands: Iterable[Band], sinks: Sequence[BandSink], prob_sinks: Sequence[ProbSink] = ()
) -> None:
    """Hand each band to every sink."""
    for labels, prob in bands:
        for sink in sinks:
            sink.put(labels)
        for prob_sink in prob_sinks:
            prob_sink.put(labels, prob)


def bands_of(mask: NDArray[np.uint8]) -> Iterator[Band]:
    """Bands of a mask [H, W] that is there as a whole; views."""
    for y in range(0, mask.shape[0], BAND_PX):
        yield Band(mask[y : y + BAND_PX])


def tissue_columns(labels: NDArray[np.uint8], background: int) -> slice:
    """Columns [first, last] of [rows, width] outside which all is background; empty if all is."""
    rows = labels[:1] if labels.strides[0] == 0 else labels  # of a broadcast row one is enough
    columns = np.flatnonzero(rows.min(0) < background)
    return slice(int(columns[0]), int(columns[-1]) + 1) if columns.size else slice(0, 0)


class RowsToCome:
    """Rows of a mask that a sink still waits for."""

    def __init__(self, height_px: int) -> None:
        self._count = height_px

    def take(self, labels: NDArray[np.uint8]) -> None:
        """The next rows have come."""
        self._count -= len(labels)

    def check(self) -> None:
        """Raise ValueError if rows are missing."""
        if self._count:
            raise ValueError(f"{self._count} rows of the mask did not come")


class LabelCounts:
    """Pixels of each label, counted as the bands pass."""

    def __init__(self, background: int) -> None:
        self.counts = np.zeros(background + 1, np.int64)
        """[N + 1], in the rows so far."""
        self._background = background

    def put(self, labels: NDArray[np.uint8]) -> None:
        """Count the next rows."""
        tissue = labels[:, tissue_columns(labels, self._background)]
        for label in range(self._background):
            self.counts[label] += np.count_nonzero(tissue == label)
        self.counts[self._background] += labels.size - tissue.size
        self.counts[self._background] += np.count_nonzero(tissue == self._background)
