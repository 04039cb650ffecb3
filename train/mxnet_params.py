"""MXNet's parameter files (`.params`), read without MXNet.

The ImageNet weights that SSHR's published training starts from come as such a file, with the tensor
names of arXiv 1611.10080's own code. A file is a little-endian list of arrays and their names:

    uint64 0x112, uint64 reserved, uint64 count, the arrays, uint64 count, the names
    array   uint32 magic; from V2 on int32 storage; shape; int32 device, int32 device number;
            int32 type; the values
    shape   uint32 ndim and int64 dims; before V1 uint32 dims, and ndim in the magic's place
    name    uint64 length and UTF-8 bytes
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.errors import CheckpointError
from sshr_deploy.model.checkpoint import require_file

_FILE_MAGIC = 0x112
_V1, _V2, _V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
_DENSE = 0
_DTYPES = {0: "<f4", 1: "<f8", 2: "<f2", 3: "u1", 4: "<i4", 5: "i1", 6: "<i8"}

_MAX_NDIM = 32
_MAX_NAME_BYTES = 256
_MIN_ARRAY_BYTES = 21  # one uint8 in the oldest form: ndim, a dim, the device, the type, the value
_MIN_NAME_BYTES = 8
_LISTED_NAMES = 8

_BLOCK = r"([2-7])(?:a|b([1-9][0-9]?))_(branch1|branch2(?:a|b1|b2))"
_CONVOLUTION = re.compile(rf"arg:res{_BLOCK}_weight")
_BATCH_NORM = re.compile(rf"(arg|aux):bn(?:7|{_BLOCK})_([a-z_]+)")
_BATCH_NORM_TENSORS = {
    ("arg", "gamma"): "weight",
    ("arg", "beta"): "bias",
    ("aux", "moving_mean"): "running_mean",
    ("aux", "moving_var"): "running_var",
}
_CLASSIFIER = "arg:linear1000_"


def read_mxnet_params(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a `.params` file under MXNet's names (`arg:conv1a_weight`, ...), file order.

    Every length is compared with what is left of the file before memory is taken for it, so a
    file never costs more than a small multiple of its own size.

    Raises:
        CheckpointError: no such file; truncated, altered or of another format; arrays that are
            sparse, empty or of an unknown type; names that are missing, repeated or no UTF-8.
    """
    require_file(path)
    try:
        with path.open("rb") as file:
            return _Reader(path, file).named_arrays()
    except OSError as error:
        reason = error.strerror
        raise CheckpointError(f"{path} cannot be read: {reason}; check the disk") from error


def sshr_names(
    params: Mapping[str, NDArray[Any]], origin: str = "the MXNet file"
) -> dict[str, NDArray[Any]]:
    """The same arrays under SSHR's names: `arg:res4b5_branch2a_weight` is
    `b4_5.conv_branch2a.weight`.

    The ImageNet classifier (`linear1000`) is left out.

    Raises:
        CheckpointError: names of another network (listed, after `origin`).
    """
    wanted = {name: array for name, array in params.items() if not name.startswith(_CLASSIFIER)}
    renamed = {name: _sshr_name(name) for name in wanted}
    unknown = [name for name, ours in renamed.items() if ours is None]
    if unknown:
        more = len(unknown) - _LISTED_NAMES
        listed = ", ".join(map(repr, unknown[:_LISTED_NAMES]))
        raise CheckpointError(
            f"{origin} holds tensors of another network: {listed}"
            f"{f' and {more} more' if more > 0 else ''}; give the ImageNet weights of ResNet38"
        )
    return {ours: wanted[name] for name, ours in renamed.items() if ours is not None}


def _sshr_name(name: str) -> str | None:
    if name == "arg:conv1a_weight":
        return "conv1a.weight"
    if match := _CONVOLUTION.fullmatch(name):
        stage, number, branch = match.groups()
        return f"{_block(stage, number)}.conv_{branch}.weight"
    match = _BATCH_NORM.fullmatch(name)
    if match is None:
        return None
    kind, stage, number, branch, tensor = match.groups()
    ours = _BATCH_NORM_TENSORS.get((kind, tensor))
    if ours is None:
        return None
    return f"bn7.{ours}" if stage is None else f"{_block(stage, number)}.bn_{branch}.{ours}"


