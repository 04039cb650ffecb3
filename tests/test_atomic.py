"""Atomic files, JSON and CSV."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path

import pytest

from sshr_deploy.atomic import (
    atomic_path,
    check_writable,
    is_partial_name,
    partial_folder,
    partial_name,
    remove_abandoned,
    remove_path,
    replace_folder,
    write_csv,
    write_json,
)
from sshr_deploy.errors import OutputError

# Runs each writer under a file-size limit of 64 bytes, as on a full disk, and prints the errors.
_FULL_DISK = """
import json, resource, signal, sys
from pathlib import Path
import numpy as np
from sshr_deploy.errors import OutputError
from sshr_deploy.profiles import load_profile
from sshr_deploy.atomic import write_csv, write_json
from sshr_deploy.runtime.writers.geojson import write_geojson
from sshr_deploy.runtime.writers.ome_tiff import write_ome_tiff
from sshr_deploy.runtime.writers.overlay import write_label_png, write_overlay

out = Path(sys.argv[1])
p = load_profile("luad")
mask = np.random.default_rng(0).integers(0, 5, (900, 700)).astype(np.uint8)
thumbnail = np.random.default_rng(1).integers(0, 255, (90, 70, 3)).astype(np.uint8)
rows = [{"slide": "x" * 200}]
writers = {
    "m.ome.tif": lambda f: write_ome_tiff(f, mask, profile=p, mask_mpp_um=1.0, name="n"),
    "r.geojson": lambda f: write_geojson(f, mask, profile=p, l0_px_per_mask_px=(2.0, 2.0)),
    "o.png": lambda f: write_overlay(
        f, thumbnail, mask, profile=p, shares={}, title="t", thumbnail_mpp_um=10.0
    ),
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
    assert len(results) == 6
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


def _folder(path: Path, text: str, files: int = 1) -> Path:
    path.mkdir(parents=True)
    for number in range(files):
        (path / f"{number}.txt").write_text(text)
    return path


@cache
def _ended() -> int:
    """Number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def _abandoned(parent: Path, name: str) -> Path:
    return parent / partial_name(name).replace(f"-{os.getpid()}-", f"-{_ended()}-")


@pytest.mark.parametrize("before", [None, "", "old"])
def test_a_folder_is_replaced_whole(tmp_path: Path, before: str | None) -> None:
    out = tmp_path / "new" / "out"
    with partial_folder(out) as partial:
        (partial / "a").write_text("new")
        if before is not None:
            _folder(out, before, files=bool(before))
        replace_folder(partial, out)
    assert [p.name for p in out.parent.iterdir()] == ["out"]
    assert [p.name for p in out.iterdir()] == ["a"]


def test_a_partial_folder_that_is_not_renamed_goes(tmp_path: Path) -> None:
    out = _folder(tmp_path / "out", "old")
    with pytest.raises(KeyboardInterrupt), partial_folder(out) as partial:
        (partial / "a").write_text("half")
        assert partial.parent == tmp_path and is_partial_name(partial.name)
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == [out]


def test_a_replacement_that_fails_puts_the_old_folder_back(tmp_path: Path) -> None:
    out = _folder(tmp_path / "out", "old")
    with pytest.raises(FileNotFoundError, match="no-such"):
        replace_folder(tmp_path / "no-such", out)
    with pytest.raises(FileNotFoundError, match="no-such"):
        replace_folder(tmp_path / "no-such", tmp_path / "neither")
    assert list(tmp_path.iterdir()) == [out]
    assert (out / "0.txt").read_text() == "old"


def test_a_replacement_that_is_interrupted_puts_the_old_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, partial = _folder(tmp_path / "out", "old"), _folder(tmp_path / "partial", "new")
    rename = Path.replace

    def interrupted(path: Path, target: Path) -> Path:
        if path == partial:
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        replace_folder(partial, out)
    assert (out / "0.txt").read_text() == "old"
    assert {p.name for p in tmp_path.iterdir()} == {"out", "partial"}


def _at_once(work: list[Callable[[], object]]) -> list[BaseException | None]:
    """What each raised; all begin at the same time."""
    begin = threading.Barrier(len(work), timeout=60)

    def run(do: Callable[[], object]) -> None:
        begin.wait()
        do()

    with ThreadPoolExecutor(len(work)) as pool:
        return [future.exception() for future in [pool.submit(run, do) for do in work]]


def test_of_several_that_replace_a_folder_one_is_last(tmp_path: Path) -> None:
    out = _folder(tmp_path / "out", "old", files=3)
    for turn in range(40):
        partials = [_folder(tmp_path / partial_name(f"{turn}"), f"{i}", 3) for i in range(3)]
        errors = _at_once([partial(replace_folder, path, out) for path in partials])
        assert None in errors
        assert all(error is None or isinstance(error, OSError) for error in errors)
        texts = {(out / f"{number}.txt").read_text() for number in range(3)}
        assert len(texts) == 1 and texts < {"0", "1", "2"}
        for path, error in zip(partials, errors, strict=True):
            assert path.exists() == (error is not None)
            shutil.rmtree(path, ignore_errors=True)
        assert list(tmp_path.iterdir()) == [out]


@pytest.mark.skipif(os.name == "nt", reason="there it takes a day to tell that nobody writes")
def test_several_may_remove_what_was_abandoned(tmp_path: Path) -> None:
    for _ in range(20):
        for name in "abcd":
            _folder(_abandoned(tmp_path, name) / "sub", "12", files=20)
        _abandoned(tmp_path, "file").write_text("12")
        freed: list[int] = []
        errors = _at_once([lambda: freed.append(remove_abandoned(tmp_path))] * 3)  # noqa: B023
        assert errors == [None] * 3
        assert sum(freed) == 4 * 20 * 2 + 2
        assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="there it takes a day to tell that nobody writes")
def test_only_what_was_abandoned_under_such_a_name_goes(tmp_path: Path) -> None:
    mine = [".notes.partial", "a.partial", ".a.host-1.partial", ".a.host-x-01234567.partial"]
    keep = [tmp_path / name for name in (*mine, partial_name("a"))]
    for path in keep:
        path.touch()
        os.utime(path, (0, 0))
    other = _abandoned(tmp_path, "b")
    elsewhere = tmp_path / ".a.elsewhere-1-01234567.partial"
    (tmp_path / "kept").write_text("linked")
    link = _abandoned(tmp_path, "a")
    link.symlink_to(tmp_path)
    for path in (other, elsewhere):
        path.touch()
    assert remove_abandoned(tmp_path, "a.*") > 0
    assert set(tmp_path.iterdir()) == {*keep, tmp_path / "kept", other, elsewhere}
    os.utime(elsewhere, (0, 0))
    remove_abandoned(tmp_path, "a.*")
    assert set(tmp_path.iterdir()) == {*keep, tmp_path / "kept", other}


def test_what_cannot_be_removed_is_an_error(tmp_path: Path) -> None:
    tail = ".h-1-01234567.partial"  # of another machine; our own partial names are longer
    path = tmp_path / f".{'x' * (254 - len(tail))}{tail}"
    path.touch()
    os.utime(path, (0, 0))
    with pytest.raises(OSError, match="too long"):
        remove_abandoned(tmp_path)
    with pytest.raises(FileNotFoundError):
        remove_path(tmp_path / "no-such")


@pytest.mark.skipif(os.name == "nt", reason="there it takes a day to tell that nobody writes")
def test_a_removal_that_was_killed_is_ended_by_the_next(tmp_path: Path) -> None:
    _folder(_abandoned(tmp_path, "a"), "12")
    code = (
        "import os, shutil, sys; from pathlib import Path; from sshr_deploy import atomic;"
        "shutil.rmtree = lambda _: os._exit(9); atomic.remove_abandoned(Path(sys.argv[1]), 'a.*')"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)]).returncode == 9
    assert remove_abandoned(tmp_path, "a.*") == 2
    assert list(tmp_path.iterdir()) == []
