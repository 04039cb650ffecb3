"""`sshr-deploy benchmark compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sshr_deploy.cli.benchmark import benchmark_app
from sshr_deploy.cli.commands import command
from sshr_deploy.errors import UsageError, counted

if TYPE_CHECKING:
    from sshr_deploy.benchmarks.report.records import BenchmarkDocument
    from sshr_deploy.benchmarks.report.tables import TextTable


@command(benchmark_app, config=True)
def compare(
    a: Annotated[
        Path, typer.Argument(metavar="A", help="A benchmark's JSON file: what was before.")
    ],
    b: Annotated[
        Path, typer.Argument(metavar="B", help="Another of the same benchmark: what is now.")
    ],
    fail_over: Annotated[
        str | None,
        typer.Option(
            metavar="PERCENT",
            help="End with exit code 1 where B takes longer than A by more than this, such as 10%, "
            "in the whole interval; and where B did not measure a row that A did, or its masks "
            "disagree now.",
        ),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="File for the verdicts.")
    ] = None,
    markdown: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File for the table as Markdown."),
    ] = None,
) -> None:
    """Whether B is faster than A, row by row, as far as noise lets it be told.

    x A: how many times as fast B is as A, by the medians; 95 %: where that lies, by resampling both
    sides. A row is a tie where this interval holds 1, where the gap is within the noise (the
    distance of the quartiles over the median on the wider side, 2 % at least), and where no
    ratio can be told: other work took more than 10 % of the cores' time, the quartiles of a side
    are further apart than 15 % of the median or overlap with the other's, or a side has fewer than
    5 samples. Where the masks of a side disagree (--allow-unqualified), the row is not qualified.
    The reasons are below the table. Rows are paired by name.
    """
    from sshr_deploy.atomic import check_writable, write_json, write_text
    from sshr_deploy.benchmarks.report.comparison import compare as compare_documents
    from sshr_deploy.benchmarks.report.reading import read_document
    from sshr_deploy.benchmarks.report.tables import comparison_table
    from sshr_deploy.cli.console import say

    limit = None if fail_over is None else _share(fail_over)
    outputs = [path for path in (json_file, markdown) if path is not None]
    for path in outputs:
        check_writable(path)
    documents = read_document(a), read_document(b)
    comparison = compare_documents(*documents)
    table = comparison_table(comparison)
    about = [
        f"{side}: {path}, {_origin(document)}"
        for side, path, document in zip("AB", (a, b), documents, strict=True)
    ]
    _print(about, table)
    if json_file is not None:
        write_json(json_file, comparison.model_dump(mode="json"))
    if markdown is not None:
        lines = "".join(f"- {line}\n" for line in about)
        write_text(markdown, f"{lines}\n{table.markdown()}")
    for path in outputs:
        typer.echo(str(path))
    failures = [] if limit is None else comparison.failures(limit)
    for failure in failures:
        say(failure)
    if failures:
        say(f"{counted(len(failures), 'row')} failed: over {fail_over}, or no longer measured")
        raise typer.Exit(1)


def _share(percent: str) -> float:
    try:
        share = float(percent.strip().removesuffix("%")) / 100
    except ValueError:
        share = -1.0
    if not 0 <= share < float("inf"):
        raise UsageError(f"`fail_over` {percent!r}: give a percentage such as 10%")
    return share


def _origin(document: BenchmarkDocument) -> str:
    from sshr_deploy.benchmarks.report.machine import machine_line

    environment = document.environment
    commit = "" if environment.commit is None else f" ({environment.commit})"
    release = f"sshr-deploy {environment.sshr_deploy}{commit}"
    return f"{document.benchmark}, {document.measured_utc}, {release}, {machine_line(document)}"


def _print(about: list[str], found: TextTable) -> None:
    from rich.table import Table
    from rich.text import Text

    from sshr_deploy.cli.tables import print_table
    from sshr_deploy.cli.terminal import stdout_console

    console = stdout_console()
    for line in about:
        console.print(line, markup=False, soft_wrap=True)
    table = Table(*found.headings)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in found.rows:
        table.add_row(*map(Text, row))
    print_table(console, table)
    for line in found.notes:
        console.print(line, markup=False, soft_wrap=True)
