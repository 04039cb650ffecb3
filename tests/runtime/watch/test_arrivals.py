"""Slides as they arrive, with a clock that the test moves."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from sshr_deploy.errors import UsageError
from sshr_deploy.runtime.operation.events import Event, Events
from sshr_deploy.runtime.settings import InferSettings
from sshr_deploy.runtime.watch import arrivals, scanning
from sshr_deploy.runtime.watch.arrivals import Arrivals
from sshr_deploy.runtime.watch.queue import Queue, State
from sshr_deploy.runtime.watch.scanning import watched_folders
from tests.runtime.watch.queues import HOST, new_queue, states

SETTLE_S = 60.0


@dataclass
class Scanner:
    """A watched folder, and what was said of it."""

    folder: Path
    queue: Queue
    arrivals: Arrivals
    now_s: list[float] = field(default_factory=lambda: [0.0])
    said: list[tuple[str, str]] = field(default_factory=list)

    def poll(self, after_s: float = 0.0) -> dict[str, str]:
        self.now_s[0] += after_s
        self.said.clear()
        self.arrivals.poll()
        return states(self.queue)

    def put(self, name: str, content: bytes = b"slide") -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path


@pytest.fixture
def scanner(tmp_path: Path) -> Scanner:
    return new_scanner(tmp_path)


def new_scanner(tmp_path: Path, settings: InferSettings | None = None) -> Scanner:
    folder = tmp_path / "scans"
    folder.mkdir(exist_ok=True)
    now_s, said = [0.0], list[tuple[str, str]]()

    def listen(event: Event) -> None:
        assert event.slide is not None
        said.append((event.code.value, event.slide.name))

    path = tmp_path / "queue.sqlite"
    queue = Queue(path) if path.exists() else new_queue(path)
    arrivals = Arrivals(
        queue,
        watched_folders([folder], tmp_path / "out"),
        tmp_path / "out",
        Events(listen),
        settings or InferSettings(),
        settle_s=SETTLE_S,
        clock_s=lambda: now_s[0],
    )
    return Scanner(folder, queue, arrivals, now_s, said)


def test_a_slide_is_taken_once_it_does_not_change(scanner: Scanner) -> None:
    path = scanner.put("a.svs")
    assert scanner.poll() == {"a.svs": "settling"}
    assert scanner.said == [("slide_found", "a.svs")]
    assert scanner.poll(59.0) == {"a.svs": "settling"}
    path.write_bytes(b"more of the slide")
    assert scanner.poll(1.0) == {"a.svs": "settling"}
    assert scanner.poll(59.0) == {"a.svs": "settling"}
    assert scanner.said == []
    assert scanner.poll(1.0) == {"a.svs": "waiting"}
    assert scanner.said == [("slide_ready", "a.svs")]
    (slide,) = scanner.queue.slides()
    assert (slide.path, slide.bytes) == (path, 17)
    assert scanner.poll(1000.0) == {"a.svs": "waiting"}


def test_settling_begins_anew_with_the_process(scanner: Scanner, tmp_path: Path) -> None:
    scanner.put("a.svs")
    scanner.poll()
    again = new_scanner(tmp_path)
    assert again.poll(1000.0) == {"a.svs": "settling"}
    assert again.poll(60.0) == {"a.svs": "waiting"}


def test_a_slide_renamed_at_its_end(tmp_path: Path) -> None:
    scanner = new_scanner(tmp_path, InferSettings(exclude=("tmp_*",)))
    path = scanner.put("tmp_a.svs")
    scanner.put("b.svs.part")
    assert scanner.poll() == {}
    path.rename(scanner.folder / "a.svs")
    assert scanner.poll() == {"a.svs": "settling"}


def test_a_slide_taken_away_during_the_scan_is_not_found(
    scanner: Scanner, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = scanner.put("a.svs")
    scanner.put("b.svs")

    def scan_then_lose(*arguments: Any) -> Any:
        found = scanning.scan(*arguments)
        path.unlink()
        return found

    monkeypatch.setattr(arrivals, "scan", scan_then_lose)
    assert scanner.poll() == {"b.svs": "settling"}
    assert scanner.said == [("slide_found", "b.svs")]


def test_a_rename_is_a_new_slide(scanner: Scanner) -> None:
    path = scanner.put("scan0001.svs")
    scanner.put("b.svs")
    scanner.poll()
    scanner.poll(60.0)
    path.rename(scanner.folder / "a.svs")
    assert scanner.poll() == {"a.svs": "settling", "b.svs": "waiting"}
    assert scanner.said == [("slide_found", "a.svs"), ("slide_gone", "scan0001.svs")]


@pytest.mark.parametrize(
    ("state", "then"),
    [
        (State.WAITING, "settling"),
        (State.DONE, "settling"),
        (State.FAILED, "settling"),
        (State.QUARANTINED, "settling"),
        (State.RUNNING, "running"),  # seen at its end
        (State.SKIPPED, "skipped"),
    ],
)
def test_a_slide_that_is_replaced(scanner: Scanner, state: State, then: str) -> None:
    path = scanner.put("a.svs")
    to(scanner, path, state)
    path.write_bytes(b"another slide")
    assert scanner.poll() == {"a.svs": then}
    changed = then == "settling"
    assert scanner.said == ([("slide_changed", "a.svs")] if changed else [])
    (slide,) = scanner.queue.slides()
    assert slide.attempts == (0 if changed or state is not State.FAILED else 1)


@pytest.mark.parametrize("to_state", [State.SKIPPED, State.RUNNING])
@pytest.mark.parametrize("seen", ["settled", "changed", "not seen"])
def test_a_slide_that_moves_while_the_folder_is_looked_through(
    scanner: Scanner, monkeypatch: pytest.MonkeyPatch, to_state: State, seen: str
) -> None:
    path = scanner.put("a.svs")
    scanner.put("text.txt")
    to(scanner, path, State.SETTLING if seen == "settled" else State.WAITING)

    def scan_meanwhile(*args: Any) -> scanning.Scan:
        if seen == "settled":
            scanner.queue.move(path, State.WAITING)
        elif seen == "changed":
            path.write_bytes(b"another slide")
        found = scanning.scan(*args)
        scanner.queue.move(path, to_state)
        return replace(found, slides={}) if seen == "not seen" else found

    monkeypatch.setattr(arrivals, "scan", scan_meanwhile)
    gone = seen == "not seen" and to_state is State.SKIPPED
    assert scanner.poll(60.0) == ({} if gone else {"a.svs": to_state.value})


@pytest.mark.parametrize("state", State)
def test_a_slide_that_is_removed(scanner: Scanner, state: State) -> None:
    path = scanner.put("a.svs")
    scanner.put("text.txt")  # or the folder would seem to be unmounted
    to(scanner, path, state)
    path.unlink()
    stays = state in (State.RUNNING, State.DONE)
    assert scanner.poll() == ({"a.svs": state.value} if stays else {})
    assert scanner.said == ([] if stays else [("slide_gone", "a.svs")])


def to(scanner: Scanner, path: Path, state: State) -> None:
    """Bring the slide to a state the way it gets there."""
    queue = scanner.queue
    scanner.poll()
    if state is State.SETTLING:
        return
    scanner.poll(60.0)
    if state in (State.SKIPPED, State.WAITING):
        if state is State.SKIPPED:
            queue.move(path, state)
        return
    queue.move(path, State.RUNNING)
    if state is not State.RUNNING:
        queue.end(path, state, 1.0, HOST, attempts=int(state is State.FAILED), again_s=2.0)


def test_what_cannot_be_a_whole_slide_never_settles(scanner: Scanner) -> None:
    scanner.put("empty.svs", b"")
    scanner.put("a.mrxs")
    scanner.poll()
    assert scanner.poll(1000.0) == {"a.mrxs": "settling", "empty.svs": "settling"}
    reasons = [slide.reason for slide in scanner.queue.slides()]
    assert reasons == ["its folder a is not there yet", "the file is empty so far"]
    scanner.put("a/Slidedat.ini")
    scanner.poll(60.0)
    scanner.put("a/sub/Data0000.dat")
    assert scanner.poll(59.0)["a.mrxs"] == "settling"
    assert scanner.poll(60.0) == {"a.mrxs": "waiting", "empty.svs": "settling"}
    assert scanner.queue.slides()[0].bytes == 15
    (scanner.folder / "a/sub/Data0000.dat").write_bytes(b"a longer piece of it")
    assert scanner.poll()["a.mrxs"] == "settling"


def test_images_hidden_files_and_results_are_no_slides(scanner: Scanner) -> None:
    for name in ("a.png", ".a.svs", "b.svs/mask.ome.tif", "b.svs/summary.json"):
        scanner.put(name)
    assert scanner.poll() == {}
    scanner.put("day/b.svs")
    assert scanner.poll() == {str(Path("day/b.svs")): "settling"}


def test_a_folder_that_is_away(scanner: Scanner) -> None:
    scanner.put("a.svs")
    scanner.poll()
    away = scanner.folder.rename(scanner.folder.with_name("away"))
    assert scanner.poll(60.0) == {"a.svs": "settling"}
    assert scanner.said == [("folder_lost", "scans")]
    assert list(scanner.arrivals.lost) == [scanner.folder]
    assert (scanner.poll(10.0), scanner.said) == ({"a.svs": "settling"}, [])  # said once
    away.rename(scanner.folder)
    scanner.poll(10.0)
    assert scanner.said == []  # looked at less and less often
    scanner.poll(10.0)
    assert scanner.said == [("folder_back", "scans"), ("slide_ready", "a.svs")]
    assert not scanner.arrivals.lost


def test_a_folder_that_is_empty_all_at_once_is_not_mounted(scanner: Scanner) -> None:
    path = scanner.put("a.svs")
    scanner.poll()
    scanner.poll(60.0)
    path.unlink()
    assert scanner.poll() == {"a.svs": "waiting"}
    assert scanner.said == [("folder_lost", "scans")]
    scanner.queue.move(path, State.SKIPPED)
    assert scanner.poll(10.0) == {}
    assert scanner.said == [("folder_back", "scans"), ("slide_gone", "a.svs")]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="rights do not bind this user")
def test_slides_of_a_subfolder_that_cannot_be_read_are_not_gone(scanner: Scanner) -> None:
    path = scanner.put("day/a.svs")
    scanner.poll()
    path.parent.chmod(0)
    try:
        assert scanner.poll() == {"day/a.svs": "settling"}
    finally:
        path.parent.chmod(0o700)


def test_the_time_of_writing_is_not_that_of_the_original(scanner: Scanner) -> None:
    for name, mtime_s in (("old.svs", 1e9), ("ahead.svs", 1e10)):
        os.utime(scanner.put(name), (mtime_s, mtime_s))
    scanner.poll()
    for slide in scanner.queue.slides():
        assert slide.found_s <= slide.written_s <= slide.found_s + 60


def test_several_folders_have_results_of_their_own(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        (folder / "a.svs").write_bytes(b"slide")
    with new_queue(tmp_path / "queue.sqlite") as queue:
        Arrivals(
            queue,
            watched_folders([one, two], tmp_path / "out"),
            tmp_path / "out",
            Events(),
            InferSettings(),
            settle_s=0,
        ).poll()
        found = [(s.folder, s.relative) for s in queue.slides()]
    assert found == [(one, Path("one/a.svs")), (two, Path("two/a.svs"))]


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["none"], "is no folder"),
        (["a", "a/b"], "is watched twice"),
        (["a", "c/a"], "two folders are named a"),
        (["out"], "`out` .*out is where the slides of .*out are"),
        (["c", "out/d"], "`out` .*out is where the slides of .*d are"),
    ],
)
def test_folders_that_cannot_be_watched(tmp_path: Path, names: list[str], reason: str) -> None:
    for name in ("a/b", "c/a", "out/d"):
        (tmp_path / name).mkdir(parents=True)
    with pytest.raises(UsageError, match=reason):
        watched_folders([tmp_path / name for name in names], tmp_path / "out")


def test_a_slide_of_several_dicom_files_is_one(scanner: Scanner) -> None:
    series = pytest.importorskip("pydicom")
    for name, uid in (("a.dcm", "1.2"), ("b.dcm", "1.2"), ("c.dcm", "1.3")):
        file = series.Dataset()
        file.preamble = bytes(128)
        file.SeriesInstanceUID = uid
        file.file_meta = series.dataset.FileMetaDataset()
        file.file_meta.TransferSyntaxUID = series.uid.ExplicitVRLittleEndian
        series.dcmwrite(scanner.folder / name, file, enforce_file_format=False)
    assert scanner.poll() == {"a.dcm": "settling", "c.dcm": "settling"}
    scanner.poll(60.0)
    shutil.copy(scanner.folder / "b.dcm", scanner.folder / "d.dcm")
    assert scanner.poll() == {"a.dcm": "settling", "c.dcm": "waiting"}
