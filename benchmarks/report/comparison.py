"""What changed between two documents of the same benchmark, A and B."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from sshr_deploy.benchmarks.measuring.neighbours import busy_text
from sshr_deploy.benchmarks.report.bootstrap import ratio_interval
from sshr_deploy.benchmarks.report.records import (
    Agreement,
    BenchmarkDocument,
    Environment,
    Kind,
    Row,
)
from sshr_deploy.errors import UsageError, counted
from sshr_deploy.runtime.machine.spread import ratio_of, spread_of
from sshr_deploy.runtime.results.findings import Document

LEAST_NOISE = 0.02
"""Gaps up to this are ties however little the samples of a run spread: what differs from one run
to the next, such as where memory lies and how warm the processor is, is the same for all of them.
"""

Verdict = Literal[
    "faster", "slower", "tie", "not qualified", "only in A", "only in B", "not measured"
]


class Side(Document):
    """A row as it was measured in one of the documents."""

    median: float
    samples: int
    spread: float
    """Distance of the quartiles over the median."""
    agreement: Agreement | None
    unqualified: str | None
    """Why its speed counts for nothing; null where it is qualified."""


class Compared(Document):
    """A row of A, of B, or of both."""

    name: str
    unit: str
    a: Side | None
    """Null where it was not measured."""
    b: Side | None
    speed: float | None
    """How many times as fast B is as A, by the medians; null where no ratio can be told."""
    low: float | None
    """With `high` where the speed lies with 95 %."""
    high: float | None
    verdict: Verdict
    """Of B."""
    reason: str | None
    """Why it is a tie, or why a side has no samples."""

    @property
    def slowdown(self) -> float:
        """By which share B takes longer than A, at the least; 0 unless it is slower."""
        return 1 / self.high - 1 if self.verdict == "slower" and self.high else 0.0

    @property
    def is_lost(self) -> bool:
        """Whether A has a speed that counts, and B none."""
        was_qualified = self.a is not None and self.a.unqualified is None
        return self.verdict == "only in A" or (self.verdict == "not qualified" and was_qualified)


class Comparison(Document):
    """Two documents row by row."""

    benchmark: Kind
    warnings: tuple[str, ...]
    """What else differs: machine, network, settings, releases; and whether one is incomplete."""
    rows: tuple[Compared, ...]
    """Those of A in its order, then those that only B has."""

    def failures(self, limit: float) -> list[str]:
        """Rows that are slower by more than `limit`, a share, and those that B has no speed of.

        The whole interval has to be beyond the limit. No speed: it was not measured, or is no
        longer qualified.
        """
        return [
            f"{row.name}: {row.verdict}" + (f", {row.reason}" if row.reason else "")
            if row.is_lost
            else f"{row.name}: slower by at least {row.slowdown:.1%}"
            for row in self.rows
            if row.is_lost or row.slowdown > limit
        ]


def compare(a: BenchmarkDocument, b: BenchmarkDocument) -> Comparison:
    """B against A; rows are paired by their names.

    A row is not qualified where the masks of a side disagree, however fast they came. It is a tie
    where a machine was busy, where the spread or the number of its samples allows no ratio, where
    the bootstrap interval of the ratio of medians holds 1, and where the gap is not above the
    noise: the wider of the two spreads, 2 % at least.

    Raises:
        UsageError: they are of different benchmarks.
    """
    if a.benchmark != b.benchmark:
        raise UsageError(
            f"A is a benchmark of {a.benchmark} and B of {b.benchmark}; compare two of the same"
        )
    theirs = {row.name: row for row in b.rows}
    ours = {row.name: row for row in a.rows}
    busy = next(_busy(a, b), None)
    rows = [_compared(ours.get(name), theirs.get(name), busy) for name in {**ours, **theirs}]
    return Comparison(benchmark=a.benchmark, warnings=tuple(_warnings(a, b)), rows=tuple(rows))


def _compared(a: Row | None, b: Row | None, busy: str | None) -> Compared:
    row = a or b
    assert row is not None
    verdict: Verdict = "tie"
    speed = interval = None
    if a is None or b is None or not (a.samples and b.samples):
        verdict, reason = _one_sided(a, b)
    elif (reason := _unqualified(a, b)) is not None:
        verdict = "not qualified"
    elif (reason := busy or _not_comparable(a, b)) is None:
        speed, interval, reason = _speed(a, b)
        if reason is None and speed is not None:
            verdict = "faster" if speed > 1 else "slower"
    low, high = interval or (None, None)
    return Compared(
        name=row.name, unit=row.unit, a=_side(a), b=_side(b), speed=speed, low=low, high=high,
        verdict=verdict, reason=reason,
    )  # fmt: skip


def _one_sided(a: Row | None, b: Row | None) -> tuple[Verdict, str | None]:
    """Where at least one of them has no samples."""
    if a is not None and a.samples:
        return "only in A", None if b is None else f"B: {b.not_measured}"
    if b is not None and b.samples:
        return "only in B", None if a is None else f"A: {a.not_measured}"
    return "not measured", next((row.not_measured for row in (a, b) if row is not None), None)


def _not_comparable(a: Row, b: Row) -> str | None:
    if (a.unit, a.better) != (b.unit, b.better):
        return f"A is in {a.unit}, B in {b.unit}"
    return ratio_of(("A", a.samples), ("B", b.samples), a.unit).refused


def _unqualified(a: Row, b: Row) -> str | None:
    """Of which sides the masks disagree, and why; None where both are qualified."""
    reasons = [(side, row.facts.get("unqualified")) for side, row in (("A", a), ("B", b))]
    return "; ".join(f"{side}: {why}" for side, why in reasons if why is not None) or None


def _speed(a: Row, b: Row) -> tuple[float, tuple[float, float], str | None]:
    """B over A with its interval, and why it is nevertheless a tie."""
    over, under = (a.samples, b.samples) if a.better == "lower" else (b.samples, a.samples)
    spreads = spread_of(over), spread_of(under)
    speed = spreads[0].median_ms / spreads[1].median_ms
    low, high = ratio_interval(over, under)
    noise = max(LEAST_NOISE, *(spread.relative for spread in spreads))
    reason = None
    if low <= 1 <= high:
        reason = "the interval holds 1"
    elif max(speed, 1 / speed) - 1 <= noise:
        reason = f"a gap of {max(speed, 1 / speed) - 1:.1%} is within the noise of {noise:.1%}"
    return speed, (low, high), reason


def _side(row: Row | None) -> Side | None:
    if row is None or not row.samples:
        return None
    spread = spread_of(row.samples)
    return Side(
        median=spread.median_ms, samples=spread.calls, spread=spread.relative,
        agreement=row.agreement, unqualified=row.facts.get("unqualified"),
    )  # fmt: skip


def _busy(a: BenchmarkDocument, b: BenchmarkDocument) -> Iterator[str]:
    for side, document in (("A", a), ("B", b)):
        if (text := busy_text(document.load.other_work)) is not None:
            yield f"{side}: {text}"


def _warnings(a: BenchmarkDocument, b: BenchmarkDocument) -> Iterator[str]:
    for side, document in (("A", a), ("B", b)):
        if not document.complete:
            yield f"{side} was interrupted: its rows are those that it had finished"
    yield from _machine_warnings(a.environment, b.environment)
    yield from _subject_warnings(a, b)
    yield from _differences("the settings", a.settings, b.settings)
    yield from _differences("the releases", a.environment.libraries, b.environment.libraries)


def _machine_warnings(a: Environment, b: Environment) -> Iterator[str]:
    for what, told in (("machines", _machine), ("drivers", _drivers)):
        one, other = told(a), told(b)
        if one != other:
            yield f"the {what} differ: {one} in A, {other} in B"
            return  # GPUs that are others have other drivers


def _machine(found: Environment) -> str:
    gpus = (gpu.name + (f" ({gpu.memory_mib} MiB)" if gpu.memory_mib else "") for gpu in found.gpus)
    return ", ".join([found.processor, counted(found.cores, "core"), *gpus])


def _drivers(found: Environment) -> str:
    return ", ".join(gpu.driver or "unknown" for gpu in found.gpus)


def _subject_warnings(a: BenchmarkDocument, b: BenchmarkDocument) -> Iterator[str]:
    if a.subject == b.subject:
        return
    if a.subject is None or b.subject is None:
        yield "only one of them names the network that was measured"
        return
    networks = [
        {"profile": found.profile, "width": found.width} for found in (a.subject, b.subject)
    ]
    found = list(_differences("the networks", *networks))
    yield from found or ["the networks differ: the files have other hashes"]


def _differences(what: str, a: Mapping[str, object], b: Mapping[str, object]) -> Iterator[str]:
    keys = [key for key in {**a, **b} if a.get(key) != b.get(key)]
    if keys:
        told = (f"{key} {_told(a, key)} in A, {_told(b, key)} in B" for key in keys)
        yield f"{what} differ: {'; '.join(told)}"


def _told(values: Mapping[str, object], key: str) -> str:
    return str(values[key]) if key in values else "absent"
