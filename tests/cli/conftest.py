from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cli.command import signals_kept


@pytest.fixture(autouse=True)
def _same_signals() -> Iterator[None]:
    with signals_kept():
        yield
