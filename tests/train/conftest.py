from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from sshr_deploy.train.demo_dataset import write_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("textures")
    write_dataset(folder, training=13, split=2)
    return folder


@pytest.fixture
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs draw nothing at their end, which takes longer than a tiny run itself."""
    monkeypatch.setattr("sshr_deploy.train.run._draw", lambda *_: None)
