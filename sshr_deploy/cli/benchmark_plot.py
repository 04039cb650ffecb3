"""`sshr-deploy benchmark plot`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sshr_deploy.cli.benchmark import benchmark_app
from sshr_deploy.cli.commands import command
from sshr_deploy.errors import MissingExtraError, UsageError


@command(benchmark_app, config=True)
def plot(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="JSON files of benchmarks.")
    ],
    out: Annotated[
        Path,
        typer.Option(metavar="FOLDER", help="Folder for the pictures and tables."),
    ],
) -> None:
    """Pictures of benchmarks as PNG and SVG, and their tables as Markdown.

    By benchmark: time of a call in ms and patches/s by batch; the knee of the throughput by batch
    and streams; rates, temperature and clocks of a soak over minutes; stages of the pipeline; peers
    side by side; engines and layers beneath the roofline. Each says the machine, and beside every
    speed how well the masks agree.
    """
    try:
        from sshr_deploy.benchmarks.report.pictures import write_pictures
        from sshr_deploy.benchmarks.roofline.plot import write_roofline
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "a package", "plots") from error
    from sshr_deploy.atomic import write_text
    from sshr_deploy.benchmarks.report.reading import read_document
    from sshr_deploy.benchmarks.report.tables import document_tables

    stems = [path.stem for path in files]
    if twice := {stem for stem in stems if stems.count(stem) > 1}:
        raise UsageError(f"two files are named {min(twice)}, and so would their pictures be")
    documents = [read_document(path) for path in files]
    for stem, document in zip(stems, documents, strict=True):
        table = out / f"{stem}.md"
        write_text(table, "\n".join(found.markdown() for found in document_tables(document)))
        draw = write_roofline if document.benchmark == "roofline" else write_pictures
        for path in (*draw(document, out / stem), table):
            typer.echo(str(path))
