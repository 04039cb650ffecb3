"""How work that takes a while says what it does."""

from __future__ import annotations

import time
from collections.abc import Callable

OnStep = Callable[[str], None]
"""Told in a few words what is being done."""


def tell_nobody(_: str) -> None:
    """An `OnStep` for those who need not know."""


class Sparse:
    """Passes a line on only where some seconds have gone since the last that it passed on."""

    def __init__(self, on_step: OnStep, every_s: float = 5.0) -> None:
        self._on_step, self._every_s = on_step, every_s
        self._said = time.monotonic()

    def __call__(self, text: str) -> None:
        """Say it, or not."""
        if time.monotonic() - self._said >= self._every_s:
            self._said = time.monotonic()
            self._on_step(text)
