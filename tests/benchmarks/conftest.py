"""Some benchmarks run kernels."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import kernels_anywhere as kernels_anywhere


@pytest.fixture
def pids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the stand-in `hang` of `stand_ins` writes the numbers of its processes."""
    monkeypatch.setenv("PIDS", str(tmp_path / "pids"))
    return tmp_path / "pids"
