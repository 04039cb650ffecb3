"""Atomic files, JSON and CSV."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sshr_deploy.atomic import atomic_path, check_writable, write_csv, write_json
from sshr_deploy.errors import OutputError

# Runs each writer under a file-size limit of 64 bytes, as on a full disk, and prints the errors.
_FULL_DISK = """
import json, resource, signal, sys
from pathlib import Path
import numpy as np
from sshr_deploy.errors import OutputError
from sshr_deploy.profiles import load_profile
from sshr_deploy.atomic import write_csv, write_json
from sshr_deploy.runtime.outputs import Outputs
from sshr_deploy.runtime.writers.geojson import MaskScale, regions_sink
from sshr_deploy.runtime.writers.ome_tiff import write_ome_tiff
from sshr_deploy.runtime.writers.overlay import write_label_png, write_overlay, write_thumbnail

out = Path(sys.argv[1])
p = load_profile("luad")
mask = np.random.default_rng(0).integers(0, 5, (900, 700)).astype(np.uint8)
thumbnail = np.random.default_rng(1).integers(0, 255, (90, 70, 3)).astype(np.uint8)
rows = [{"slide": "x" * 200}]
scale = MaskScale((700, 900), 1.0, (2.0, 2.0))


def write_regions(path):
    with regions_sink(path, scale, profile=p, outputs=Outputs()) as sink:
        sink.put(mask)


writers = {
    "m.ome.tif": lambda f: write_ome_tiff(f, mask, profile=p, mask_mpp_um=1.0, name="n"),
    "r.geojson": write_regions,
    "o.png": lambda f: write_overlay(
        f, thumbnail, mask, profile=p, shares={}, title="t", mpp_um=10.0
    ),
    "t.jpg": lambda f: write_thumbnail(f, thumbnail),
    "l.png": lambda f: write_label_png(f, mask, profile=p),
    "s.json": lambda f: write_json(f, rows),
    "s.csv": lambda f: write_csv(f, rows),
}
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (64, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
results = {}
for name, write in writers.items():
    try:
        write(out / name)
        results[name] = "no error"
    except OutputError as error:
        results[name] = str(error)
print(json.dumps(results))
"""


def test_full_disk_is_an_output_error_that_leaves_nothing(tmp_path: Path) -> None:
    pytest.importorskip("resource", reason="file-size limits are POSIX")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-c", _FULL_DISK, str(tmp_path)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert len(results) == 7
    for name, message in results.items():
        assert message.startswith(f"cannot write {tmp_path / name}: "), message
        assert message.endswith("; free space or choose another place")
    assert list(tmp_path.iterdir()) == []


def test_appears_only_when_done_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    for text in ("one", "two"):
        with atomic_path(path) as partial:
            partial.write_text(text)
            assert partial.parent == path.parent
            assert not path.exists() or path.read_text() == "one"
        assert path.read_text() == text
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt()])
def test_any_exception_keeps_the_old_file(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(type(error)), atomic_path(path) as partial:
        partial.write_text("new")
        raise error
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "old"


def test_oserror_names_the_path_and_the_fix(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    with pytest.raises(OutputError, match=r"cannot write .*file.*; free space or choose another"):
        write_json(blocker / "x.json", {})
    with pytest.raises(OutputError, match="No space"), atomic_path(tmp_path / "y"):
        raise OSError(28, "No space left on device")


def test_json_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    value = {"name": "Nekrose é 中", "bad_name": "a\udc80", "areas": [1.5, None]}
    write_json(path, value)
    raw = path.read_bytes()
    assert json.loads(raw.decode("utf-8")) == value
    assert raw.startswith(b'{\n  "name": "Nekrose \xc3\xa9') and raw.endswith(b"}\n")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"x": float("nan")})
    assert path.read_bytes() == raw


def test_csv_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    write_csv(path, [{"slide": 'a,"b"\n', "mm2": 1.5}, {"slide": "é", "reason": None, "mm2": 2}])
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == [
        {"slide": 'a,"b"\n', "mm2": "1.5", "reason": ""},
        {"slide": "é", "mm2": "2", "reason": ""},
    ]
    write_csv(path, [])
    assert path.read_bytes() == b""


@pytest.mark.skipif(os.name == "nt", reason="FIFOs")
def test_what_is_no_regular_file_is_never_replaced(tmp_path: Path) -> None:
    fifo = tmp_path / "like-dev-null"
    os.mkfifo(fifo)
    for write in (check_writable, lambda path: write_json(path, {})):
        with pytest.raises(OutputError, match="no regular file"):
            write(fifo)
    assert fifo.is_fifo()
    assert [p.name for p in tmp_path.iterdir()] == [fifo.name]
