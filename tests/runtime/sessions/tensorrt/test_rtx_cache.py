"""What TensorRT-RTX compiled is kept beside the plan, and never trusted further than its hash."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from sshr_deploy.runtime.sessions.slots import SLOTS
from tests.runtime.session_contract import noise
from tests.runtime.sessions.fake_tensorrt_runtime import FakeRuntimeCache, FakeTensorRt
from tests.runtime.sessions.fake_tensorrt_session import Opener

SETTINGS = {"engine": "tensorrt-rtx", "library": "cuda-core"}


def _compiled(opener: Opener, trt: FakeTensorRt, cache: Path | None) -> list[int]:
    """Profiles that a session compiles which runs each of them."""
    trt.compiled.clear()
    with opener(**SETTINGS, runtime_cache=cache) as session:
        for count in (1, 2, 4) * SLOTS:
            assert len(session.infer(noise(count))) == count
    return sorted(set(trt.compiled))


def test_what_was_compiled_is_not_compiled_again(
    opener: Opener, trt: FakeTensorRt, tmp_path: Path
) -> None:
    cache = tmp_path / "store" / ".runtime-a.cache"
    assert _compiled(opener, trt, cache) == [0, 1, 2]
    assert _compiled(opener, trt, cache) == []
    assert _compiled(opener, trt, None) == [0, 1, 2]
    assert [path.name for path in cache.parent.iterdir()] == [cache.name]


def test_the_first_run_is_kept_though_the_session_is_never_closed(
    opener: Opener, trt: FakeTensorRt, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    opener(**SETTINGS, runtime_cache=cache)
    trt.compiled.clear()
    opener(**SETTINGS, runtime_cache=cache)
    assert trt.compiled == []


@pytest.mark.parametrize("damage", ["truncated", "changed", "empty", "a folder"])
def test_a_damaged_cache_is_made_anew(
    opener: Opener, trt: FakeTensorRt, tmp_path: Path, damage: str
) -> None:
    cache = tmp_path / "cache"
    _compiled(opener, trt, cache)
    whole = cache.read_bytes()
    if damage == "a folder":
        cache.unlink()
        cache.mkdir()
        assert _compiled(opener, trt, cache) == [0, 1, 2]  # it cannot be written, which is no error
        assert list(cache.iterdir()) == []
        return
    changed = {"truncated": whole[:-1], "changed": whole[:-1] + b"\x07", "empty": b""}
    cache.write_bytes(changed[damage])
    assert _compiled(opener, trt, cache) == [0, 1, 2]
    assert cache.read_bytes() == whole


def test_a_cache_that_the_library_refuses_is_made_anew(
    opener: Opener, trt: FakeTensorRt, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    _compiled(opener, trt, cache)
    trt.driver = "590"
    assert _compiled(opener, trt, cache) == [0, 1, 2]
    assert _compiled(opener, trt, cache) == []
    content = cache.read_bytes()
    assert hashlib.sha256(content[32:]).digest() == content[:32]


def _fail(*_: object) -> bytes:
    raise RuntimeError("invalid argument\nand more")


@pytest.mark.parametrize(
    ("method", "does", "said"),
    [
        ("create_runtime_cache", None, "the library makes none"),
        ("set_runtime_cache", None, "the library does not take it"),
        ("deserialize", _fail, "invalid argument"),
        ("serialize", _fail, "invalid argument"),
        ("serialize", lambda _: None, "the library does not give its content"),
    ],
)
def test_without_the_librarys_cache_the_session_works_and_says_so(
    opener: Opener,
    trt: FakeTensorRt,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    does: Callable[..., bytes | None] | None,
    said: str,
) -> None:
    cache = tmp_path / "cache"
    opener(**SETTINGS, runtime_cache=cache).close()
    whole = cache.read_bytes()
    if does is None:
        trt.refusing.add(method)
    else:
        monkeypatch.setattr(FakeRuntimeCache, method, does)
    with opener(**SETTINGS, runtime_cache=cache) as session:
        assert session.info.notes == (f"runtime cache {cache} is not used: {said}",)
        assert len(session.infer(noise(1))) == 1
    assert cache.read_bytes() == whole


@pytest.mark.parametrize("error", [RuntimeError("lost"), KeyboardInterrupt()])
def test_a_cache_that_fails_when_the_session_is_closed_keeps_nothing_on_the_gpu(
    opener: Opener,
    trt: FakeTensorRt,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
) -> None:
    def fail(_: FakeRuntimeCache) -> bytes:
        raise error

    session = opener(**SETTINGS, runtime_cache=tmp_path / "cache")
    monkeypatch.setattr(FakeRuntimeCache, "serialize", fail)
    is_stopped = isinstance(error, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt) if is_stopped else nullcontext():
        session.close()
    gc.collect()
    assert (trt.gpu.memory, trt.gpu.pinned, list(trt.living)) == ({}, {}, [])


def test_tensorrt_has_no_such_cache(opener: Opener, tmp_path: Path) -> None:
    with opener(engine="tensorrt", library="cuda-core") as session:
        assert len(session.infer(noise(1))) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["engine.plan"]
