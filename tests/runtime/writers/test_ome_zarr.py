"""OME-Zarr labels as zarr, ome-zarr and the models of OME-NGFF read them."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader
from ome_zarr_models.v05 import ImageLabel

from sshr_deploy.errors import OutputError
from sshr_deploy.profiles import load_profile
from sshr_deploy.runtime.writers import ome_zarr
from sshr_deploy.runtime.writers.bands import BAND_PX, bands_of
from sshr_deploy.runtime.writers.ome_tiff import write_ome_tiff
from sshr_deploy.runtime.writers.ome_zarr import ome_zarr_sink

PROFILE = load_profile("luad")
N = PROFILE.num_classes
SHAPES = [(1, 1), (1024, 1025), (1500, 3100)]


def _mask(shape: tuple[int, int]) -> NDArray[np.uint8]:
    """All labels at the left, background at the right."""
    mask = np.full(shape, N, np.uint8)
    left = mask[:, : 1 + shape[1] // 4]
    left[:] = np.random.default_rng(0).integers(0, N + 1, left.shape)
    return mask


def _write(path: Path, mask: NDArray[np.uint8], name: str = "s", band_px: int = BAND_PX) -> Path:
    size_px = mask.shape[1], mask.shape[0]
    with ome_zarr_sink(path, size_px, profile=PROFILE, mask_mpp_um=0.5, name=name) as sink:
        for y in range(0, len(mask), band_px):
            sink.put(mask[y : y + band_px])
    return path


def _as_labels(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.where(values == 0, N, values - 1).astype(np.uint8)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_zarr_and_ome_zarr_read_the_levels_of_the_tiff(
    tmp_path: Path, shape: tuple[int, int]
) -> None:
    mask = _mask(shape)
    path = _write(tmp_path / "m.ome.zarr", mask)
    write_ome_tiff(tmp_path / "m.ome.tif", mask, profile=PROFILE, mask_mpp_um=0.5, name="s")
    with tifffile.TiffFile(tmp_path / "m.ome.tif") as tiff:
        levels = [level.asarray() for level in tiff.series[0].levels]
    np.testing.assert_array_equal(levels[0], mask)
    location = parse_url(path)
    assert location is not None
    (node,) = Reader(location)()
    assert len(node.data) == len(levels)
    for index, level in enumerate(levels):
        array = zarr.open_array(path / str(index), mode="r")
        np.testing.assert_array_equal(_as_labels(np.asarray(array[:])), level)
        np.testing.assert_array_equal(_as_labels(node.data[index].compute()), level)


def test_colours_names_and_pixel_sizes_are_those_of_the_standard(tmp_path: Path) -> None:
    path = _write(tmp_path / "m.ome.zarr", _mask((600, 1100)), name="Präparat\udc80")
    image = ImageLabel.from_zarr(zarr.open_group(path, mode="r")).attributes.ome
    assert image.version == "0.5"
    labels = image.image_label
    assert labels is not None
    colours = {c.label_value: c.rgba for c in labels.colors or ()}
    assert colours == {
        0: (255, 255, 255, 0),
        **{n: (*c.rgb, 255) for n, c in enumerate(PROFILE.classes, 1)},
    }
    names = [p.model_dump()["name"] for p in labels.properties or ()]
    assert names == ["background", *PROFILE.class_names]
    (multiscale,) = image.multiscales
    assert multiscale.name == "Präparat?"
    assert [(axis.name, axis.unit) for axis in multiscale.axes] == [
        ("y", "micrometer"),
        ("x", "micrometer"),
    ]
    transforms = [
        [t.model_dump() for t in dataset.coordinateTransformations]
        for dataset in multiscale.datasets
    ]
    assert transforms == [
        [{"type": "scale", "scale": [0.5, 0.5]}],
        *(
            [
                {"type": "scale", "scale": [um, um]},
                {"type": "translation", "translation": [shift_um, shift_um]},
            ]
            for um, shift_um in ((1.0, 0.25), (2.0, 0.75))
        ),
    ]


def test_there_is_no_chunk_where_all_is_background(tmp_path: Path) -> None:
    path = _write(tmp_path / "m.ome.zarr", _mask((1500, 3100)))
    chunks = {p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()}
    assert {c for c in chunks if c.startswith("0/c")} == {"0/c/0/0", "0/c/1/0"}


@pytest.mark.parametrize("band_px", [100, 1500])
def test_any_bands_give_the_same_files(tmp_path: Path, band_px: int) -> None:
    mask = _mask((1500, 1100))
    contents = []
    for name, rows in (("whole", BAND_PX), ("other", band_px)):
        folder = _write(tmp_path / name, mask, band_px=rows)
        files = sorted(p for p in folder.rglob("*") if p.is_file())
        contents.append([(p.relative_to(folder), p.read_bytes()) for p in files])
    assert contents[0] == contents[1]


def test_an_earlier_folder_stays_until_the_new_one_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _write(tmp_path / "m.ome.zarr", _mask((600, 40)))
    earlier = {p: p.stat().st_mtime_ns for p in path.rglob("*")}

    def full(path: Path, document: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(ome_zarr, "write_json", full)
        with pytest.raises(OutputError, match=r"cannot write .*m\.ome\.zarr: No space left"):
            _write(path, _mask((600, 40)))
    with (
        pytest.raises(ValueError, match="88 rows of the mask did not come"),
        ome_zarr_sink(path, (40, 600), profile=PROFILE, mask_mpp_um=1.0, name="s") as sink,
    ):
        sink.put(next(bands_of(_mask((600, 40)))).labels)
    assert {p: p.stat().st_mtime_ns for p in path.rglob("*")} == earlier
    assert list(tmp_path.iterdir()) == [path]
    _write(path, _mask((600, 50)))
    assert zarr.open_array(path / "0", mode="r").shape == (600, 50)
    assert list(tmp_path.iterdir()) == [path]
