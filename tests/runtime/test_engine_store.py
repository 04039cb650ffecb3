from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from sshr_deploy.atomic import partial_name
from sshr_deploy.bundle import sealed_json
from sshr_deploy.errors import BundleError
from sshr_deploy.manifest import FileEntry, Qualification
from sshr_deploy.runtime.engine_key import EngineKey
from sshr_deploy.runtime.engine_store import RECORD_NAME, EngineStore, Entry, Record
from tests.runtime.test_engine_key import KEY

PLAN = b"an engine of sixteen kilobytes" * 500
QUALIFICATION = Qualification(
    reference="r",
    engine="e",
    device="d",
    patches=1,
    source="s",
    cam_relative_error={},
    prob_max_abs_error=0,
    gates_equal=True,
    gate_agreement=1,
    mask_agreement=1,
    mask_agreement_worst=1,
)


@pytest.fixture
def store(tmp_path: Path) -> EngineStore:
    return EngineStore(tmp_path)


def add(
    store: EngineStore,
    key: EngineKey = KEY,
    plan: bytes = PLAN,
    then: Callable[[], object] = lambda: None,
) -> Entry:
    """Write an entry; `then` is called when the engine is built."""

    def make(folder: Path) -> Callable[[dict[str, FileEntry]], Record]:
        (folder / "engine.plan").write_bytes(plan)
        then()
        return lambda files: Record(
            schema_version=1,
            key=asdict(key),
            created_utc="2026-11-24T00:00:00+00:00",
            files=files,
            build={"seconds": 1.5},
            qualification=QUALIFICATION,
        )

    return store.write(key, make)[0]


def _sound(store: EngineStore, key: EngineKey = KEY) -> bool:
    entry = store.find(key)
    return entry is not None and entry.damage is None


def test_what_is_written_is_found_by_exactly_its_key(store: EngineStore) -> None:
    add(store)
    entry = store.find(KEY)
    assert entry is not None and entry.record is not None and entry.damage is None
    assert entry.key == KEY
    assert entry.file("engine.plan").read_bytes() == PLAN
    assert entry.record.build == {"seconds": 1.5}
    assert store.find(replace(KEY, driver="581.15")) is None


def test_the_nearest_of_the_same_engine_and_precision_is_told(store: EngineStore) -> None:
    add(store, replace(KEY, driver="570.1", device="another", sm=75))
    add(store, replace(KEY, driver="570.1"))
    add(store, replace(KEY, precision="int8"))
    nearest = store.nearest(replace(KEY, driver="590.1"))
    assert nearest is not None and nearest.key == replace(KEY, driver="570.1")
    assert store.nearest(replace(KEY, engine="tensorrt")) is None


@pytest.mark.parametrize("place", [0, 7000, -1])
def test_one_changed_byte_of_an_engine_is_damage(store: EngineStore, place: int) -> None:
    path = add(store).file("engine.plan")
    content = bytearray(PLAN)
    content[place] ^= 1
    path.write_bytes(content)
    entry = store.find(KEY)
    assert entry is not None and "engine.plan was changed" in str(entry.damage)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda p: p.write_bytes(PLAN[:-1]), r"engine\.plan has 14999 bytes"),
        (lambda p: p.unlink(), r"engine\.plan is missing"),
        (lambda p: (p.unlink(), p.mkdir()), r"engine\.plan is not a file"),
    ],
)
def test_truncated_and_missing_engines_are_damage(
    store: EngineStore, change: Callable[[Path], Any], told: str
) -> None:
    change(add(store).file("engine.plan"))
    entry = store.find(KEY)
    assert entry is not None and entry.damage is not None
    assert re.search(told, entry.damage)


def test_every_byte_of_a_record_counts(store: EngineStore) -> None:
    file = add(store).file(RECORD_NAME)
    whole = file.read_bytes()
    tried = 0
    for place in range(0, len(whole), 23):
        if whole[place : place + 1].isspace():
            continue
        changed = bytearray(whole)
        changed[place] ^= 1
        file.write_bytes(changed)
        assert not _sound(store), place
        tried += 1
    assert tried > 30
    file.write_bytes(whole)
    assert _sound(store)


