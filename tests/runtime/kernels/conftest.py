from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from sshr_deploy.benchmarks.measuring.gpu_timing import without_tf32
from tests.kernels_anywhere import DEVICE, torch

interpreter = pytest.importorskip("triton.runtime.interpreter")
MASK_PLACE = {"create_masked_load": 1, "create_masked_store": 2}
"""Where the mask is among the arguments of the interpreter's builder."""


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
def only_masks_of_booleans(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter of Triton 3.9 takes no others, that of 3.6 takes anything."""
    if DEVICE == "cuda":
        return
    builder = interpreter.InterpreterBuilder
    for name, place in MASK_PLACE.items():
        monkeypatch.setattr(builder, name, _with_checked_mask(getattr(builder, name), place))


def _with_checked_mask(original: Callable[..., Any], place: int) -> Callable[..., Any]:
    def checked(self: Any, *arguments: Any, **named: Any) -> Any:
        assert arguments[place].data.dtype == np.bool_
        return original(self, *arguments, **named)

    return checked


@pytest.fixture(autouse=True)
def no_tf32() -> Iterator[None]:
    """On a GPU, FP32 convolutions would have ten bits of mantissa by default."""
    with without_tf32():
        yield
