from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from sshr_deploy.benchmarks.roofline.copies import Copy, last_level_bytes


def test_each_last_level_cache_of_the_usable_cores_counts_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for cpu, sharing in {0: "0-1", 1: "0-1", 2: "2-3", 3: "2-3"}.items():
        _cache(tmp_path, cpu, 0, "1", "32K", str(cpu))
        _cache(tmp_path, cpu, 3, "3", "16384K", sharing)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)

    assert last_level_bytes(tmp_path) == 2 * 16384 * 1024


def test_a_system_that_tells_no_cache(tmp_path: Path) -> None:
    assert last_level_bytes(tmp_path) is None


@pytest.mark.parametrize("threads", [1, 3])
def test_a_copy_copies_all_of_it(threads: int) -> None:
    with ThreadPoolExecutor(threads) as pool:
        copy = Copy(pool, threads, 6000)
        copy()

    assert all(np.array_equal(source, target) for source, target in copy.buffers)
    moved = sum(source.nbytes + target.nbytes for source, target in copy.buffers) * copy.repeats
    assert copy.moved_bytes == moved >= 60e6


def _cache(cpus: Path, cpu: int, index: int, level: str, size: str, shared: str) -> None:
    folder = cpus / f"cpu{cpu}" / "cache" / f"index{index}"
    folder.mkdir(parents=True)
    for name, text in {"level": level, "size": size, "shared_cpu_list": shared}.items():
        (folder / name).write_text(f"{text}\n")