def _rewritten(entry: Entry, **changes: Any) -> None:
    """Change the record as somebody would who knows how it is sealed."""
    file = entry.file(RECORD_NAME)
    content = json.loads(file.read_text())
    content.pop("self_sha256")
    file.write_text(sealed_json({**content, **changes}))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"schema_version": 2}, "schema that this release does not know"),
        ({"schema_version": None}, "schema that this release does not know"),
        ({"surprise": 1}, "surprise"),
        ({"key": asdict(replace(KEY, sm=90))}, "belongs to another folder"),
        ({"key": {"engine": "x"}}, "precision|Field required"),
        ({"files": {"../secret": {"bytes": 1, "sha256": "0" * 64}}}, "files"),
        ({"files": {"engine.plan": {"bytes": -1, "sha256": "0" * 64}}}, "bytes"),
    ],
)
def test_records_that_cannot_be_ours_are_damage(
    store: EngineStore, changes: dict[str, Any], told: str
) -> None:
    _rewritten(add(store), **changes)
    entry = store.find(KEY)
    assert entry is not None and entry.damage is not None
    assert re.search(told, entry.damage)
    assert "\n" not in entry.damage
    assert [e.damage is None for e in store.entries()] == [False]


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000])
def test_files_that_are_no_record_are_damage(store: EngineStore, text: str) -> None:
    add(store).file(RECORD_NAME).write_text(text)
    assert not _sound(store)


def test_a_failed_build_leaves_nothing_and_the_old_one_stays(store: EngineStore) -> None:
    def fail(folder: Path) -> Callable[[dict[str, FileEntry]], Record]:
        (folder / "engine.plan").write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.write(KEY, fail)
    assert list(store.folder.iterdir()) == []
    add(store)
    with pytest.raises(KeyboardInterrupt):
        store.write(KEY, fail)
    assert _sound(store)
    assert len(list(store.folder.iterdir())) == 1


def test_a_new_engine_replaces_a_damaged_one(store: EngineStore) -> None:
    add(store).file("engine.plan").unlink()
    add(store)
    assert _sound(store)


def test_a_sound_engine_is_kept(store: EngineStore) -> None:
    add(store)
    assert add(store, plan=b"another").file("engine.plan").read_bytes() == PLAN
    assert [p.name for p in store.folder.iterdir()] == [KEY.slot]


def _two_builds(bundle: Path, use: Callable[[Entry], bytes | None]) -> list[bytes | None]:
    """What `use` says of the entries of two builds that end at the same time."""
    bundle.mkdir(exist_ok=True)
    built = threading.Barrier(2, timeout=60)

    def build(plan: bytes) -> bytes | None:
        return use(add(EngineStore(bundle), plan=plan, then=built.wait))

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(build, [b"a" * 9000, b"b" * 9000]))


def test_of_two_builds_that_end_together_both_use_the_first(tmp_path: Path) -> None:
    for turn in range(60):
        bundle = tmp_path / str(turn)
        one, other = _two_builds(bundle, lambda entry: entry.file("engine.plan").read_bytes())
        assert one == other
        assert _sound(EngineStore(bundle))
        assert [p.name for p in (bundle / "engines").iterdir()] == [KEY.slot]


def test_two_builds_that_end_together_replace_a_damaged_one(tmp_path: Path) -> None:
    for turn in range(60):
        bundle = tmp_path / str(turn)
        bundle.mkdir()
        add(EngineStore(bundle)).file("engine.plan").write_bytes(b"damaged")
        _two_builds(bundle, lambda _: None)
        assert _sound(EngineStore(bundle))
        assert [p.name for p in (bundle / "engines").iterdir()] == [KEY.slot]


