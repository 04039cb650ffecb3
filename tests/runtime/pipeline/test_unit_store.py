from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sshr_deploy.errors import OutputError
from sshr_deploy.runtime.pipeline import unit_store as module
from sshr_deploy.runtime.pipeline.unit_store import UnitStore
from sshr_deploy.runtime.results.file_names import UNFINISHED_NAME

SHAPES = [(6, 4, 5), (6, 4, 5), (6, 2, 1)]
RECORDS = {
    unit: np.random.default_rng(sum(unit)).random(shape).astype(np.float16)
    for unit, shape in zip([(2, 7), (0, 1), (9, 9, 2, 4)], SHAPES, strict=True)
}


def new_store(folder: Path, key: str = "k") -> UnitStore:
    return UnitStore(folder, np.float16, key)


def fill(store: UnitStore) -> None:
    store.put(RECORDS)


def test_rows_come_back_as_they_were_put_and_the_file_goes(tmp_path: Path) -> None:
    with new_store(tmp_path) as store:
        fill(store)
        for unit, record in RECORDS.items():
            assert unit in store
            assert np.array_equal(store.rows(unit, 0, 6), record)
            assert np.array_equal(store.rows(unit, 2, 5), record[2:5])
        assert (0, 0) not in store
        assert len(store) == len(RECORDS)
        with pytest.raises(ValueError, match="read-only"):
            store.rows((0, 1), 0, 1)[:] = 0
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_gone_after_a_failure(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), new_store(tmp_path) as store:
        fill(store)
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_what_was_kept_is_there_for_the_next_with_the_same_key(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    fill(store)
    store.leave()
    assert [path.name for path in tmp_path.iterdir()] == [UNFINISHED_NAME]
    again = new_store(tmp_path)
    again.put({(5, 5): RECORDS[0, 1]})
    again.leave()
    with new_store(tmp_path) as last:
        for unit, record in {**RECORDS, (5, 5): RECORDS[0, 1]}.items():
            assert np.array_equal(last.rows(unit, 0, 6), record)
    assert list(tmp_path.iterdir()) == []


def test_a_put_that_was_interrupted_does_not_count(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    fill(store)
    store._file.write(b"half a record")
    store.leave()
    with new_store(tmp_path) as again:
        assert len(again) == len(RECORDS)
        assert np.array_equal(again.rows((9, 9, 2, 4), 0, 6), RECORDS[9, 9, 2, 4])


def test_nothing_is_kept_of_nothing(tmp_path: Path) -> None:
    new_store(tmp_path).leave()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "damage", ["key", "cut", "grown", "empty", "text", "type", "zeroed", "deep", "endless"]
)
def test_what_does_not_fit_is_deleted(tmp_path: Path, damage: str) -> None:
    store = new_store(tmp_path)
    fill(store)
    store.leave()
    kept = tmp_path / UNFINISHED_NAME
    content = kept.read_bytes()
    match damage:
        case "cut":
            kept.write_bytes(content[:-3])
        case "grown":
            kept.write_bytes(b"x" + content)
        case "empty":
            kept.write_bytes(b"")
        case "text":
            kept.write_bytes(b"no frame" + (8).to_bytes(8, "little"))
        case "zeroed":  # by a power cut: the right size, not the content
            kept.write_bytes(bytes(64) + content[64:])
        case "deep":
            kept.write_bytes(b"[" * 200_000 + (200_000).to_bytes(8, "little"))
        case "endless":
            kept.write_bytes(b"\xff" * 16 + content)
    dtype = np.uint8 if damage == "type" else np.float16
    with UnitStore(tmp_path, dtype, "other" if damage == "key" else "k") as again:
        assert len(again) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_folder_by_the_name_of_the_kept_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / UNFINISHED_NAME).mkdir()
    with pytest.raises(OutputError, match="cannot write to"):
        new_store(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [UNFINISHED_NAME]


def test_a_folder_that_is_not_there_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write to"):
        new_store(tmp_path / "none")


def test_a_file_that_somebody_cut_is_an_output_error(tmp_path: Path) -> None:
    with new_store(tmp_path) as store:
        fill(store)
        store._file.flush()
        (path,) = tmp_path.iterdir()
        os.truncate(path, 10)
        with pytest.raises(OutputError, match="was cut short"):
            store.rows((9, 9, 2, 4), 0, 6)


@pytest.mark.skipif(os.name == "nt", reason="needs a limit on file sizes")
@pytest.mark.parametrize("limit", [0, 1000, 2 * 112_000 - 4000, 349_999])
def test_a_full_disk_is_an_output_error(tmp_path: Path, limit: int) -> None:
    script = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from sshr_deploy.errors import OutputError
from sshr_deploy.runtime.pipeline.unit_store import UnitStore
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    with UnitStore(Path(sys.argv[1]), np.uint8, "k") as store:
        for column in range(7):
            store.put({(0, column): np.zeros((224, 224), np.uint8)})
        store.rows((0, 6), 0, 224)
except OutputError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), str(limit)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "free space or choose another" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="needs a limit on file sizes")
def test_a_full_disk_costs_the_batch_in_hand(tmp_path: Path) -> None:
    import resource

    store = new_store(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, before[1]))
    try:
        store.put({(0, 0): np.full((40, 40), 7, np.float16)})
        with pytest.raises(OutputError, match="free space"):
            store.put({(0, 1): np.zeros((40, 40), np.float16)})
        store.leave()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    with new_store(tmp_path) as again:
        assert len(again) == 1
        assert (again.rows((0, 0), 0, 40) == 7).all()


