"""JSON Schema of a benchmark's document, for the programs that read it.

The file is made from the types: `python -m sshr_deploy.benchmarks.report.schema` writes it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sshr_deploy.atomic import write_json
from sshr_deploy.benchmarks.report.records import BenchmarkDocument

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
SCHEMA_FILE = Path(__file__).with_name("benchmark.schema.json")


def make_schema() -> dict[str, Any]:
    """The schema from the types of today."""
    return {"$schema": _DIALECT, **BenchmarkDocument.model_json_schema(mode="serialization")}


if __name__ == "__main__":
    write_json(SCHEMA_FILE, make_schema())
    print(SCHEMA_FILE)
