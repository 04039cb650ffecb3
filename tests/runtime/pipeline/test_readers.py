"""How many threads read, chosen by the first units of a run."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from sshr_deploy.runtime.pipeline import readers as readers_module
from sshr_deploy.runtime.pipeline.readers import Readers


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers_module, "usable_cores", lambda: 8)


@pytest.mark.parametrize(
    ("read_ms", "engine_ms", "count"), [(40, 10, 5), (40, 1000, 2), (40, 0.001, 8), (40, 40, 2)]
)
def test_as_many_as_keep_up_with_the_engine(read_ms: float, engine_ms: float, count: int) -> None:
    with Readers() as readers:
        readers.computed(4, 99.0, read_ms / 1e3)  # the first call of an engine says nothing
        for _ in range(3):
            assert (readers.count, readers.chosen_by[:3]) == (2, "too")
            readers.computed(4, 4 * engine_ms / 1e3, read_ms / 1e3)
        assert readers.count == count
        assert readers.chosen_by.startswith("40 ms to read and ")
        assert readers.chosen_by.endswith(" ms to compute a unit, 8 cores")
        readers.computed(4, 99.0, 99.0)
        assert readers.count == count, "chosen once"


def test_a_wish_is_kept() -> None:
    with Readers(3) as readers:
        for _ in range(9):
            readers.computed(4, 0.0, 1.0)
        assert (readers.count, readers.chosen_by) == (3, "`readers`")


def test_so_many_read_at_once_and_what_was_asked_for_before_is_read() -> None:
    both = threading.Barrier(5, timeout=20)

    def read(unit: int) -> np.ndarray:
        if unit > 1:
            both.wait()
        return np.full((1, 1, 3), unit, np.uint8)

    with Readers() as readers:
        early = [readers.submit(read, unit) for unit in (0, 1)]
        for _ in range(4):
            readers.computed(4, 0.04, 0.04)
        late = [readers.submit(read, unit) for unit in range(2, 7)]
        assert [int(f.result().max()) for f in (*early, *late)] == list(range(7))
    assert not [t for t in threading.enumerate() if t.name.startswith("read")]
