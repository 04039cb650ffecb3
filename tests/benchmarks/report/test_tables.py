"""Tables of latency: calls with their intervals, parts of calls, and cold starts."""

from __future__ import annotations

from typing import Any

import pytest

from sshr_deploy.benchmarks.report.records import Row
from sshr_deploy.benchmarks.report.tables import TextTable, document_tables
from tests.benchmarks.report.documents import make_document, make_row

PARTS = {"copy_in_ms": 0.1, "engine_ms": 30.2, "copy_out_ms": 0.2, "labels_ms": None}


def calls(name: str, batch: int, base: str | None = "a") -> Row:
    figures = {"p50_ms": 31.5, "p50_low_ms": 31.2, "p50_high_ms": 31.9, "p99_ms": None}
    return make_row(
        f"{name}, batch {batch}", [31.0, 31.5, 31.9],
        figures={**figures, **PARTS, "max_ms": 31.9, "speed": 1.0},
        refused={"p99_ms": "needs 299 calls"},
        facts={"contender": name, "batch": batch, "base": base},
    )  # fmt: skip


START = make_row(
    "a, cold start", [1.5, 1.6, 1.7], unit="s",
    figures={"start_s": 0.8, "load_s": 0.1, "open_s": 0.4, "first_patch_s": 0.2,
             "building_s": None},
    facts={"contender": "a", "open": "prepares the graph anew"},
)  # fmt: skip


def cells(table: TextTable, row: str) -> dict[str, str]:
    (found,) = (line for line in table.rows if line[0] == row)
    return dict(zip(table.headings, found, strict=True))


def test_latency_has_calls_parts_and_cold_starts() -> None:
    document = make_document([START, calls("a", 1), calls("b", 1)], notes=("a note",))
    main, parts, starts = document_tables(document)
    found = cells(main, "b, batch 1")
    assert found["p50 ms"] == "31.5 (31.2-31.9)"
    assert found["speed (a = 1)"] == "1"
    assert "p99 ms" not in found, "no row has it; the reason stands below"
    assert "copy in ms" not in found and len(main.rows) == 2
    assert main.notes == (
        "all that was measured: p99 ms: needs 299 calls",
        "in brackets: where the percentile lies with 95 %",
        "a note",
    )
    assert parts.rows[0] == ("a, batch 1", "0.1", "30.2", "0.2", "-")
    assert parts.headings[-1] == "label maps ms"
    found = cells(starts, "a, cold start")
    assert (found["median"], found["process s"], found["engine s"]) == ("1.6 s", "0.8", "0.4")
    assert starts.notes == ("a, cold start: prepares the graph anew",)


def test_several_bases_are_named_below() -> None:
    main, _ = document_tables(make_document([calls("a", 1), calls("b", 8, "b")]))
    assert "speed" in main.headings
    assert "speed: times as fast as a, b, whichever has 1 at that batch size" in main.notes


@pytest.mark.parametrize(
    ("changes", "count"), [({"rows": [START]}, 1), ({"rows": [], "notes": ("n",)}, 1)]
)
def test_notes_are_told_whatever_was_measured(changes: dict[str, Any], count: int) -> None:
    tables = document_tables(make_document(**{"notes": ("n",), **changes}))
    assert len(tables) == count
    assert tables[0].notes[-1] == "n"


def test_other_benchmarks_have_one_table_of_all_their_figures() -> None:
    row = make_row("x", [1.0], figures={"p25_ms": 1.0, "gflop_per_s": 3.0})
    (table,) = document_tables(make_document([row], "int8"))
    assert table.headings[-1] == "GFLOP/s"
