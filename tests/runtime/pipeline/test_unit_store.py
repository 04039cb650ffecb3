from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sshr_deploy.errors import OutputError
from sshr_deploy.runtime.pipeline.file_names import UNFINISHED_NAME
from sshr_deploy.runtime.pipeline.unit_store import UnitStore

SHAPES = [(6, 4, 5), (6, 4, 5), (6, 2, 1)]
RECORDS = {
    unit: np.random.default_rng(sum(unit)).random(shape).astype(np.float16)
    for unit, shape in zip([(2, 7), (0, 1), (9, 9, 2, 4)], SHAPES, strict=True)
}


def new_store(folder: Path, key: str = "k") -> UnitStore:
    return UnitStore(folder, np.float16, key)


def fill(store: UnitStore) -> None:
    for unit, record in RECORDS.items():
        store.put(unit, record)


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
    store.keep()
    assert [path.name for path in tmp_path.iterdir()] == [UNFINISHED_NAME]
    again = new_store(tmp_path)
    assert not (tmp_path / UNFINISHED_NAME).exists(), "no other process may take it too"
    again.put((5, 5), RECORDS[0, 1])
    again.keep()
    with new_store(tmp_path) as last:
        for unit, record in {**RECORDS, (5, 5): RECORDS[0, 1]}.items():
            assert np.array_equal(last.rows(unit, 0, 6), record)
    assert list(tmp_path.iterdir()) == []


def test_a_put_that_was_interrupted_does_not_count(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    fill(store)
    store._file.write(b"half a record")
    store.keep()
    with new_store(tmp_path) as again:
        assert len(again) == len(RECORDS)
        assert np.array_equal(again.rows((9, 9, 2, 4), 0, 6), RECORDS[9, 9, 2, 4])


def test_nothing_is_kept_of_nothing(tmp_path: Path) -> None:
    new_store(tmp_path).keep()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "damage", ["key", "cut", "grown", "empty", "text", "type", "zeroed", "deep", "endless"]
)
def test_what_does_not_fit_is_deleted(tmp_path: Path, damage: str) -> None:
    store = new_store(tmp_path)
    fill(store)
    store.keep()
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
            kept.write_bytes(b"no index" + (8).to_bytes(8, "little"))
        case "zeroed":  # by a power cut: the right size, not the content
            kept.write_bytes(bytes(64) + content[64:])
        case "deep":
            kept.write_bytes(b"[" * 200_000 + (200_000).to_bytes(8, "little"))
        case "endless":
            index = b'{"key": "k", "units": [[[Infinity, 0], [1], 0]]}'
            kept.write_bytes(index + len(index).to_bytes(8, "little"))
    dtype = np.uint8 if damage == "type" else np.float16
    with UnitStore(tmp_path, dtype, "other" if damage == "key" else "k") as again:
        assert len(again) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_folder_by_the_name_of_the_kept_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / UNFINISHED_NAME).mkdir()
    store = new_store(tmp_path)
    fill(store)
    store.keep()
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
            store.put((0, column), np.zeros((224, 224), np.uint8))
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
