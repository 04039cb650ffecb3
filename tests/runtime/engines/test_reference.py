from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sshr_deploy.errors import BundleError
from sshr_deploy.runtime.contract import OUTPUT_NAMES
from sshr_deploy.runtime.engines.reference import ReferenceSet, read_reference, write_reference
from tests.runtime.qualifying import make_reference


def _assert_equal(got: ReferenceSet, expected: ReferenceSet) -> None:
    assert (got.made_by, got.source) == (expected.made_by, expected.source)
    assert np.array_equal(got.patches, expected.patches)
    assert np.array_equal(got.sizes_px, expected.sizes_px)
    for name in OUTPUT_NAMES:
        assert np.array_equal(getattr(got.cams, name), getattr(expected.cams, name))
    assert (got.truth is None) == (expected.truth is None)
    for one, other in zip(got.truth or (), expected.truth or (), strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("truth", [False, True])
def test_what_is_written_is_read(tmp_path: Path, truth: bool) -> None:
    reference = make_reference(truth=truth)
    write_reference(tmp_path / "r.npz", reference)
    _assert_equal(read_reference(tmp_path / "r.npz", 3), reference)


def _change(path: Path, **arrays: Any) -> None:
    with np.load(path) as content:
        kept = {name: content[name] for name in content.files}
    with path.open("wb") as file:
        np.savez(file, **{k: v for k, v in {**kept, **arrays}.items() if v is not None})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"patches": np.zeros((4, 224, 224, 3), np.float32)}, "patches is float32"),
        ({"cam_deep": np.zeros((4, 2, 28, 28), np.float32)}, r"cam_deep is float32 \[4, 2,"),
        ({"prob": None}, "prob"),
        ({"prob": np.full((4, 3), np.nan, np.float32)}, "not finite"),
        ({"sizes_px": np.zeros((4, 2), np.int64)}, "without pixels|label maps do not fit"),
        ({"truth": np.zeros(5, np.uint8)}, "label maps do not fit"),
        ({"source": np.array([None], object)}, "pickle|Object arrays"),
    ],
)
def test_arrays_that_do_not_belong_together_are_refused(
    tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    path = tmp_path / "r.npz"
    write_reference(path, make_reference(truth=True))
    _change(path, **change)
    with pytest.raises(BundleError, match=told) as caught:
        read_reference(path, 3)
    assert "\n" not in str(caught.value)


def test_another_class_count_is_refused(tmp_path: Path) -> None:
    write_reference(tmp_path / "r.npz", make_reference())
    with pytest.raises(BundleError, match="is no reference set"):
        read_reference(tmp_path / "r.npz", 4)


def test_what_could_fill_the_memory_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "r.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("patches.npy", bytes(1 << 20))
    with pytest.raises(BundleError, match="compressed"):
        read_reference(path, 3)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut"])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "r.npz").write_bytes(content)
    with pytest.raises(BundleError, match="is no reference set"):
        read_reference(tmp_path / "r.npz", 3)
