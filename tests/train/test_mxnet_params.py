from __future__ import annotations

import json
import os
import struct
import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sshr_deploy.errors import CheckpointError
from sshr_deploy.train.mxnet_params import read_mxnet_params, sshr_names

MAGICS = {"v1": 0xF993FAC8, "v2": 0xF993FAC9, "v3": 0xF993FACA}
FLAGS = {"float32": 0, "float64": 1, "float16": 2, "uint8": 3, "int32": 4, "int8": 5, "int64": 6}
Arrays = Mapping[str, NDArray[Any]]


@pytest.fixture(scope="module")
def tiny(golden_dir: Path) -> bytes:
    """Written by MXNet 1.9.1."""
    return (golden_dir / "mxnet" / "tiny.params").read_bytes()


def params_bytes(arrays: Arrays, form: str = "v2") -> bytes:
    """The file as MXNet of that time writes it."""
    out = struct.pack("<QQQ", 0x112, 0, len(arrays))
    for array in arrays.values():
        out += header(array.shape, FLAGS[array.dtype.name], form) + array.tobytes()
    out += struct.pack("<Q", len(arrays))
    for name in arrays:
        out += struct.pack("<Q", len(name.encode())) + name.encode()
    return out


def header(shape: tuple[int, ...], flag: int, form: str, storage: int = 0) -> bytes:
    ndim = len(shape)
    if form == "legacy":
        return struct.pack(f"<I{ndim}Iiii", ndim, *shape, 1, 0, flag)
    start = struct.pack("<I", MAGICS[form])
    if form != "v1":
        start += struct.pack("<i", storage)
    return start + struct.pack(f"<i{ndim}qiii", ndim, *shape, 1, 0, flag)


def one_array(array_header: bytes, data: bytes, name: bytes = b"x") -> bytes:
    start = struct.pack("<QQQ", 0x112, 0, 1) + array_header + data
    return start + struct.pack("<QQ", 1, len(name)) + name


def saved(folder: Path, content: bytes) -> Path:
    path = folder / "weights.params"
    path.write_bytes(content)
    return path


def assert_equal(left: Arrays, right: Arrays) -> None:
    assert list(left) == list(right)
    for name, array in left.items():
        assert array.dtype == right[name].dtype, name
        np.testing.assert_array_equal(array, right[name])


def test_a_file_of_mxnet_becomes_the_published_tensors(golden_dir: Path) -> None:
    params = read_mxnet_params(golden_dir / "mxnet" / "tiny.params")
    assert len(params) == 112
    assert "aux:bn2a_branch2a_moving_mean" in params
    with np.load(golden_dir / "mxnet" / "expected.npz") as expected:
        assert_equal(sshr_names(params), dict(expected))


def test_every_name_is_one_of_the_network(golden_dir: Path) -> None:
    published = json.loads((golden_dir / "state_dict.json").read_text())
    assert set(sshr_names(read_mxnet_params(golden_dir / "mxnet" / "tiny.params"))) <= set(
        published
    )


@pytest.mark.parametrize("form", ["legacy", "v1", "v2", "v3"])
@pytest.mark.parametrize("dtype", FLAGS)
def test_every_form_and_type_is_read(tmp_path: Path, form: str, dtype: str) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "arg:a": (100 * rng.random((2, 3, 1))).astype(dtype),
        "aux:b\u00e9": (100 * rng.random(5)).astype(dtype),
    }
    assert_equal(read_mxnet_params(saved(tmp_path, params_bytes(arrays, form))), arrays)


def test_the_forms_are_those_of_mxnet(tiny: bytes, tmp_path: Path) -> None:
    assert params_bytes(read_mxnet_params(saved(tmp_path, tiny))) == tiny


def test_only_v3_has_scalars(tmp_path: Path) -> None:
    scalar = np.float32(2.5)
    content = one_array(header((), 0, "v3"), scalar.tobytes())
    assert read_mxnet_params(saved(tmp_path, content))["x"].shape == ()
    with pytest.raises(CheckpointError, match="0 dimensions"):
        read_mxnet_params(saved(tmp_path, one_array(header((), 0, "v2"), scalar.tobytes())))


