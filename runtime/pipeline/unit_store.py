"""What the network says of a slide's tiles or fields, in a file until the slide is finished."""

from __future__ import annotations

import json
import zlib
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import DTypeLike, NDArray

from sshr_deploy.atomic import partial_name
from sshr_deploy.closing import Closing
from sshr_deploy.errors import OutputError
from sshr_deploy.runtime.pipeline.file_names import UNFINISHED_NAME

Unit = tuple[int, ...]
"""A tile by its row and column, a field by those and its rows and columns of blocks."""
_LENGTH_BYTES = 8


class UnitStore(Closing):
    """Records of one type, one a unit, appended in any order to a temporary file.

    Plain writes and reads, so that a full disk is an error here and nothing counts as memory of
    this process: a memory map of a file with holes would kill it, and mapped pages stay resident.
    The first axis of a record is its rows: those of a band are read in one piece.

    Used as a context manager, or closed: the file is gone afterwards, unless `keep` left it for
    the next run, whose store takes it over if it has the same key. For one thread at a time.
    """

    def __init__(self, folder: Path, dtype: DTypeLike, key: str) -> None:
        """Go on with what an interrupted run left in `folder`, which must exist, or begin anew.

        Args:
            folder: of the slide's results.
            dtype: of the records.
            key: of all that decides the records; what was kept under another is deleted.

        Raises:
            OutputError: no file can be made there.
        """
        self._folder, self._key = folder, key
        self._dtype = np.dtype(dtype)
        self._places: dict[Unit, tuple[int, tuple[int, ...]]] = {}  # first byte and shape
        self._checksums: dict[Unit, int] = {}
        self._end = 0
        self._path = folder / partial_name("units")
        try:
            self._file = self._taken_over() or self._path.open("x+b")
        except OSError as error:
            raise OutputError(
                f"cannot write to {folder}: {error.strerror}; choose another `out`"
            ) from error

    def __contains__(self, unit: Unit) -> bool:
        return unit in self._places

    def __len__(self) -> int:
        return len(self._places)

    def put(self, unit: Unit, record: NDArray[np.generic]) -> None:
        """Append the record of a unit that has none yet.

        Raises:
            OutputError: the disk is full.
        """
        content = np.ascontiguousarray(record, self._dtype).tobytes()
        try:
            self._file.seek(self._end)
            self._file.write(content)
        except OSError as error:
            raise self._failure(error) from error
        self._places[unit] = self._end, record.shape
        self._checksums[unit] = _checksum(unit, record.shape, content)
        self._end += record.size * self._dtype.itemsize

    def rows(self, unit: Unit, first: int, last: int) -> NDArray[np.generic]:
        """Rows `first` to `last`, which is not included, of a unit's record; read-only.

        Raises:
            OutputError: the disk is full, or what was written is not there any more.
        """
        start, shape = self._places[unit]
        row_bytes = prod(shape[1:]) * self._dtype.itemsize
        size = (last - first) * row_bytes
        try:
            self._file.seek(start + first * row_bytes)
            read = self._file.read(size)
        except OSError as error:
            raise self._failure(error) from error
        if len(read) != size:
            raise OutputError(f"{self._path} was cut short by another program; run it again")
        return np.frombuffer(read, self._dtype).reshape(last - first, *shape[1:])

    def keep(self) -> None:
        """Close, but leave the records for the next run; where that fails they are deleted."""
        if self._file.closed or not self._places:
            return self.close()
        units = [[unit, shape, self._checksums[unit]] for unit, (_, shape) in self._places.items()]
        index = json.dumps({"key": self._key, "units": units}).encode()
        try:
            self._file.seek(self._end)
            self._file.write(index + len(index).to_bytes(_LENGTH_BYTES, "little"))
            self._file.truncate()
            self._file.close()
            self._path.replace(self._folder / UNFINISHED_NAME)
        except OSError:  # what interrupted the run is what is told
            self.close()

    def close(self) -> None:
        """Delete the file."""
        with suppress(OSError):  # what is still buffered is of no use; it must not hide an error
            self._file.close()
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _taken_over(self) -> BinaryIO | None:
        """The file of an interrupted run with the same key; any other is deleted."""
        kept = self._folder / UNFINISHED_NAME
        if not kept.is_file():
            return None
        kept.replace(self._path)
        file = self._path.open("r+b")
        try:
            self._read_index(file)
            if self._places:
                return file
        except BaseException:
            file.close()
            raise
        file.close()
        self._path.unlink()
        return None

    def _read_index(self, file: BinaryIO) -> None:
        """Take over the units of a kept file, if it is whole, unchanged and of the same key."""
        size = file.seek(0, 2)
        if size < _LENGTH_BYTES:
            return
        file.seek(size - _LENGTH_BYTES)
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if length > size - _LENGTH_BYTES:
            return
        file.seek(size - _LENGTH_BYTES - length)
        places, checksums, end = {}, {}, 0
        try:
            index = json.loads(file.read(length))
            if index["key"] != self._key:
                return
            file.seek(0)
            for stated, sides, checksum in index["units"]:
                unit, shape = tuple(map(int, stated)), tuple(map(int, sides))
                content = file.read(min(prod(shape) * self._dtype.itemsize, size))
                if _checksum(unit, shape, content) != checksum:
                    return
                places[unit], checksums[unit] = (end, shape), checksum
                end += len(content)
        except (ValueError, LookupError, TypeError, RecursionError, OverflowError):
            return
        if size == end + length + _LENGTH_BYTES:
            self._places, self._checksums, self._end = places, checksums, end

    def _failure(self, error: OSError) -> OutputError:
        return OutputError(
            f"cannot write to {self._folder}: {error.strerror}; free space or choose another `out`"
        )


def _checksum(unit: Unit, shape: tuple[int, ...], content: bytes) -> int:
    """CRC-32 of a record: a power cut may leave a file of the right size without its content."""
    place = ",".join(map(str, (*unit, "of", *shape)))  # a unit may be any kind of tuple
    return zlib.crc32(content, zlib.crc32(place.encode()))
