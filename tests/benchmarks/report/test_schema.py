"""The published JSON Schema, judged by another package than the one that made it."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from sshr_deploy.benchmarks.report.schema import SCHEMA_FILE, make_schema
from tests.benchmarks.report.documents import make_document, make_row


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(SCHEMA_FILE.read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(found)
    return found


@pytest.fixture
def document() -> dict[str, Any]:
    rows = [make_row("a", [1.0, 2.0]), make_row("b", [], not_measured="no GPU", agreement=None)]
    return make_document(rows).model_dump(mode="json")


def test_the_file_is_what_the_types_say(schema: dict[str, Any]) -> None:
    """If not: `python -m sshr_deploy.benchmarks.report.schema`."""
    assert schema == make_schema()


def test_a_document_is_valid(schema: dict[str, Any], document: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(schema).validate(document)


@pytest.mark.parametrize("field", ["schema_version", "environment", "load", "rows", "complete"])
def test_what_lacks_a_field_is_not_valid(
    schema: dict[str, Any], document: dict[str, Any], field: str
) -> None:
    del document[field]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema).validate(document)


def test_a_sample_of_nothing_is_not_valid(schema: dict[str, Any], document: dict[str, Any]) -> None:
    document["rows"][0]["samples"] = [0.0]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema).validate(document)