HUGE = 2**40


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "a field takes 16 bytes where 0 are left"),
        (b"PK\x03\x04" + bytes(60), "does not begin like one"),
        (struct.pack("<QQQ", 0x112, 0, HUGE), "1099511627776 arrays cannot be in the 0 bytes"),
        (one_array(header((HUGE,), 0, "v2"), b""), "takes 4398046511104 bytes"),
        (one_array(header((2**62, 2**62, 8), 0, "v2"), b""), "takes 680564733841876926926749"),
        (one_array(header((2**32 - 1,) * 4, 1, "legacy"), b""), "takes 2722258932832206"),
        (one_array(header((-1,), 0, "v2"), bytes(4)), r"shape \[-1\]"),
        (one_array(header((2, 0), 0, "v2"), b""), r"shape \[2, 0\]"),
        (one_array(header((-4, -1), 0, "v3"), bytes(16)), r"shape \[-4, -1\]"),
        (one_array(header((1,) * 33, 0, "v2"), bytes(4)), "33 dimensions"),
        (one_array(struct.pack("<Iii", MAGICS["v2"], 0, -1), bytes(32)), "-1 dimensions"),
        (one_array(struct.pack("<I", 2**32 - 1), bytes(32)), "4294967295 dimensions"),
        (one_array(header((1,), 12, "v2"), bytes(4)), "unknown type 12"),
        (one_array(header((1,), -1, "v2"), bytes(4)), "unknown type -1"),
        (one_array(header((1,), 0, "v2", storage=1), bytes(4)), "storage type 1"),
        (one_array(header((1,), 0, "v2"), bytes(4)) + b"\0", "1 bytes follow its end"),
        (one_array(header((1,), 0, "v2"), bytes(4), b"\xff"), "not UTF-8"),
        (one_array(header((1,), 0, "v2"), bytes(4), bytes(300)), "a name has 300 bytes"),
        (params_bytes({"a": np.ones(1, np.uint8)})[:-17] + bytes(8), "1 arrays have 0 names"),
        (
            params_bytes({"a": np.ones(1, np.uint8), "b": np.ones(1, np.uint8)})[:-1] + b"a",
            "a name occurs twice",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_hostile_files_are_refused_in_one_line(tmp_path: Path, content: bytes, named: str) -> None:
    path = saved(tmp_path, content)
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=named) as caught:
            read_mxnet_params(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20
    message = str(caught.value)
    assert str(path) in message
    assert "download it again" in message
    assert "\n" not in message


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="No such file"):
        read_mxnet_params(tmp_path / "none.params")
    with pytest.raises(CheckpointError, match="is no file"):
        read_mxnet_params(tmp_path)


SMALL = {f"arg:{i}": np.ones((2, i + 1), np.float16) for i in range(4)}


@pytest.mark.parametrize("form", ["tiny", "legacy", "v1", "v2", "v3"])
def test_every_truncation_is_refused(tiny: bytes, tmp_path: Path, form: str) -> None:
    whole = tiny if form == "tiny" else params_bytes(SMALL, form)
    path = saved(tmp_path, whole)
    step = 17 if form == "tiny" else 1  # 17: every alignment, a second and not twenty
    for length in range(len(whole) - 1, -1, -step):
        os.truncate(path, length)
        with pytest.raises(CheckpointError, match=r"where \d+ are left|in the \d+ bytes"):
            read_mxnet_params(path)


@pytest.mark.parametrize(
    ("form", "files"), [("tiny", 300), ("legacy", 1000), ("v1", 1000), ("v3", 1000)]
)
def test_altered_bytes_never_cost_memory_or_another_error(
    tiny: bytes, tmp_path: Path, form: str, files: int
) -> None:
    whole = tiny if form == "tiny" else params_bytes(SMALL, form)
    rng = np.random.default_rng(0)
    refused = 0
    tracemalloc.start()
    try:
        for _ in range(files):
            altered = np.frombuffer(whole, np.uint8).copy()
            places = rng.integers(0, len(whole), rng.integers(1, 9))
            altered[places] = rng.choice(np.array([0, 1, 0x7F, 0x80, 0xFF, 0x3C]), len(places))
            try:
                read_mxnet_params(saved(tmp_path, altered.tobytes()))
            except CheckpointError:
                refused += 1
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert files // 4 < refused < files
    assert peak < 1 << 20


@pytest.mark.parametrize(
    "name",
    [
        "conv1a.weight",
        "arg:fc1_weight",
        "aux:conv1a_weight",
        "arg:res2a_branch3_weight",
        "arg:res2b0_branch1_weight",
        "arg:res8a_branch1_weight",
        "aux:bn2a_branch2a_gamma",
        "arg:bn2a_branch2a_moving_mean",
        "arg:bn7_weight",
        "arg:bn45_gamma",
    ],
)
def test_names_of_other_networks_are_refused(name: str) -> None:
    with pytest.raises(CheckpointError, match=rf"^F holds tensors .*{name}.*ResNet38"):
        sshr_names({"arg:conv1a_weight": np.ones(1), name: np.ones(1)}, "F")


def test_a_long_list_of_foreign_names_is_cut() -> None:
    with pytest.raises(CheckpointError, match=r"'arg:x7' and 2 more"):
        sshr_names({f"arg:x{i}": np.ones(1) for i in range(10)})
