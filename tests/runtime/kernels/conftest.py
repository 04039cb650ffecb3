from __future__ import annotations

from collections.abc import Iterator

import pytest

from sshr_deploy.benchmarks.gpu_timing import without_tf32
from tests.kernels_anywhere import DEVICE, torch

pytest.importorskip("triton")


@pytest.fixture(scope="session")
def device() -> str:
    return DEVICE


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    """New memory holds NaN, or the largest integer: an element that nobody wrote shows."""
    assert torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def no_tf32() -> Iterator[None]:
    """On a GPU, FP32 convolutions would have ten bits of mantissa by default."""
    with without_tf32():
        yield
