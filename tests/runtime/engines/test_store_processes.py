"""Several builds for one store at the same time, and builds that were killed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from sshr_deploy.runtime.engines import store as engine_store
from sshr_deploy.runtime.engines.entry import Entry
from sshr_deploy.runtime.engines.key import EngineKey
from sshr_deploy.runtime.engines.store import EngineStore
from tests.runtime.engines.test_key import KEY
from tests.runtime.engines.test_store import PLAN, add, is_sound, left_in


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
    for turn in range(20):
        bundle = tmp_path / str(turn)
        one, other = _two_builds(bundle, lambda entry: entry.file("engine.plan").read_bytes())
        assert one == other
        assert is_sound(EngineStore(bundle))
        assert left_in(EngineStore(bundle)) == [KEY.slot]


def test_two_builds_that_end_together_replace_a_damaged_one(tmp_path: Path) -> None:
    for turn in range(20):
        bundle = tmp_path / str(turn)
        bundle.mkdir()
        add(EngineStore(bundle)).file("engine.plan").write_bytes(b"damaged")
        _two_builds(bundle, lambda _: None)
        assert is_sound(EngineStore(bundle))
        assert left_in(EngineStore(bundle)) == [KEY.slot]


def test_a_damaged_one_that_vanishes_while_it_is_looked_at_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The race of the test above, made certain: one replaces the folder while the other reads."""
    add(EngineStore(tmp_path)).file("engine.plan").write_bytes(b"damaged")
    both_read, never = threading.Barrier(2), threading.Event()
    read = EngineStore.find

    def slow_find(self: EngineStore, key: EngineKey) -> Entry | None:
        found = read(self, key)
        with suppress(threading.BrokenBarrierError):
            both_read.wait(0.3)  # without a lock both have seen the damaged one now
        return found

    def slow_replace(partial: Path, out: Path) -> None:
        out.rename(out.with_name(".aside"))
        never.wait(0.3)
        partial.rename(out)

    monkeypatch.setattr(EngineStore, "find", slow_find)
    monkeypatch.setattr(engine_store, "replace_folder", slow_replace)
    plans = [b"a" * 900, b"b" * 900]
    with ThreadPoolExecutor(2) as pool:
        entries = list(pool.map(lambda plan: add(EngineStore(tmp_path), plan=plan), plans))
    contents = {entry.file("engine.plan").read_bytes() for entry in entries}
    assert len(contents) == 1 and contents < set(plans)


_RACER = """
import sys, time
from pathlib import Path
from tests.runtime.engines.test_store import add
from sshr_deploy.runtime.engines.store import EngineStore

folder, me, other, turns = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
for turn in range(turns):
    bundle = folder / str(turn)
    def meet():
        (bundle / me).touch()
        deadline = time.monotonic() + 60
        while not (bundle / other).exists():
            assert time.monotonic() < deadline, "the other process has ended"
            time.sleep(0)
    plan = add(EngineStore(bundle), plan=me.encode() * 900, then=meet).file("engine.plan")
    print(plan.read_bytes()[:1].decode(), end="")
"""


def test_two_processes_that_end_together_replace_a_damaged_one(
    tmp_path: Path, repo_root: Path
) -> None:
    turns = 20
    for turn in range(turns):
        (tmp_path / str(turn)).mkdir()
        add(EngineStore(tmp_path / str(turn))).file("engine.plan").write_bytes(b"damaged")
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", _RACER, str(tmp_path), *names, str(turns)],
            cwd=repo_root,
            stdout=subprocess.PIPE,
            text=True,
        )
        for names in ("ab", "ba")
    ]
    used = [racer.communicate(timeout=120)[0] for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0]
    assert used[0] == used[1] and len(used[0]) == turns
    for turn in range(turns):
        assert is_sound(EngineStore(tmp_path / str(turn)))


_KILLED = """
import os, sys
from pathlib import Path
from sshr_deploy.runtime.engines.key import EngineKey
from sshr_deploy.runtime.engines.store import EngineStore

with EngineStore(Path(sys.argv[1])).draft(EngineKey(**eval(sys.argv[2]))) as draft:
    (draft.folder / "engine.plan").write_bytes(b"half")
    (draft.folder / "cache").mkdir()
    (draft.folder / "cache" / "times").write_bytes(b"more")
    os._exit(9)
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
    assert left_in(store) == [entry.path.name]


def test_what_is_being_built_stays(store: EngineStore) -> None:
    assert add(store, then=store.remove_abandoned).file("engine.plan").read_bytes() == PLAN
