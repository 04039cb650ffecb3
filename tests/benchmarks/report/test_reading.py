"""Files that are no benchmark of this form are told in one line that says why."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from sshr_deploy.benchmarks.report.reading import read_document
from sshr_deploy.benchmarks.report.recorder import Recorder
from sshr_deploy.benchmarks.report.records import Row
from sshr_deploy.benchmarks.report.schema import make_schema
from sshr_deploy.errors import InputError


@pytest.fixture
def content(tmp_path: Path) -> dict[str, Any]:
    file = tmp_path / "made.json"
    with Recorder("latency", None, {}, file) as recorder:
        recorder.row(Row(name="a", unit="ms", better="lower", samples=(1.0, 2.0)))
    found: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return found


def refused(tmp_path: Path, text: str | bytes) -> str:
    path = tmp_path / "x.json"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(InputError) as error:
        read_document(path)
    message = str(error.value)
    assert message.startswith(str(path)) and "\n" not in message
    return message.removeprefix(str(path))


def test_what_was_written_is_read(tmp_path: Path, content: dict[str, Any]) -> None:
    document = read_document(tmp_path / "made.json")
    assert document.model_dump(mode="json") == content


def test_files_from_before_clocks_were_kept_are_read(
    tmp_path: Path, content: dict[str, Any]
) -> None:
    for name in ("clocks_before", "clocks_after"):
        del content["load"][name]
    (tmp_path / "old.json").write_text(json.dumps(content))
    assert read_document(tmp_path / "old.json").load.clocks_after is None
    jsonschema.validate(content, make_schema())


@pytest.mark.parametrize("text", ["", "{", b"\xff\xfe", "[" * 100_000, '{"schema_version": 1'])
def test_no_json(tmp_path: Path, text: str | bytes) -> None:
    assert refused(tmp_path, text).startswith(" cannot be read as a benchmark: ")


@pytest.mark.parametrize("text", ["[]", "3", "{}", '{"schema_version": 2}', '{"rows": []}'])
def test_another_form(tmp_path: Path, text: str) -> None:
    assert "is no benchmark of form 1; measure again with this release" in refused(tmp_path, text)


def change(place: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def make(content: dict[str, Any]) -> None:
        *path, last = place.split(".")
        found: Any = content
        for key in path:
            found = found[int(key) if key.isdigit() else key]
        found[last] = value

    return make


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (change("benchmark", "speed"), "benchmark: "),
        (change("rows.0.samples", [1.0, 0.0]), "rows.0.samples.1: "),
        (change("rows.0.samples", [1.0, float("nan")]), "rows.0.samples.1: "),
        (change("rows.0.better", "faster"), "rows.0.better: "),
        (change("load.other_work", 1.5), "load.other_work: "),
        (change("colour", "blue"), "colour: "),
        (lambda content: content["rows"].append(content["rows"][0]), "rows: "),
    ],
)
def test_a_wrong_field_is_named(
    tmp_path: Path, content: dict[str, Any], wrong: Callable[[dict[str, Any]], None], told: str
) -> None:
    wrong(content)
    message = refused(tmp_path, json.dumps(content))
    assert re.match(rf" is no benchmark document: {re.escape(told)}\w", message)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_document(tmp_path / "none.json")
