from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kernels_anywhere import DEVICE, torch

pytest.importorskip("triton")


@pytest.fixture(scope="session")
def device() -> str:
    return DEVICE


@pytest.fixture(autouse=True)
def poisoned_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """New memory holds NaN, or 77 where there is none: an element that nobody wrote shows."""
    for name in ("empty", "empty_like"):
        original = getattr(torch, name)

        def poisoned(*args, _original=original, **kwargs):  # type: ignore[no-untyped-def]
            out = _original(*args, **kwargs)
            return out.fill_(float("nan") if out.is_floating_point() else 77)

        monkeypatch.setattr(torch, name, poisoned)
    yield
