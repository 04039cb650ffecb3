"""Some benchmarks run kernels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import kernels_anywhere as kernels_anywhere

if TYPE_CHECKING:  # the GPU tests run where pydantic is not installed
    from sshr_deploy.profiles import Profile


@pytest.fixture
def pids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the stand-in `hang` of `gpu_stand_ins` writes the numbers of its processes."""
    monkeypatch.setenv("PIDS", str(tmp_path / "pids"))
    return tmp_path / "pids"


@pytest.fixture(scope="session")
def own_checkpoint(
    tmp_path_factory: pytest.TempPathFactory, small_checkpoint: Path, profile: Profile
) -> Path:
    """`small_checkpoint` with its profile in the header, as training writes it."""
    from sshr_deploy.model.checkpoint import load_checkpoint, save_checkpoint

    path = tmp_path_factory.mktemp("own") / "own.safetensors"
    text = json.dumps(profile.model_dump(mode="json"))
    save_checkpoint(load_checkpoint(small_checkpoint), path, metadata={"profile": text})
    return path
