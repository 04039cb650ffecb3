"""What the network says of a slide's tiles or fields, in a file until the slide is done.

The file is `.unfinished` in the folder of the slide's results, from its first byte on, so that a
run which is killed leaves it to the next. It is a sequence of frames, each a head and a content
with the lengths and CRCs of both: first one that names all that decides the records (the key),
then one for each batch of the network. A frame counts if it is whole; behind the first that is not
nothing does. So what is left is whole batches, in their order, and the run that goes on from them
makes the same batches as one that was never disturbed.

After a kill the system still has all that was written. After a power cut it has what the last
`fsync` saw, some seconds old.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from sshr_deploy.atomic import partial_name
from sshr_deploy.closing import Closing
from sshr_deploy.errors import OutputError
from sshr_deploy.runtime.machine.clock import Stopwatch
from sshr_deploy.runtime.results.file_names import UNFINISHED_NAME

Unit = tuple[int, ...]
"""A tile by its row and column, a field by those and its rows and columns of blocks."""
_SYNC_S = 5.0
"""Work that a power cut may cost."""
_LENGTHS = struct.Struct("<4I")
"""Ahead of a frame: bytes of its head and of its content, CRC-32 of each."""


class _Frame(NamedTuple):
    head: Any
    """Of JSON."""
    content: bytes


class UnitStore(Closing):
    """Records of one type, one a unit, appended in any order.

    Plain writes and reads, so that a full disk is an error here and nothing counts as memory of
    this process: a memory map of a file with holes would kill it, and mapped pages stay resident.
    The first axis of a record is its rows: those of a band are read in one piece.

    Used as a context manager, or closed: the file is gone afterwards, unless `leave` left it for
    the next run, whose store goes on from it if it has the same key. For one thread at a time.
    """

    def __init__(self, folder: Path, dtype: DTypeLike, key: str) -> None:
        """Go on from what an earlier run left in `folder`, which must exist, or begin anew.

        Args:
            folder: of the slide's results.
            dtype: of the records.
            key: of all that decides the records; what was kept under another is deleted.

        Raises:
            OutputError: no file can be made there.
        """
        self._folder, self._path = folder, folder / UNFINISHED_NAME
        self._dtype = np.dtype(dtype)
        self._places: dict[Unit, tuple[int, tuple[int, ...]]] = {}  # first byte and shape
        self._end = 0
        self._since_sync = Stopwatch()
        first = _Frame({"units": [], "key": key, "type": self._dtype.str}, b"")
        try:
            self._file = self._begun(first)
        except OSError as error:
            raise self._failure(error) from error

    def __contains__(self, unit: Unit) -> bool:
        return unit in self._places

    def __len__(self) -> int:
        return len(self._places)

    def put(self, records: Mapping[Unit, NDArray[np.generic]]) -> None:
        """Append the records of a batch of units that have none yet: all of them, or none.

        Raises:
            OutputError: the disk is full.
        """
        typed = {u: np.ascontiguousarray(record, self._dtype) for u, record in records.items()}
        units = [[unit, record.shape] for unit, record in typed.items()]
        frame = _Frame({"units": units}, b"".join(record.tobytes() for record in typed.values()))
        try:
            self._file.seek(self._end)
            self._append(self._file, frame)
            if self._since_sync.seconds() > _SYNC_S:
                os.fsync(self._file.fileno())
                self._since_sync = Stopwatch()
        except OSError as error:
            raise self._failure(error) from error

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

    def leave(self) -> None:
        """Close, but leave the records for the next run."""
        if not self._places:
            self.close()
        if self._file.closed:
            return
        with suppress(OSError):  # what interrupted the run is what is told
            self._file.truncate(self._end)
            os.fsync(self._file.fileno())
        with suppress(OSError):
            self._file.close()

    def close(self) -> None:
        """Delete the file, unless another run has gone on from it and has its own there."""
        if self._file.closed:
            return
        ours = False
        with suppress(OSError):
            ours = os.path.samestat(os.fstat(self._file.fileno()), self._path.stat())
        with suppress(OSError):  # what is still buffered is of no use; it must not hide an error
            self._file.close()
        if ours:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)

    def _begun(self, first: _Frame) -> BinaryIO:
        """A file with the first frame, and all whole ones of what an earlier run left.

        It is a new file, put in the place of the old one: a run that was suspended for so long
        that its slide was taken over may still write into its own.
        """
        partial = self._path.with_name(partial_name(self._path.name))
        try:
            with partial.open("xb") as file:
                self._append(file, first)
                for frame in self._left(first):
                    self._append(file, frame)
                if self._places:
                    os.fsync(file.fileno())
            partial.replace(self._path)
        except BaseException:
            with suppress(OSError):  # must not hide the first error
                partial.unlink(missing_ok=True)
            raise
        return self._path.open("r+b")

    def _left(self, first: _Frame) -> Iterator[_Frame]:
        """Whole frames that an earlier run left, if they begin with the same one."""
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            return
        with file:
            if _read_frame(file) != first:
                return
            while (frame := _read_frame(file)) is not None:
                yield frame

    def _append(self, file: BinaryIO, frame: _Frame) -> None:
        """Write a frame at the file's place, which is the end of all whole ones."""
        head = json.dumps(frame.head).encode()
        checks = zlib.crc32(head), zlib.crc32(frame.content)
        file.write(_LENGTHS.pack(len(head), len(frame.content), *checks) + head)
        file.write(frame.content)
        file.flush()  # to the system, which has it when this process is killed
        place = self._end + _LENGTHS.size + len(head)
        self._end = place + len(frame.content)
        for unit, shape in frame.head["units"]:
            self._places[tuple(unit)] = place, tuple(shape)
            place += prod(shape) * self._dtype.itemsize

    def _failure(self, error: OSError) -> OutputError:
        return OutputError(
            f"cannot write to {self._folder}: {error.strerror}; free space or choose another `out`"
        )


def _read_frame(file: BinaryIO) -> _Frame | None:
    """The frame at the file's place; None if there is none that is whole."""
    lengths = file.read(_LENGTHS.size)
    if len(lengths) < _LENGTHS.size:
        return None
    head_bytes, content_bytes, *checks = _LENGTHS.unpack(lengths)
    # Zeros, which a power cut leaves, are the right CRC of nothing; the rest fits into memory.
    if not 0 < head_bytes + content_bytes <= os.fstat(file.fileno()).st_size:
        return None
    head, content = file.read(head_bytes), file.read(content_bytes)
    if len(content) < content_bytes or [zlib.crc32(head), zlib.crc32(content)] != checks:
        return None
    return _Frame(json.loads(head), content)
