"""ONNX files with their weights in one file beside them, a tensor in memory at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto
from onnx.external_data_helper import (
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


def write_model(proto: ModelProto, path: Path, folder: Path) -> None:
    """Write `proto` to `path` and its tensors from 1 KiB on to `<path>.data`, both anew.

    Tensors of `proto` may hold their values or refer to a file in `folder`. The same model gives
    the same bytes. `proto` is changed: its tensors then refer to the new file.

    Raises:
        OSError: a file cannot be read or written.
    """
    data = path.with_name(path.name + ".data")
    with data.open("wb") as file:
        for tensor in proto.graph.initializer:
            if uses_external_data(tensor):
                load_external_data_for_tensor(tensor, str(folder))
            values = tensor.raw_data
            if len(values) < _MIN_BYTES:
                continue
            file.write(bytes(-file.tell() % _ALIGNMENT_BYTES))
            set_external_data(tensor, data.name, file.tell(), len(values))
            tensor.ClearField("raw_data")
            file.write(values)
    path.write_bytes(proto.SerializeToString(deterministic=True))
