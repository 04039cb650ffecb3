from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from sshr_deploy.atomic import partial_name
from sshr_deploy.bundle import sealed_json
from sshr_deploy.errors import BundleError
from sshr_deploy.manifest import Qualification
from sshr_deploy.runtime.engines.entry import RECORD_NAME, Entry
from sshr_deploy.runtime.engines.key import EngineKey
from sshr_deploy.runtime.engines.store import EngineStore
from tests.runtime.engines.test_key import KEY

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

    with store.draft(key) as draft:
        (draft.folder / "engine.plan").write_bytes(plan)
        then()
        return draft.commit({"seconds": 1.5}, QUALIFICATION)[0]


def left_in(store: EngineStore) -> list[str]:
    """Names in the store, without the lock's file."""
    return sorted(p.name for p in store.folder.iterdir() if p.name != ".renames.lock")


def is_sound(store: EngineStore, key: EngineKey = KEY) -> bool:
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
        assert not is_sound(store), place
        tried += 1
    assert tried > 30
    file.write_bytes(whole)
    assert is_sound(store)


def _rewritten(entry: Entry, **changes: Any) -> None:
    """Change the record as somebody would who knows how it is sealed."""
    file = entry.file(RECORD_NAME)
    content = json.loads(file.read_text())
    content.pop("self_sha256")
    file.write_text(sealed_json({**content, **changes}))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"schema_version": 1}, "schema that this release does not know"),
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
    assert not is_sound(store)


def test_a_failed_build_leaves_nothing_and_the_old_one_stays(store: EngineStore) -> None:
    def fail() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        add(store, then=fail)
    assert left_in(store) == []
    add(store)
    with pytest.raises(KeyboardInterrupt):
        add(store, then=fail)
    assert is_sound(store)
    assert left_in(store) == [KEY.slot]


def test_a_new_engine_replaces_a_damaged_one(store: EngineStore) -> None:
    add(store).file("engine.plan").unlink()
    add(store)
    assert is_sound(store)


def test_a_sound_engine_is_kept(store: EngineStore) -> None:
    add(store)
    assert add(store, plan=b"another").file("engine.plan").read_bytes() == PLAN
    assert left_in(store) == [KEY.slot]


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
    assert len(ours) == 7
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
    assert left_in(store) == []


def test_removal_spares_what_took_the_place_of_an_entry(store: EngineStore) -> None:
    add(store).file("engine.plan").unlink()
    (damaged,) = store.entries()
    add(store)
    assert store.remove(damaged) == 0
    assert is_sound(store)


def test_entries_of_another_schema_are_ours(store: EngineStore, tmp_path: Path) -> None:
    entry = add(store)
    (entry.path / "weights.bin").write_bytes(b"x")
    _rewritten(entry, schema_version=1, files={"weights.bin": "another form", "/etc/x": None})
    assert _names(tmp_path) < store.names()
    assert store.remove(store.entries()[0]) > len(PLAN)


def test_a_new_engine_never_replaces_what_a_user_keeps_in_the_folder(store: EngineStore) -> None:
    entry = add(store)
    entry.file(RECORD_NAME).write_text("{}")
    (entry.path / "d").mkdir()
    (entry.path / "d" / "thesis.docx").write_text("mine")
    with pytest.raises(OSError, match=r"holds d"):
        add(store)
    assert (entry.path / "d" / "thesis.docx").read_text() == "mine"


@pytest.mark.skipif(os.name == "nt", reason="pipes and devices")
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_record_that_is_no_file_is_damage_at_once(store: EngineStore, kind: str) -> None:
    file = add(store).file(RECORD_NAME)
    file.unlink()
    if kind == "pipe":
        os.mkfifo(file)
    else:
        file.symlink_to("/dev/zero")
    entry = store.find(KEY)
    assert entry is not None and "not a regular file" in str(entry.damage)


def test_a_runtime_cache_belongs_to_its_entry_and_may_change(store: EngineStore) -> None:
    other = replace(KEY, driver="581.15")
    entry, second = add(store), add(store, other)
    caches = [store.runtime_cache(key) for key in (KEY, other)]
    for size, cache in enumerate(caches, 3):
        cache.write_bytes(b"x" * size)
    assert store.names() >= {f"engines/{cache.name}" for cache in caches}
    caches[0].write_bytes(b"grown")
    assert [e.damage for e in store.entries()] == [None, None]
    assert store.remove(entry) > len(PLAN)
    assert [cache.exists() for cache in caches] == [False, True]
    assert [e.path for e in store.entries()] == [second.path]
    assert store.remove_caches() == 4
    assert not caches[1].exists()
