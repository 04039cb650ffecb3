from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # the GPU tests run where pydantic is not installed
    from tests.runtime.running import Runner


@pytest.fixture(scope="module")
def infer(small_bundle_dir: Path) -> Iterator[Runner]:
    from sshr_deploy.bundle import load_bundle
    from sshr_deploy.runtime.engines.choosing import open_session
    from tests.runtime.running import Runner

    bundle = load_bundle(small_bundle_dir)
    with open_session(bundle, "onnx-cpu") as session:
        yield Runner(bundle, session)


@pytest.fixture
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before