def frames(folder: Path, count: int) -> list[int]:
    """Write a kept file of `count` batches; the lengths at which it is whole."""
    store, lengths = new_store(folder), []
    for index in range(count):
        store.put({(index, 0): RECORDS[2, 7] + index, (index, 1): RECORDS[9, 9, 2, 4]})
        lengths.append((folder / UNFINISHED_NAME).stat().st_size)
    store.leave()
    return lengths


def test_a_file_cut_anywhere_holds_the_batches_before_the_cut(tmp_path: Path) -> None:
    """As a power cut may leave it: at 50 random lengths, and at all where a frame begins."""
    lengths = frames(tmp_path, 6)
    kept = tmp_path / UNFINISHED_NAME
    whole = kept.read_bytes()
    assert len(whole) == lengths[-1]
    cuts = np.random.default_rng(15).integers(0, len(whole), 50).tolist()
    for cut in (*cuts, *lengths, *(length + 1 for length in lengths[:-1])):
        kept.write_bytes(whole[:cut])
        store = new_store(tmp_path)
        batches = sum(length <= cut for length in lengths)
        assert len(store) == 2 * batches
        for index in range(batches):
            assert np.array_equal(store.rows((index, 0), 0, 6), RECORDS[2, 7] + index)
        store.leave()
        assert not batches or kept.read_bytes() == whole[: lengths[batches - 1]]


def test_what_stands_behind_a_damaged_batch_does_not_count(tmp_path: Path) -> None:
    lengths = frames(tmp_path, 4)
    kept = tmp_path / UNFINISHED_NAME
    content = bytearray(kept.read_bytes())
    content[lengths[1] + 100] ^= 1  # in the third
    kept.write_bytes(content)
    with new_store(tmp_path) as store:
        assert (1, 1) in store
        assert len(store) == 4


def test_zeros_behind_the_last_batch_are_none(tmp_path: Path) -> None:
    """A file may get its length before its content."""
    (length,) = frames(tmp_path, 1)
    with (tmp_path / UNFINISHED_NAME).open("ab") as kept:
        kept.write(bytes(1000))
    store = new_store(tmp_path)
    assert len(store) == 2
    store.leave()
    assert (tmp_path / UNFINISHED_NAME).stat().st_size == length


def test_what_was_put_is_in_the_file_at_once(tmp_path: Path) -> None:
    """A process that is killed has no time to flush."""
    with new_store(tmp_path) as store:
        fill(store)
        (tmp_path / "copy").mkdir()
        kept = (tmp_path / UNFINISHED_NAME).read_bytes()
        (tmp_path / "copy" / UNFINISHED_NAME).write_bytes(kept)
        with new_store(tmp_path / "copy") as copy:
            assert len(copy) == len(RECORDS)


@pytest.mark.skipif(os.name == "nt", reason="an open file cannot be replaced there")
def test_one_that_was_taken_over_disturbs_the_other_no_more(tmp_path: Path) -> None:
    suspended = new_store(tmp_path)
    fill(suspended)
    taken_over = new_store(tmp_path)
    suspended.put({(7, 7): RECORDS[0, 1]})
    taken_over.put({(5, 5): RECORDS[2, 7]})
    suspended.close()
    taken_over.leave()
    with new_store(tmp_path) as last:
        assert len(last) == len(RECORDS) + 1
        assert np.array_equal(last.rows((5, 5), 0, 6), RECORDS[2, 7])


def test_the_disk_is_told_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    with new_store(tmp_path) as store:
        store.put({(0, 0): RECORDS[0, 1]})
        assert synced == []
        monkeypatch.setattr(module, "_SYNC_S", 0.0)
        store.put({(0, 1): RECORDS[0, 1]})
        assert len(synced) == 1
