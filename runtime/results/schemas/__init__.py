"""JSON Schemas of the documents that a run writes, for the programs that read them.

The files are made from the types: `python -m sshr_deploy.runtime.results.schemas` writes them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from sshr_deploy.runtime.results.findings import PatchSummary, SlideSummary
from sshr_deploy.runtime.results.records import RunDocument, RunRecord

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_TYPES: dict[str, TypeAdapter[Any]] = {
    "summary": TypeAdapter(SlideSummary | PatchSummary),
    "record": TypeAdapter(RunRecord),
    "run": TypeAdapter(RunDocument),
}
NAMES = tuple(_TYPES)
"""Of the schemas: of `summary.json`, of a file in `runs/`, of `run.json`."""


def schema_path(name: str) -> Path:
    """The file of a schema, a name of `NAMES`."""
    return Path(__file__).with_name(f"{name}.schema.json")


def make_schema(name: str) -> dict[str, Any]:
    """A schema, a name of `NAMES`, from the types of today."""
    return {"$schema": _DIALECT, **_TYPES[name].json_schema(mode="serialization")}
