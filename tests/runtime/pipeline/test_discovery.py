from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, VLWholeSlideMicroscopyImageStorage

from sshr_deploy.errors import UsageError
from sshr_deploy.runtime.pipeline.discovery import (
    Input,
    fingerprint_of,
    kind_of,
    left_out_line,
    search,
)
from sshr_deploy.runtime.results.findings import InputResult
from sshr_deploy.runtime.slides import companions
from tests.runtime.slides.synthetic import smooth_noise, unblocked, write_dicom


def find_inputs(source: Path, out: Path) -> tuple[list[Input], list[InputResult]]:
    found = search(source, out)
    return found.inputs, found.failures


def _touch(path: Path, content: bytes = b"") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def test_folders_are_searched_recursively_by_name(tmp_path: Path) -> None:
    for name in (
        "b/2.SVS",
        "a/1.png",
        "c.JPEG",
        "notes.txt",
        ".hidden.png",
        ".git/x.png",
        "b/z.ome.tif",
    ):
        _touch(tmp_path / name)
    found, failures = find_inputs(tmp_path, tmp_path / "out")
    assert {(i.relative.as_posix(), i.kind) for i in found} == {
        ("a/1.png", "patch"),
        ("b/2.SVS", "slide"),
        ("b/z.ome.tif", "slide"),
        ("c.JPEG", "patch"),
    }
    assert failures == []


def test_results_inside_the_input_are_not_inputs(tmp_path: Path) -> None:
    _touch(tmp_path / "a.png")
    _touch(tmp_path / "out" / "a.png" / "mask.png")
    found, _ = find_inputs(tmp_path, tmp_path / "out")
    assert [i.relative.as_posix() for i in found] == ["a.png"]


def test_a_folder_with_a_name_like_a_slide_is_searched(tmp_path: Path) -> None:
    _touch(tmp_path / "case1.svs" / "a.png")
    found, _ = find_inputs(tmp_path, tmp_path / "out")
    assert [i.relative.as_posix() for i in found] == ["case1.svs/a.png"]


def test_results_of_earlier_runs_are_not_inputs(tmp_path: Path) -> None:
    _touch(tmp_path / "a.png")
    _touch(tmp_path / "first" / "a.png" / "overlay.png")
    _touch(tmp_path / "b.svs" / "mask.ome.tif")
    found, _ = find_inputs(tmp_path, tmp_path / "second")
    assert [i.relative.as_posix() for i in found] == ["a.png"]


def test_files_that_are_not_read_are_counted_by_suffix(tmp_path: Path) -> None:
    for name in (
        "a.png",
        "b/x.bmp",
        "b/y.BMP",
        "c.jp2",
        "d.vsi",
        "_d_/stack1/frame_t.ets",  # the pixels of d.vsi
        "e.mrxs",
        "e/Slidedat.ini",
        "notes",
        ".hidden.txt",
        "Thumbs.db",
        "out/a.png/summary.json",
        "older/run.json",
        "older/summary.csv",
        "older/runs/20260102T030405.678Z-abc123.json",
        "older/a.png/summary.json",
    ):
        _touch(tmp_path / name)
    left_out = search(tmp_path, tmp_path / "out").left_out
    assert list(left_out.items()) == [(".bmp", 2), (".jp2", 1), (".vsi", 1), ("no suffix", 1)]
    assert left_out_line(left_out) == "5 files left out: .bmp (2), .jp2, .vsi, no suffix"
    assert search(tmp_path / "a.png", tmp_path / "out").left_out == {}


def test_the_line_about_files_left_out_stays_short(tmp_path: Path) -> None:
    assert left_out_line({".txt": 1}) == "1 file left out: .txt"
    many = left_out_line({f".{i}": 20 - i for i in range(12)})
    assert many.startswith("174 files left out: .0 (20), .1 (19), ")
    assert many.endswith(".7 (13), 4 other kinds")
    _touch(tmp_path / "a.bmp")
    with pytest.raises(UsageError, match=r"no slide or patch image \(1 file left out: .bmp\)"):
        search(tmp_path, tmp_path / "out")


