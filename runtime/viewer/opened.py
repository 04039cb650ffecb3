"""Inputs whose files are open: as few as may be, closed when nobody reads them."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sshr_deploy.closing import Closing
from sshr_deploy.errors import InputError
from sshr_deploy.geometry import CELL_PX
from sshr_deploy.runtime.outputs import PROBABILITIES_NAME
from sshr_deploy.runtime.results.file_names import MASK_NAME, PATCH_MASK_NAME, REGIONS_NAME
from sshr_deploy.runtime.viewer.catalogue import Entry
from sshr_deploy.runtime.viewer.label_maps import LabelMap, MaskPng, MaskTiff, Rgb
from sshr_deploy.runtime.viewer.outlines import Outlines
from sshr_deploy.runtime.viewer.pictures import Picture, open_picture
from sshr_deploy.runtime.viewer.pyramid import Pyramid
from sshr_deploy.runtime.viewer.tiff_pages import TiffPages

MAX_OPEN = 3
"""Inputs that are open at once; a slide's reader keeps up to 128 MB of decoded tiles."""
_JPEG_QUALITY = 88


class OpenInput(Closing):
    """The files of one input; what cannot be opened is None, and why is said."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.pyramid = Pyramid(*entry.size_px)
        self.picture: Picture | None = None
        self.labels: LabelMap | None = None
        self.picture_lack = self.labels_lack = ""
        self._lock, self._index_lock = threading.Lock(), threading.Lock()
        self._outlines: Outlines | InputError | None = None
        self._probabilities: TiffPages | None = None
        try:
            self.picture = open_picture(entry.source, entry.kind, entry.size_px, entry.fingerprint)
        except InputError as error:
            self.picture_lack = str(error)
        try:
            self.labels = self._open_labels()
        except InputError as error:
            self.labels_lack = str(error)

    def _open_labels(self) -> LabelMap:
        if self.entry.kind == "patch":
            return MaskPng(self.entry.folder / PATCH_MASK_NAME)
        return MaskTiff(self.entry.folder / MASK_NAME)

    @property
    def mask_level(self) -> int:
        """The level that shows all there is in the mask; finer ones would only enlarge it."""
        return self.pyramid.level_of(min(self.entry.l0_px_per_mask_px))

    def picture_tile(self, level: int, column: int, row: int) -> bytes:
        """A tile of the input's pixels as JPEG.

        Raises:
            LookupError: there is no such tile.
            InputError: the file is damaged there.
        """
        if self.picture is None or level < self.picture.first_level:
            raise LookupError("there is no such tile")
        rgb = self.picture.tile(self.pyramid.tile(level, column, row))
        file = io.BytesIO()
        Image.fromarray(rgb).save(file, "JPEG", quality=_JPEG_QUALITY)
        return file.getvalue()

    def mask_tile(self, level: int, column: int, row: int, shown: int) -> bytes:
        """A tile of the mask as PNG, transparent but for classes whose bit is set in `shown`.

        Raises:
            LookupError: there is no such tile.
            InputError: the file is damaged there.
        """
        if self.labels is None or level > self.mask_level:
            raise LookupError("there is no such tile")
        box = self.pyramid.tile(level, column, row)
        across, down = self.entry.l0_px_per_mask_px
        x = (np.arange(box.width_px, dtype=np.float64) + box.x_px + 0.5) * (box.step / across)
        y = (np.arange(box.height_px, dtype=np.float64) + box.y_px + 0.5) * (box.step / down)
        labels = self.labels.sample(x, y, box.step / max(across, down))
        return _palette_png(labels, self.labels.palette, shown)

    def label_at(self, l0_x: float, l0_y: float) -> int | None:
        """The label at a place in level-0 pixels; None outside, or without a mask.

        Raises:
            InputError: the file is damaged there.
        """
        width, height = self.entry.size_px
        if self.labels is None or not (0 <= l0_x < width and 0 <= l0_y < height):
            return None
        x, y = self._mask_place(l0_x, l0_y)
        return int(self.labels.sample(np.array([x]), np.array([y]), 1.0)[0, 0])

    def probability_at(self, l0_x: float, l0_y: float, label: int) -> float | None:
        """Probability of a class at a place; None where the run kept none.

        Raises:
            InputError: the file is damaged there.
        """
        if PROBABILITIES_NAME not in self.entry.files:
            return None
        with self._lock:
            if self._probabilities is None:
                self._probabilities = TiffPages(self.entry.folder / PROBABILITIES_NAME)
        width, height = self._probabilities.size_px
        x, y = (int(v // CELL_PX) for v in self._mask_place(l0_x, l0_y))
        x, y = min(max(0, x), width - 1), min(max(0, y), height - 1)
        return float(self._probabilities.region(0, x, y, x + 1, y + 1, label)[0, 0])

    def outlines(self) -> Outlines:
        """Its regions; reading where they are may take seconds the first time.

        Raises:
            InputError: they cannot be read.
            LookupError: an image has none.
        """
        if self.entry.kind == "patch":
            raise LookupError("an image has no regions")
        with self._index_lock:
            if self._outlines is None:
                by_name = {c.name: c.label for c in self.entry.classes}
                try:
                    self._outlines = Outlines(self.entry.folder / REGIONS_NAME, by_name)
                except InputError as error:
                    self._outlines = error
            if isinstance(self._outlines, InputError):
                raise self._outlines
            return self._outlines

    def measurements_at(self, l0_x: float, l0_y: float, label: int) -> Mapping[str, float]:
        """Measurements of the region of a class at a place, once its regions are read.

        Raises:
            InputError: the file is damaged there.
        """
        if isinstance(self._outlines, Outlines):
            return self._outlines.measurements(l0_x, l0_y, label)
        return {}

    def _mask_place(self, l0_x: float, l0_y: float) -> tuple[float, float]:
        across, down = self.entry.l0_px_per_mask_px
        return l0_x / across, l0_y / down

    def close(self) -> None:
        """Close all of its files; a second call does nothing."""
        for file in (self.picture, self.labels, self._probabilities):
            if file is not None:
                file.close()


class _Slot(Closing):
    """Place of an input that is open, or being opened by the first who wants it."""

    def __init__(self) -> None:
        self.users = 0
        self.is_forgotten = False
        self._lock = threading.Lock()
        self._input: OpenInput | None = None

    def opened(self, entry: Entry) -> OpenInput:
        with self._lock:
            if self._input is None:
                self._input = OpenInput(entry)
            return self._input

    def close(self) -> None:
        if self._input is not None:
            self._input.close()


class OpenInputs(Closing):
    """The latest inputs that were looked at; the one that waited longest goes for a new one."""

    def __init__(self, most: int = MAX_OPEN) -> None:
        """Keep at most `most` open, besides those that are being read."""
        self._most = most
        self._lock = threading.Lock()
        self._slots: OrderedDict[tuple[int, str], _Slot] = OrderedDict()

    @contextmanager
    def use(self, entry: Entry) -> Iterator[OpenInput]:
        """The input, open in the block; threads that want the same one share it."""
        key = entry.id, entry.version
        with self._lock:
            slot = self._slots.setdefault(key, _Slot())
            self._slots.move_to_end(key)
            slot.users += 1
            spare = self._spare()
        for one in spare:
            one.close()
        try:
            yield slot.opened(entry)
        finally:
            with self._lock:
                slot.users -= 1
                spare = self._spare()
                if slot.is_forgotten and not slot.users:
                    spare.append(slot)
            for one in spare:
                one.close()

    def forget(self, entry: Entry) -> None:
        """Open its files afresh next time; for the block of `use` in which a read has failed.

        OpenSlide refuses all reads after one that failed.
        """
        with self._lock:
            self._slots.pop((entry.id, entry.version), _Slot()).is_forgotten = True

    def retry(self, entry: Entry) -> None:
        """Open its files afresh next time if one of them could not be opened."""
        with self.use(entry) as opened:
            if opened.picture_lack or opened.labels_lack:
                self.forget(entry)

    def _spare(self) -> list[_Slot]:
        """Slots to close: without users and too many. The lock is held."""
        unused = [key for key, slot in self._slots.items() if not slot.users]
        return [self._slots.pop(key) for key in unused[: max(0, len(self._slots) - self._most)]]

    def close(self) -> None:
        """Close all of them; nobody reads any more."""
        with self._lock:
            slots, self._slots = list(self._slots.values()), OrderedDict()
        for slot in slots:
            slot.close()


def _palette_png(labels: NDArray[np.uint8], palette: list[Rgb], shown: int) -> bytes:
    image = Image.fromarray(labels)
    image.putpalette([channel for rgb in palette for channel in rgb])
    alpha = bytes(255 if shown >> label & 1 else 0 for label in range(256))
    file = io.BytesIO()
    image.save(file, "PNG", transparency=alpha, compress_level=1)
    return file.getvalue()