def _block(stage: str, number: str | None) -> str:
    return f"b{stage}" if number is None else f"b{stage}_{number}"


class _Reader:
    """Takes a file apart from front to back and knows how much of it is left."""

    def __init__(self, path: Path, file: BufferedReader) -> None:
        self._path = path
        self._file = file
        self._left = path.stat().st_size

    def named_arrays(self) -> dict[str, NDArray[Any]]:
        magic, _reserved = self._numbers("<QQ")
        if magic != _FILE_MAGIC:
            raise self._refusal("it does not begin like one")
        arrays = [self._array() for _ in range(self._count("arrays", _MIN_ARRAY_BYTES))]
        names = [self._name() for _ in range(self._count("names", _MIN_NAME_BYTES))]
        if len(names) != len(arrays):
            raise self._refusal(f"{len(arrays)} arrays have {len(names)} names")
        if self._left:
            raise self._refusal(f"{self._left} bytes follow its end")
        named = dict(zip(names, arrays, strict=True))
        if len(named) != len(names):
            raise self._refusal("a name occurs twice")
        return named

    def _array(self) -> NDArray[Any]:
        magic = self._number("<I")
        if magic in (_V2, _V3) and (storage := self._number("<i")) != _DENSE:
            raise self._refusal(f"an array has storage type {storage}, not the dense one")
        versioned = magic in (_V1, _V2, _V3)
        ndim = self._number("<i") if versioned else magic
        # No dimensions mark an array without values, but a scalar in V3.
        if not (0 if magic == _V3 else 1) <= ndim <= _MAX_NDIM:
            raise self._refusal(f"an array has {ndim} dimensions")
        shape = self._numbers(f"<{ndim}{'q' if versioned else 'I'}")
        if any(dim < 1 for dim in shape):
            raise self._refusal(f"an array has the shape {list(shape)}")
        _device, _number, flag = self._numbers("<iii")
        if flag not in _DTYPES:
            raise self._refusal(f"an array has the unknown type {flag}")
        return self._values(shape, np.dtype(_DTYPES[flag]))

    def _values(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        count = math.prod(shape)
        self._claim(count * dtype.itemsize, f"an array of shape {list(shape)}")
        values = np.empty(count, dtype)
        if self._file.readinto(values.view(np.uint8).data) != values.nbytes:
            raise self._refusal("it became shorter while it was read")
        return values.reshape(shape).astype(dtype.newbyteorder("="), copy=False)

    def _name(self) -> str:
        length = self._number("<Q")
        if length > _MAX_NAME_BYTES:
            raise self._refusal(f"a name has {length} bytes")
        try:
            return self._bytes(length).decode("utf-8")
        except UnicodeDecodeError as error:
            raise self._refusal("a name is not UTF-8") from error

    def _count(self, what: str, least_bytes: int) -> int:
        count = self._number("<Q")
        if count * least_bytes > self._left:
            raise self._refusal(f"{count} {what} cannot be in the {self._left} bytes that are left")
        return count

    def _number(self, layout: str) -> int:
        return self._numbers(layout)[0]

    def _numbers(self, layout: str) -> tuple[int, ...]:
        return struct.unpack(layout, self._bytes(struct.calcsize(layout)))

    def _bytes(self, count: int) -> bytes:
        self._claim(count, "a field")
        content = self._file.read(count)
        if len(content) != count:
            raise self._refusal("it became shorter while it was read")
        return content

    def _claim(self, count: int, what: str) -> None:
        if count > self._left:
            raise self._refusal(f"{what} takes {count} bytes where {self._left} are left")
        self._left -= count

    def _refusal(self, reason: str) -> CheckpointError:
        return CheckpointError(
            f"{self._path} is not a whole MXNet .params file: {reason}; download it again"
        )
