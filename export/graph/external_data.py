"""ONNX files with their weights in one file beside them, a tensor in memory at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto
from onnx.external_data_helper import (
    ExternalDataInfo,
    load_external_data_for_tensor,
    set_external_data,
    uses_external_data,
)

_MIN_BYTES = 1024
"""Smaller tensors stay in the graph's own file, where shape inference reads them."""
_ALIGNMENT_BYTES = 64


def tensor_values(tensor: TensorProto, folder: Path) -> NDArray[Any]:
    """Values of an initialiser of a graph in `folder`; `tensor` itself is left as it is.

    Raises:
        OSError: its file cannot be read.
    """
    if uses_external_data(tensor):
        loaded = TensorProto()
        loaded.CopyFrom(tensor)
        load_external_data_for_tensor(loaded, str(folder))
        tensor = loaded
    return onnx.numpy_helper.to_array(tensor)


def share_weights(path: Path, other: Path) -> tuple[str, ...]:
    """Let the graph `path` read what `other`, in the same folder, has of its weights from there.

    Both are as `torch.onnx` or `write_model` wrote them; `<path>.data` keeps the rest. Returns the
    names of the files that are shared: that of `other`'s weights, or none.

    Raises:
        OSError: a file cannot be read or written.
    """
    folder = path.parent
    mine, theirs = (onnx.load(file, load_external_data=False) for file in (path, other))
    known = {_identity(t, folder): t for t in theirs.graph.initializer if uses_external_data(t)}
    shared: list[tuple[TensorProto, TensorProto]] = []
    for tensor in mine.graph.initializer:
        if uses_external_data(tensor) and (same := known.get(_identity(tensor, folder))):
            shared.append((tensor, same))
    for tensor, same in shared:
        del tensor.external_data[:]
        tensor.external_data.extend(same.external_data)
    data = path.with_name(path.name + ".data")
    partial = data.with_name(f"{data.name}.partial")
    _write_data(mine, partial, data.name, folder, leave={tensor.name for tensor, _ in shared})
    partial.replace(data)
    if not data.stat().st_size:
        data.unlink()
    path.write_bytes(mine.SerializeToString(deterministic=True))
    return tuple(sorted({ExternalDataInfo(tensor).location for tensor, _ in shared}))


def weight_files(path: Path) -> list[Path]:
    """The files beside a graph that hold its weights, by name.

    Raises:
        OSError: the graph cannot be read.
    """
    graph = onnx.load(path, load_external_data=False).graph
    names = {ExternalDataInfo(t).location for t in graph.initializer if uses_external_data(t)}
    return [path.with_name(name) for name in sorted(names)]


def _identity(tensor: TensorProto, folder: Path) -> tuple[int, str]:
    """Type and hash of the values; graphs may give the same ones different shapes."""
    return tensor.data_type, hashlib.sha256(tensor_values(tensor, folder).tobytes()).hexdigest()


def write_model(proto: ModelProto, path: Path, folder: Path) -> None:
    """Write `proto` to `path` and its tensors from 1 KiB on to `<path>.data`, both anew.

    Tensors of `proto` may hold their values or refer to a file in `folder`. The same model gives
    the same bytes. `proto` is changed: its tensors then refer to the new file.

    Raises:
        OSError: a file cannot be read or written.
    """
    data = path.with_name(path.name + ".data")
    _write_data(proto, data, data.name, folder)
    path.write_bytes(proto.SerializeToString(deterministic=True))


def _write_data(
    proto: ModelProto, path: Path, name: str, folder: Path, leave: Collection[str] = ()
) -> None:
    """Write the tensors of `proto`, but for those to `leave`, to `path`, which will have `name`."""
    with path.open("wb") as file:
        for tensor in proto.graph.initializer:
            if tensor.name in leave:
                continue
            if uses_external_data(tensor):
                load_external_data_for_tensor(tensor, str(folder))
            values = tensor.raw_data
            if len(values) < _MIN_BYTES:
                continue
            file.write(bytes(-file.tell() % _ALIGNMENT_BYTES))
            set_external_data(tensor, name, file.tell(), len(values))
            tensor.ClearField("raw_data")
            file.write(values)
