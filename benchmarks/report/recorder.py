"""Keeps a benchmark's document on the disk while it grows: an interruption loses nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sshr_deploy.atomic import check_writable, write_json
from sshr_deploy.benchmarks.environment import describe_machine, load_average
from sshr_deploy.benchmarks.measuring.clocks import read_clocks
from sshr_deploy.benchmarks.measuring.neighbours import Neighbours, busy_text
from sshr_deploy.benchmarks.report.records import (
    BenchmarkDocument,
    Clocks,
    Environment,
    Kind,
    Load,
    Row,
    Subject,
)
from sshr_deploy.runtime.machine.clock import now_utc
from sshr_deploy.runtime.machine.spread import Ratio, ratio_of


class Recorder:
    """A document that grows row by row; a context manager, inside of which is measured.

    Where it is left without an exception, the document is complete.

    Args:
        kind: of the benchmark.
        subject: what is measured.
        settings: of the user.
        file: where the document is kept, written anew with each row; None keeps it in memory.

    Raises:
        OutputError: the file cannot be written; told before anything is measured.
    """

    def __init__(
        self,
        kind: Kind,
        subject: Subject | None,
        settings: Mapping[str, Any],
        file: Path | None = None,
    ) -> None:
        if file is not None:
            check_writable(file)
        self._file, self._neighbours = file, Neighbours()
        self._document = BenchmarkDocument(
            benchmark=kind,
            measured_utc=now_utc(),
            complete=False,
            environment=Environment.model_validate(describe_machine()),
            load=Load(
                before=load_average(), after=None, other_work=None, clocks_before=_clocks_now()
            ),
            subject=subject,
            settings=dict(settings),
            rows=(),
        )

    def row(self, row: Row) -> None:
        """Add a row, or put it in the place of the one of the same name."""
        rows = {found.name: found for found in self._document.rows}
        load = self._document.load.model_copy(update={"clocks_after": _clocks_now()})
        self._update(rows=tuple({**rows, row.name: row}.values()), load=load)

    def fact(self, name: str, value: Any) -> None:
        """Add a fact of the document; `value` as JSON has it."""
        self._update(facts={**self._document.facts, name: value})

    def note(self, text: str) -> None:
        """Add a note for readers; one that is there already is not said again."""
        if text not in self._document.notes:
            self._update(notes=(*self._document.notes, text))

    @property
    def document(self) -> BenchmarkDocument:
        """All of it so far."""
        now = {"after": load_average(), "other_work": self._neighbours.share()}
        load = self._document.load.model_copy(update=now)
        return self._document.model_copy(update={"load": load})

    def busy(self) -> str | None:
        """Why nothing measured so far allows a ratio; None where the machine was quiet."""
        return busy_text(self._neighbours.share())

    def ratio(
        self, one: tuple[str, Sequence[float]], other: tuple[str, Sequence[float]], unit: str = "ms"
    ) -> Ratio:
        """`ratio_of` two things of this document; refused too where other work was beside them."""
        busy = self.busy()
        return ratio_of(one, other, unit) if busy is None else Ratio(None, busy)

    def __enter__(self) -> Self:
        self._neighbours = Neighbours()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._update(complete=exc_type is None)

    def _update(self, **changes: Any) -> None:
        self._document = self._document.model_copy(update=changes)
        if self._file is not None:
            write_json(self._file, self.document.model_dump(mode="json"))


def _clocks_now() -> Clocks:
    return Clocks.model_validate(read_clocks())
