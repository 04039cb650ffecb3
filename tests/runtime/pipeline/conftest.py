from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sshr_deploy.bundle import Bundle, load_bundle


@pytest.fixture(scope="module")
def bundle(small_bundle_dir: Path) -> Bundle:
    return load_bundle(small_bundle_dir)


@pytest.fixture
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before