@pytest.mark.skipif(os.name == "nt", reason="no pipes in folders")
def test_a_pipe_is_no_input(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.svs")
    _touch(tmp_path / "a.png")
    found, failures = find_inputs(tmp_path, tmp_path / "out")
    assert [i.relative.as_posix() for i in found] == ["a.png"]
    assert "is a pipe or device" in failures[0].reason
    with pytest.raises(UsageError, match="is a pipe or device"):
        find_inputs(tmp_path / "pipe.svs", tmp_path / "out")


@pytest.mark.skipif(os.name == "nt", reason="no pipes in folders")
@pytest.mark.parametrize("link", [False, True])
def test_a_pipe_beside_a_dicom_file_is_not_opened(link: bool, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write_dicom(folder / "a.dcm", smooth_noise(64, 64), mpp_um=0.5)
    pipe = tmp_path / "pipe" if link else folder / "b.dcm"
    os.mkfifo(pipe)
    if link:
        (folder / "b.dcm").symlink_to(pipe)
    (folder / "c.dcm").symlink_to(tmp_path / "nothing")
    with unblocked(pipe):
        found, failures = find_inputs(folder, tmp_path / "out")
        assert companions(folder / "a.dcm") == companions(folder / "b.dcm") == frozenset()
    assert [i.relative.as_posix() for i in found] == ["a.dcm", "c.dcm"]
    assert ["is a pipe or device" in f.reason for f in failures] == [True]


def test_a_dicom_slide_of_many_files_is_one_input(tmp_path: Path) -> None:
    for name, series in [("1", "1.2.3"), ("2", "1.2.3"), ("3", "1.2.4"), ("4", "1.2.3")]:
        data = Dataset()
        data.SeriesInstanceUID = series
        data.file_meta = FileMetaDataset()
        data.file_meta.MediaStorageSOPClassUID = VLWholeSlideMicroscopyImageStorage
        data.file_meta.MediaStorageSOPInstanceUID = UID(f"{series}.{name}")
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.save_as(tmp_path / f"{name}.dcm", enforce_file_format=True)
    _touch(tmp_path / "5.dcm", b"no dicom")
    found, _ = find_inputs(tmp_path, tmp_path / "out")
    assert [i.relative.as_posix() for i in found] == ["1.dcm", "3.dcm", "5.dcm"]


def test_parts_of_a_slide_are_not_inputs(tmp_path: Path) -> None:
    _touch(tmp_path / "x.mrxs")
    _touch(tmp_path / "x" / "Data0000.png")
    _touch(tmp_path / "y.vms", b"[Virtual Microscope Specimen]\nImageFile=y-tile.jpg\n")
    _touch(tmp_path / "y-tile.jpg")
    found, _ = find_inputs(tmp_path, tmp_path / "out")
    assert [i.relative.as_posix() for i in found] == ["x.mrxs", "y.vms"]


def test_one_file_is_one_input(tmp_path: Path) -> None:
    _touch(tmp_path / "a.svs")
    found, _ = find_inputs(tmp_path / "a.svs", tmp_path / "out")
    assert [(i.relative.as_posix(), i.kind) for i in found] == [("a.svs", "slide")]


@pytest.mark.parametrize(
    ("name", "why"),
    [("none", "No such file"), ("notes.txt", "neither a slide nor"), ("empty", "holds no slide")],
)
def test_nothing_to_do_is_a_usage_error(tmp_path: Path, name: str, why: str) -> None:
    _touch(tmp_path / "notes.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=why):
        find_inputs(tmp_path / name, tmp_path / "out")


def test_an_unreadable_folder_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _touch(tmp_path / "a.png")
    (tmp_path / "locked").mkdir()
    scandir = os.scandir

    def refuse(path: str) -> object:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found, failures = find_inputs(tmp_path, tmp_path / "out")
    assert len(found) == 1
    assert [f.reason for f in failures] == [
        f"{tmp_path / 'locked'} cannot be read: Permission denied"
    ]


def test_kinds_by_suffix() -> None:
    names = ("a.PNG", "a.jpg", "a.svs", "a.ome.tif", "a.dcm", "a.txt", "a")
    assert [kind_of(Path(n)) for n in names] == [
        "patch",
        "patch",
        "slide",
        "slide",
        "slide",
        None,
        None,
    ]


def test_fingerprint_sees_the_other_files_of_a_slide(tmp_path: Path) -> None:
    _touch(tmp_path / "x.mrxs")
    _touch(tmp_path / "x" / "Data0000.dat", b"1")
    before = fingerprint_of(tmp_path / "x.mrxs")
    _touch(tmp_path / "x" / "Data0000.dat", b"12")
    assert fingerprint_of(tmp_path / "x.mrxs") != before


def test_fingerprint_sees_size_size_head_and_tail(tmp_path: Path) -> None:
    path = tmp_path / "f"
    contents = [
        b"a" * 3_000_000,
        b"a" * 3_000_001,
        b"b" + b"a" * 2_999_999,
        b"a" * 2_999_999 + b"b",
    ]
    prints = set()
    for content in contents:
        path.write_bytes(content)
        prints.add(fingerprint_of(path))
    assert len(prints) == 4
