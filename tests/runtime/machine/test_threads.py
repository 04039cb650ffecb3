"""How many threads are chosen, and that they reach the libraries."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest

from sshr_deploy.errors import UsageError
from sshr_deploy.runtime.engines.choosing import open_session
from sshr_deploy.runtime.machine import threads
from sshr_deploy.runtime.machine.threads import (
    Threads,
    choose_streams,
    choose_threads,
    usable_cores,
    use_threads,
)
from sshr_deploy.runtime.settings import OpenOptions


@pytest.fixture
def sixteen_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "usable_cores", lambda: 16)


@pytest.fixture
def libraries_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    torch = pytest.importorskip("torch")
    before = cv2.getNumThreads(), torch.get_num_threads()
    monkeypatch.setattr(threads, "_in_use", None)
    yield
    cv2.setNumThreads(before[0])
    torch.set_num_threads(before[1])


@pytest.mark.parametrize(
    ("width", "count"), [(1, 1), (2, 1), (4, 1), (8, 2), (16, 8), (32, 16), (64, 16)]
)
@pytest.mark.usefixtures("sixteen_cores")
def test_narrow_networks_get_few_threads(width: int, count: int) -> None:
    assert choose_threads(width) == Threads(count, f"width {width}, 16 cores")


@pytest.mark.usefixtures("sixteen_cores")
def test_the_wish_comes_first_then_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert str(choose_threads(8)) == "2 CPU threads (width 8, 16 cores)"
    monkeypatch.setenv("OMP_NUM_THREADS", "3,2")
    assert choose_threads(64) == Threads(3, "OMP_NUM_THREADS")
    assert str(choose_threads(64, 1)) == "1 CPU thread (--threads)"
    assert choose_threads(64, 40).count == 40
    for wrong in ("many", "0", "-1", "5000"):
        monkeypatch.setenv("OMP_NUM_THREADS", wrong)
        with pytest.raises(UsageError, match=f"OMP_NUM_THREADS={wrong}: set a number from 1"):
            choose_threads(64)


@pytest.mark.usefixtures("sixteen_cores")
def test_processes_share_the_cores() -> None:
    assert choose_threads(64, processes=4).count == 4
    assert choose_threads(64, processes=40).count == 1


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux alone binds so")
def test_cores_are_those_that_the_process_is_bound_to() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("100000 100000", 1), ("150000 100000", 2), ("20000 100000", 1), ("max 100000", 64), ("", 64)],
)
def test_a_containers_share_counts(
    quota: str, cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    old = tmp_path / "cpu.cfs_quota_us"
    monkeypatch.setattr(threads, "_CGROUP_QUOTAS", (tmp_path / "cpu.max", old))
    assert usable_cores() == 64, "no such files"
    if quota and "max" not in quota:  # version 1
        old.write_text(quota.split()[0])
        (tmp_path / "cpu.cfs_period_us").write_text("100000\n")
        assert usable_cores() == cores
    (tmp_path / "cpu.max").write_text(f"{quota}\n")
    assert usable_cores() == cores


@pytest.mark.usefixtures("libraries_as_before")
def test_they_reach_opencv_pytorch_and_the_session(
    small_bundle_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime
    import torch

    from sshr_deploy.bundle import load_bundle

    asked: list[tuple[int, str]] = []
    real = onnxruntime.InferenceSession

    def watched(*args: object, sess_options: onnxruntime.SessionOptions, **more: object) -> object:
        spinning = sess_options.get_session_config_entry("session.intra_op.allow_spinning")
        asked.append((sess_options.intra_op_num_threads, spinning))
        return real(*args, sess_options=sess_options, **more)

    monkeypatch.setattr(onnxruntime, "InferenceSession", watched)
    bundle = load_bundle(small_bundle_dir)
    one_call = OpenOptions(streams=1)
    with open_session(bundle, "onnx-cpu", one_call) as session:
        assert session.info.threads is None, "the library chooses where nobody has"
    for count in (2, 3):
        use_threads(Threads(count, "--threads"))
        assert (cv2.getNumThreads(), torch.get_num_threads()) == (count, count)
        with open_session(bundle, "onnx-cpu", one_call) as session:
            assert session.info.threads == count
    assert set(asked) == {(0, "0"), (2, "0"), (3, "0")}
    use_threads(Threads(4, "--threads"))
    for wish, streams in ((None, 4), (2, 2), (3, 3)):
        asked.clear()
        with open_session(bundle, "onnx-cpu", OpenOptions(streams=wish)) as session:
            assert (session.info.threads, session.info.streams) == (4, streams)
        assert set(asked) == {(4 // streams, "0")}, "they share the threads"


def test_calls_beside_each_other_are_for_patches_of_narrow_networks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(threads, "_in_use", None)
    monkeypatch.setattr(threads, "usable_cores", lambda: 8)
    assert choose_streams(None, 8, patches=True) == 1, "the library chooses its threads"
    assert choose_streams(8, 8, patches=True) == 8
    monkeypatch.setattr(threads, "_in_use", Threads(2, "--threads"))
    assert choose_streams(None, 8, patches=True) == 2
    assert choose_streams(None, 8, patches=False) == 1
    assert choose_streams(None, 64, patches=True) == 1
    assert choose_streams(2, 64, patches=False) == 2, "a wish is taken"
    with pytest.raises(UsageError, match=r"`streams` is 3, each needs .* there are 2; give fewer"):
        choose_streams(3, 64, patches=False)
