"""The page of all that was measured, from the files of `benchmarks/results/`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from sshr_deploy.benchmarks.report.machine import machine_line
from sshr_deploy.benchmarks.report.reading import read_document
from sshr_deploy.benchmarks.report.records import SCHEMA_VERSION, BenchmarkDocument, Kind
from sshr_deploy.benchmarks.report.tables import TextTable, document_tables, escaped, kind_title
from sshr_deploy.errors import counted

_NO_RESULTS = ("gate",)
"""Kinds whose documents are not kept: it compares within one run."""
_UNKNOWN = "-"


def measured_parts(results: Path, pictures: Path) -> Iterator[str]:
    """Blocks of Markdown below the title: documents by kind, what is missing, older files.

    Args:
        results: folder of the JSON files.
        pictures: folder beside the page; STEM.png is shown where it is there.

    Raises:
        InputError: a file says that it is of this form, and is not.
        ValueError: a file is no JSON.
    """
    documents: dict[str, BenchmarkDocument] = {}
    earlier: dict[str, Mapping[str, Any]] = {}
    for path in sorted(results.glob("*.json")):
        content = json.loads(path.read_text("utf-8"))
        if content.get("schema_version") == SCHEMA_VERSION:
            documents[path.stem] = read_document(path)
        else:
            earlier[path.stem] = content
    for kind in get_args(Kind):
        found = {stem: one for stem, one in documents.items() if one.benchmark == kind}
        if found:
            yield f"## {kind_title(kind)}"
        for stem, document in found.items():
            yield from _document_parts(stem, document, pictures / f"{stem}.png")
    if missing := list(_missing(list(documents.values()))):
        yield "## Not measured"
        yield "No file in the form of this release has:"
        yield "\n".join(f"- {words}" for words in missing)
    if earlier:
        yield "## Earlier forms"
        yield (
            "Files of earlier releases, as they were written; what they say stands in the "
            "[notes](notes.md). `benchmark compare` does not read them."
        )
        yield _earlier_table(earlier).markdown().rstrip("\n")


def _document_parts(stem: str, document: BenchmarkDocument, picture: Path) -> Iterator[str]:
    yield f"### {stem}"
    environment, subject = document.environment, document.subject
    commit = "" if environment.commit is None else f", commit {environment.commit}"
    lines = [
        f"`benchmarks/results/{stem}.json`, {document.measured_utc}",
        escaped(machine_line(document)),
        f"sshr-deploy {environment.sshr_deploy}{commit}; {_libraries(environment.libraries)}",
    ]
    if subject is not None:
        lines.append(f"{escaped(subject.profile)}, width {subject.width}")
    if not document.complete:
        lines.append("interrupted: the rows are those that it had finished")
    yield "\n".join(f"- {line}" for line in lines)
    for table in document_tables(document):
        yield table.markdown().rstrip("\n")
    if picture.is_file():
        yield f"![{stem}]({picture.parent.name}/{picture.name})"


def _libraries(libraries: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in libraries.items())


def _missing(documents: Sequence[BenchmarkDocument]) -> Iterator[str]:
    kinds = {document.benchmark for document in documents}
    missing = [kind for kind in get_args(Kind) if kind not in {*kinds, *_NO_RESULTS}]
    if missing:
        yield ", ".join(missing)
    if not any(document.environment.gpus for document in documents):
        yield "anything on a GPU"
    if not any("VNNI" in document.environment.processor for document in documents):
        yield "a processor with VNNI"


def _earlier_table(earlier: Mapping[str, Mapping[str, Any]]) -> TextTable:
    rows = []
    for stem, content in earlier.items():
        environment = content.get("environment", {})
        about = content.get("benchmark") or content.get("kind") or stem.partition("-torch")[0]
        machine = [environment.get("processor"), environment.get("device")]
        cores = environment.get("cores")
        machine.insert(1, None if cores is None else counted(cores, "core"))
        told = ", ".join(str(part) for part in machine if part) or _UNKNOWN
        rows.append((f"{stem}.json", str(about), told, content.get("measured_utc") or _UNKNOWN))
    return TextTable(("file", "what", "machine", "when"), tuple(rows), right=False)
