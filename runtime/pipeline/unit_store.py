"""What the network says of a slide's tiles or fields, in a file until the slide is finished."""

from __future__ import annotations

import json
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

Unit = tuple[int, int]
"""A tile or field by its row and column."""
_LENGTH_BYTES = 8


class UnitStore(Closing):
    """Records of one shape and type, one a unit, appended in any order to a temporary file.

    Plain writes and reads, so that a full disk is an error here and nothing counts as memory of
    this process: a memory map of a file with holes would kill it, and mapped pages stay resident.
    The first axis of a record is its rows: those of a band are read in one piece.

    Used as a context manager, or closed: the file is gone afterwards, unless `keep` left it for
    the next run, whose store takes it over if it has the same key. For one thread at a time.
    """

    def __init__(self, folder: Path, shape: tuple[int, ...], dtype: DTypeLike, key: str) -> None:
        """Go on with what an interrupted run left in `folder`, which must exist, or begin anew.

        Args:
            folder: of the slide's results.
            shape: of a record.
            dtype: likewise.
            key: of all that decides the records; what was kept under another is deleted.

        Raises:
            OutputError: no file can be made there.
        """
        self._folder, self._key = folder, key
        self._shape, self._dtype = shape, np.dtype(dtype)
        self._row_bytes = prod(shape[1:]) * self._dtype.itemsize
        self._places: dict[Unit, int] = {}
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
        assert record.shape == self._shape
        try:
            self._file.seek(len(self._places) * self._record_bytes)
            self._file.write(np.ascontiguousarray(record, self._dtype).data)
        except OSError as error:
            raise self._failure(error) from error
        self._places[unit] = len(self._places)

    def rows(self, unit: Unit, first: int, last: int) -> NDArray[np.generic]:
        """Rows `first` to `last`, which is not included, of a unit's record; read-only.

        Raises:
            OutputError: the disk is full, or what was written is not there any more.
        """
        start = self._places[unit] * self._record_bytes + first * self._row_bytes
        size = (last - first) * self._row_bytes
        try:
            self._file.seek(start)
            read = self._file.read(size)
        except OSError as error:
            raise self._failure(error) from error
        if len(read) != size:
            raise OutputError(f"{self._path} was cut short by another program; run it again")
        return np.frombuffer(read, self._dtype).reshape(last - first, *self._shape[1:])

    def keep(self) -> None:
        """Close, but leave the records for the next run; where that fails they are deleted."""
        if self._file.closed or not self._places:
            return self.close()
        index = json.dumps({"key": self._key, "units": list(self._places)}).encode()
        try:
            self._file.seek(len(self._places) * self._record_bytes)
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

    @property
    def _record_bytes(self) -> int:
        return self._shape[0] * self._row_bytes

    def _taken_over(self) -> BinaryIO | None:
        """The file of an interrupted run with the same key; any other is deleted."""
        try:
            (self._folder / UNFINISHED_NAME).replace(self._path)
        except FileNotFoundError:
            return None
        file = self._path.open("r+b")
        try:
            self._places = self._index(file)
            if self._places:
                return file
        except BaseException:
            file.close()
            raise
        file.close()
        self._path.unlink()
        return None

    def _index(self, file: BinaryIO) -> dict[Unit, int]:
        """Units of a kept file by their places; none where it is not whole or of another key."""
        size = file.seek(0, 2)
        if size < _LENGTH_BYTES:
            return {}
        file.seek(size - _LENGTH_BYTES)
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if length > size - _LENGTH_BYTES:
            return {}
        file.seek(size - _LENGTH_BYTES - length)
        try:
            index = json.loads(file.read(length))
            key, units = index["key"], [(int(row), int(column)) for row, column in index["units"]]
        except (ValueError, LookupError, TypeError):
            return {}
        whole = size == len(units) * self._record_bytes + length + _LENGTH_BYTES
        return (
            {unit: place for place, unit in enumerate(units)} if whole and key == self._key else {}
        )

    def _failure(self, error: OSError) -> OutputError:
        return OutputError(
            f"cannot write to {self._folder}: {error.strerror}; free space or choose another `out`"
        )
