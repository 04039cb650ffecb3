"""Several builds for one store at the same time, and builds that were killed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from sshr_deploy.runtime.engine_store import EngineStore, Entry
from tests.runtime.test_engine_key import KEY
from tests.runtime.test_engine_store import PLAN, add, is_sound


@pytest.fixture
def store(tmp_path: Path) -> EngineStore:
    return EngineStore(tmp_path)


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
        assert is_sound(EngineStore(bundle))
        assert [p.name for p in (bundle / "engines").iterdir()] == [KEY.slot]


def test_two_builds_that_end_together_replace_a_damaged_one(tmp_path: Path) -> None:
    for turn in range(60):
        bundle = tmp_path / str(turn)
        bundle.mkdir()
        add(EngineStore(bundle)).file("engine.plan").write_bytes(b"damaged")
        _two_builds(bundle, lambda _: None)
        assert is_sound(EngineStore(bundle))
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
