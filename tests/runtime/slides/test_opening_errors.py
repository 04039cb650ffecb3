from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from sshr_deploy.errors import InputError
from sshr_deploy.runtime.slides import open_slide
from sshr_deploy.runtime.slides.reader import mapped_read_errors
from tests.runtime.slides.synthetic import (
    pyramid,
    smooth_noise,
    unblocked,
    write_dicom,
    write_ome,
    write_svs,
)

SMALL_REGION = Path(__file__).parents[3] / "demo" / "data" / "CMU-1-Small-Region.svs"


def read_all(path: Path) -> None:
    with open_slide(path) as slide:
        for level, size in enumerate(slide.level_sizes_px):
            slide.read_region(level, 0, 0, *size)


def refusal(path: Path) -> str:
    """The message of the error, after checking its form."""
    with pytest.raises(InputError) as caught:
        read_all(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert message.isprintable()
    assert len(message) < len(str(path)) + 400
    return message


def _jpeg(path: Path) -> None:
    Image.new("RGB", (300, 300), "pink").save(path, format="JPEG")


NOT_SLIDES: list[tuple[str, Callable[[Path], Any], str]] = [
    ("empty.svs", lambda p: p.touch(), "empty"),
    ("text.svs", lambda p: p.write_text("no slide\n" * 99), "not a slide"),
    ("text.tif", lambda p: p.write_text("no slide\n" * 99), "not a slide"),
    ("jpeg.svs", _jpeg, "is a JPEG picture.*.jpg"),
    ("folder.svs", lambda p: p.mkdir(), "is a folder"),
    ("missing.svs", lambda _: None, "No such file"),
    ("header.tif", lambda p: p.write_bytes(b"II*\0"), "cannot be read"),
    ("header8.tif", lambda p: p.write_bytes(b"II*\0\x08\0\0\0"), "ends before"),
    ("noise.tif", lambda p: p.write_bytes(b"II*\0" + bytes(range(256)) * 20), "ends before"),
]


@pytest.mark.parametrize(("name", "make", "says"), NOT_SLIDES, ids=[c[0] for c in NOT_SLIDES])
def test_what_is_no_slide(
    name: str, make: Callable[[Path], Any], says: str, tmp_path: Path
) -> None:
    make(tmp_path / name)
    with pytest.raises(InputError, match=says):
        read_all(tmp_path / name)
    refusal(tmp_path / name)


UNUSABLE: dict[str, tuple[tuple[int, ...], type, dict[str, Any], str]] = {
    "16-bit": ((60, 80, 3), np.uint16, {"photometric": "rgb"}, "16 bits a sample"),
    "16-bit tiled": ((60, 80, 3), np.uint16, {"photometric": "rgb", "tile": (32, 32)}, "16 bits"),
    "float": ((60, 80), np.float32, {"photometric": "minisblack"}, "32 bits a sample"),
    "cmyk": ((60, 80, 4), np.uint8, {"photometric": "separated"}, "CMYK"),
    "stack": ((5, 60, 80, 3), np.uint8, {"photometric": "rgb"}, "5 planes"),
    "fluorescence": ((4, 60, 80), np.uint8,
                     {"photometric": "minisblack", "metadata": {"axes": "CYX"}, "ome": True,
                      "tile": (32, 32)}, "4 planes"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNUSABLE)
def test_pixels_sshr_cannot_use(name: str, tmp_path: Path) -> None:
    shape, dtype, options, says = UNUSABLE[name]
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, np.ones(shape, dtype), **options)
    message = refusal(path)
    assert says in message
    assert "8-bit RGB brightfield" in message


def _flat(path: Path) -> None:
    tifffile.imwrite(path, smooth_noise(400, 300), photometric="rgb", metadata=None)


SOURCES: dict[str, Callable[[Path], Any]] = {
    "cc0.svs": lambda p: p.write_bytes(SMALL_REGION.read_bytes()),
    "pyramid.svs": lambda p: write_svs(p, pyramid(smooth_noise(400, 300), 3)),
    "pyramid.ome.tif": lambda p: write_ome(p, pyramid(smooth_noise(400, 300), 3)),
    "flat.tif": _flat,
}


@pytest.mark.parametrize("percent", [10, 50, 90, 99])
@pytest.mark.parametrize("source", SOURCES)
def test_a_half_copied_slide_is_refused(source: str, percent: int, tmp_path: Path) -> None:
    path = tmp_path / source
    SOURCES[source](path)
    read_all(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * percent // 100])
    assert "copied only in part" in refusal(path)


@pytest.mark.parametrize("source", ["pyramid.svs", "pyramid.ome.tif"])
def test_a_damaged_tile_names_level_and_place(source: str, tmp_path: Path) -> None:
    path = tmp_path / source
    SOURCES[source](path)
    with tifffile.TiffFile(path) as tiff:
        page = tiff.series[0].levels[0].pages[0]
        assert page is not None
        offset, count = page.dataoffsets[5], page.databytecounts[5]
    data = bytearray(path.read_bytes())
    data[offset : offset + count] = b"\xff" * count
    path.write_bytes(data)
    message = refusal(path)
    assert "cannot be read at level 0, x " in message
    assert "copy it again" in message


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes in folders")
@pytest.mark.parametrize("name", ["b.dcm", ".notes"])
def test_a_pipe_beside_a_dicom_slide_is_never_waited_for(name: str, tmp_path: Path) -> None:
    write_dicom(tmp_path / "a.dcm", smooth_noise(64, 64), mpp_um=0.5)
    read_all(tmp_path / "a.dcm")
    os.mkfifo(tmp_path / name)
    with unblocked(tmp_path / name):
        message = refusal(tmp_path / "a.dcm")
    assert f"beside {tmp_path / name}, a pipe or device" in message


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes in folders")
def test_pipes_where_a_slides_other_files_should_be(tmp_path: Path) -> None:
    (tmp_path / "x.mrxs").write_bytes(b"MIRAX")
    (tmp_path / "x").mkdir()
    os.mkfifo(tmp_path / "x" / "Slidedat.ini")
    (tmp_path / "y.vms").write_text("[Virtual Microscope Specimen]\nMapFile=map.jpg\n")
    os.mkfifo(tmp_path / "map.jpg")
    os.mkfifo(tmp_path / "z.svs")
    for slide, pipe in [("x.mrxs", "x/Slidedat.ini"), ("y.vms", "map.jpg"), ("z.svs", "z.svs")]:
        with unblocked(tmp_path / pipe):
            assert "a pipe or device" in refusal(tmp_path / slide)


@pytest.mark.skipif(
    sys.platform == "win32" or (hasattr(os, "geteuid") and os.geteuid() == 0),
    reason="permission bits do not stop this user",
)
def test_an_unreadable_file(tmp_path: Path) -> None:
    path = tmp_path / "x.svs"
    _flat(path)
    path.chmod(0)
    assert "ermission denied" in refusal(path)


_OPEN_ALL = """
import json, sys
from pathlib import Path
from sshr_deploy.errors import InputError
from tests.runtime.slides.test_opening_errors import read_all
bad = []
for name in sys.argv[1:]:
    try:
        read_all(Path(name))
    except InputError as error:
        if not str(error).startswith(name) or not str(error).isprintable():
            bad.append(str(error))
    except Exception as error:
        bad.append(f"{name}: {error!r}")
print(json.dumps(bad))
"""


def test_random_damage_to_headers_gives_a_result_or_a_clear_error(tmp_path: Path) -> None:
    """In a process of its own: a crash of a C library must not take the tests with it."""
    rng = np.random.default_rng(7)
    names = []
    for source in ("pyramid.svs", "pyramid.ome.tif", "flat.tif"):
        path = tmp_path / source
        SOURCES[source](path)
        whole = path.read_bytes()
        with tifffile.TiffFile(path) as tiff:
            starts = [0, *(page.offset for page in tiff.pages if page is not None)]
        for variant in range(25):
            data = bytearray(whole)
            start = int(rng.choice(starts))
            for place in rng.integers(start, min(start + 400, len(data)), rng.integers(1, 10)):
                data[place] = int(rng.integers(256))
            names.append(str(tmp_path / f"{variant}-{source}"))
            Path(names[-1]).write_bytes(data)
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", _OPEN_ALL, *names], cwd=root, capture_output=True, text=True,
        check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == []
    assert done.stderr == ""


def test_any_exception_becomes_one_line_and_ours_pass_through() -> None:
    for error in (
        KeyError("a\nb"),
        MemoryError(),
        OSError(5, "I/O error"),
        RuntimeError("x" * 999),
    ):
        with (
            pytest.raises(InputError, match=r"^x\.svs is odd: .*; fix it$") as caught,
            mapped_read_errors(Path("x.svs"), "is odd", "fix it"),
        ):
            raise error
        assert caught.value.__cause__ is error
        assert len(str(caught.value)) < 240
    ours = InputError("as it is")
    with pytest.raises(InputError) as kept, mapped_read_errors(Path("x"), "is odd", "fix it"):
        raise ours
    assert kept.value is ours
