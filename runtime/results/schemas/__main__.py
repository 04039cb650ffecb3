"""Writes the schemas anew: `python -m sshr_deploy.runtime.results.schemas`."""

from __future__ import annotations

from sshr_deploy.atomic import write_json
from sshr_deploy.runtime.results.schemas import NAMES, make_schema, schema_path

if __name__ == "__main__":
    for name in NAMES:
        write_json(schema_path(name), make_schema(name))
        print(schema_path(name))
