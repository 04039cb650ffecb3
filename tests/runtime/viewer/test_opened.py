"""How many inputs are open, and when they are closed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from sshr_deploy.runtime.viewer import opened as module
from sshr_deploy.runtime.viewer.catalogue import Catalogue, Entry
from sshr_deploy.runtime.viewer.opened import OpenInputs
from sshr_deploy.runtime.viewer.workers import TooBusyError, Workers


class Traced:
    """An input that counts; `open_now` holds those that are open."""

    open_now: list[Traced]

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.open_now.append(self)

    @classmethod
    def numbers(cls) -> list[int]:
        return [one.entry.id for one in cls.open_now]

    def close(self) -> None:
        self.open_now.remove(self)  # fails where it is closed twice


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Traced]]:
    Traced.open_now = []
    monkeypatch.setattr(module, "OpenInput", Traced)
    yield Traced
    assert not Traced.open_now


@pytest.fixture(scope="module")
def entries(results: Path) -> list[Entry]:
    return list(Catalogue(results).entries())


def test_the_latest_stay_open(traced: type[Traced], entries: list[Entry]) -> None:
    with OpenInputs(most=2) as inputs:
        for entry in (*entries[:3], entries[1]):
            with inputs.use(entry):
                assert len(traced.open_now) <= 3  # one more while it is used
        assert sorted(traced.numbers()) == sorted(e.id for e in entries[1:3])


def test_what_is_used_stays_open(traced: type[Traced], entries: list[Entry]) -> None:
    with OpenInputs(most=1) as inputs, inputs.use(entries[0]):
        for entry in entries[1:]:
            with inputs.use(entry):
                pass
        assert entries[0].id in traced.numbers()


def test_threads_share_one(traced: type[Traced], entries: list[Entry]) -> None:
    gate = threading.Barrier(8)

    def read() -> None:
        gate.wait()
        with inputs.use(entries[0]):
            pass

    with OpenInputs() as inputs:
        threads = [threading.Thread(target=read) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(traced.open_now) == 1


def test_a_forgotten_one_closes_after_its_last_user(
    traced: type[Traced], entries: list[Entry]
) -> None:
    with OpenInputs() as inputs:
        with inputs.use(entries[0]) as first, inputs.use(entries[0]):
            inputs.forget(entries[0])
            assert traced.numbers() == [entries[0].id]
        assert not traced.open_now
        with inputs.use(entries[0]) as second:
            assert second is not first


async def _here() -> bool:
    return False


async def _gone() -> bool:
    return True


def test_workers_refuse_what_they_cannot_keep() -> None:
    gate = threading.Event()
    answers: list[str] = []

    async def ask(workers: Workers) -> None:
        try:
            await workers.run(gate.wait, _here)
            answers.append("done")
        except TooBusyError:
            answers.append("busy")
            if answers.count("busy") == 3:
                gate.set()

    async def many() -> None:
        workers = Workers(threads=2, waiting=1)
        async with anyio.create_task_group() as group:
            for _ in range(6):
                group.start_soon(ask, workers)

    anyio.run(many)
    assert sorted(answers) == ["busy"] * 3 + ["done"] * 3


def test_nothing_is_read_for_those_who_left() -> None:
    async def leave() -> None:
        with pytest.raises(TooBusyError):
            await Workers(1, 1).run(lambda: pytest.fail("read"), _gone)

    anyio.run(leave)
