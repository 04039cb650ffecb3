"""Reads the documents of benchmarks."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from sshr_deploy.benchmarks.report.records import SCHEMA_VERSION, BenchmarkDocument
from sshr_deploy.errors import InputError, first_line


def read_document(path: Path) -> BenchmarkDocument:
    """The document in a file.

    Raises:
        InputError: the file cannot be read, or is none of this form.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise InputError(f"{path} cannot be read as a benchmark: {reason}") from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise InputError(
            f"{path} is no benchmark of form {SCHEMA_VERSION}; "
            "measure again with this release: `sshr-deploy benchmark ... --json FILE`"
        )
    try:
        return BenchmarkDocument.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise InputError(f"{path} is no benchmark document: {place}: {first['msg']}") from error
