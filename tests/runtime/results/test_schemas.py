"""The published JSON Schemas, judged by another package than the one that made them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from sshr_deploy.runtime.results.schemas import NAMES, make_schema, schema_path
from tests.runtime.running import Runner, patch_folder, read_summary


def read_schema(name: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(schema_path(name).read_text("utf-8"))
    return schema


def valid(name: str, document: object) -> None:
    jsonschema.Draft202012Validator(read_schema(name)).validate(document)


@pytest.fixture(scope="module")
def out(infer: Runner, demo_slide: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of a slide, and of a folder with a broken image, twice, once with a pixel size."""
    folder = tmp_path_factory.mktemp("schemas")
    images = patch_folder(folder / "images", demo_slide, count=2)
    (images / "broken.png").write_bytes(b"no image")
    infer(images, folder / "out")
    infer(demo_slide, folder / "out")
    infer(images, folder / "out")
    infer(images / "[1] patch.png", folder / "out", mpp_um=0.5)
    return folder / "out"


@pytest.mark.parametrize("name", NAMES)
def test_the_files_are_what_the_types_say(name: str) -> None:
    """If not: `python -m sshr_deploy.runtime.results.schemas`."""
    assert read_schema(name) == make_schema(name)
    jsonschema.Draft202012Validator.check_schema(read_schema(name))


def test_what_runs_write_is_valid(out: Path, demo_slide: Path) -> None:
    summaries = sorted(out.rglob("summary.json"))
    assert len(summaries) == 3
    for path in summaries:
        valid("summary", read_summary(path.parent))
    records = sorted((out / "runs").iterdir())
    assert len(records) == 4
    for path in records:
        valid("record", json.loads(path.read_text("utf-8")))
    run = json.loads((out / "run.json").read_text("utf-8"))
    valid("run", run)
    assert {entry["status"] for entry in run["folder"]["inputs"]} == {"done", "failed"}


def test_the_version_comes_first(out: Path) -> None:
    for path in (*out.rglob("summary.json"), out / "run.json", *(out / "runs").iterdir()):
        document = json.loads(path.read_text("utf-8"))
        assert next(iter(document.items())) == ("schema_version", 1)


@pytest.mark.parametrize("field", ["mask", "classes", "key", "schema_version", "engine"])
def test_what_lacks_a_field_is_not_valid(out: Path, demo_slide: Path, field: str) -> None:
    summary = read_summary(out / demo_slide.name)
    del summary[field]
    with pytest.raises(jsonschema.ValidationError):
        valid("summary", summary)


def test_fields_are_described_with_their_units() -> None:
    fields = read_schema("summary")["$defs"]["MaskFacts"]["properties"]
    assert "in um" in fields["mpp_um"]["description"]