_KILLED = """
import os, sys
from pathlib import Path
from sshr_deploy.runtime.engine_key import EngineKey
from sshr_deploy.runtime.engine_store import EngineStore

def make(folder):
    (folder / "engine.plan").write_bytes(b"half")
    (folder / "cache").mkdir()
    (folder / "cache" / "times").write_bytes(b"more")
    os._exit(9)

EngineStore(Path(sys.argv[1])).write(EngineKey(**eval(sys.argv[2])), make)
"""


def _killed_build(bundle: Path) -> None:
    done = subprocess.run([sys.executable, "-c", _KILLED, str(bundle), repr(asdict(KEY))])
    assert done.returncode == 9


@pytest.mark.skipif(os.name == "nt", reason="there it takes a day to tell that nobody writes")
def test_what_a_killed_build_left_is_ours_and_goes(store: EngineStore, tmp_path: Path) -> None:
    _killed_build(tmp_path)
    assert len(list(store.folder.rglob("*"))) == 4
    assert store.names() == {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")}
    assert store.remove_abandoned() == 8
    _killed_build(tmp_path)
    entry = add(store, replace(KEY, driver="581.15"))
    assert list(store.folder.iterdir()) == [entry.path]


def test_what_is_being_built_stays(store: EngineStore) -> None:
    assert add(store, then=store.remove_abandoned).file("engine.plan").read_bytes() == PLAN


def test_removal_frees_bytes_and_spares_what_is_not_ours(store: EngineStore) -> None:
    entry = add(store)
    assert store.remove(entry) > len(PLAN)
    assert store.find(KEY) is None
    entry = add(store)
    (entry.path / "notes.txt").write_text("mine")
    with pytest.raises(BundleError, match=r"holds notes\.txt"):
        store.remove(entry)
    assert (entry.path / "notes.txt").read_text() == "mine"
    (store.folder / "mine").mkdir()
    (other,) = (e for e in store.entries() if e.path.name == "mine")
    with pytest.raises(BundleError, match="no engine of ours"):
        store.remove(other)


def _names(bundle: Path) -> set[str]:
    return {p.relative_to(bundle).as_posix() for p in bundle.rglob("*")}


def test_names_are_those_of_the_files(store: EngineStore, tmp_path: Path) -> None:
    entry = add(store)
    cache = store.timing_cache(KEY)
    cache.write_bytes(b"times")
    cache.with_name(partial_name(cache.name)).write_bytes(b"half")
    ours = _names(tmp_path)
    assert len(ours) == 6
    for mine in (entry.path / "notes.txt", store.folder / "mine" / "engine.plan"):
        mine.parent.mkdir(exist_ok=True)
        mine.write_text("mine")
    (store.folder / ".mine.partial").mkdir()
    assert store.names() == ours
    assert store.remove_caches() == 5
    assert not cache.exists()


@pytest.mark.parametrize("text", ["{", "[]", "\0" * (5 << 20)])
def test_damaged_entries_are_ours_and_can_be_removed(
    store: EngineStore, tmp_path: Path, text: str
) -> None:
    add(store).file(RECORD_NAME).write_text(text)
    assert store.names() == _names(tmp_path)
    (entry,) = store.entries()
    (entry.path / "notes.txt").write_text("mine")
    assert store.names() == _names(tmp_path) - {f"engines/{KEY.slot}/notes.txt"}
    with pytest.raises(BundleError, match=r"holds notes\.txt"):
        store.remove(entry)
    (entry.path / "notes.txt").unlink()
    assert store.remove(entry) == len(PLAN) + len(text)
    assert list(store.folder.iterdir()) == []


def test_entries_of_another_schema_are_ours(store: EngineStore, tmp_path: Path) -> None:
    entry = add(store)
    (entry.path / "weights.bin").write_bytes(b"x")
    _rewritten(entry, schema_version=2, files={"weights.bin": "another form", "/etc/x": None})
    assert _names(tmp_path) < store.names()
    assert store.remove(store.entries()[0]) > len(PLAN)
