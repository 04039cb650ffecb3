"""Folders that appear whole or not at all, and what killed processes left."""

from __future__ import annotations

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
    is_partial_name,
    partial_folder,
    partial_name,
    remove_abandoned,
    remove_path,
    replace_folder,
)


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
