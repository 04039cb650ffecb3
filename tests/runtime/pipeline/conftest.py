from __future__ import annotations

from pathlib import Path

import pytest

from sshr_deploy.bundle import Bundle, load_bundle


@pytest.fixture(scope="module")
def bundle(small_bundle_dir: Path) -> Bundle:
    return load_bundle(small_bundle_dir)
