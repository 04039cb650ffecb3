"""Results of other releases, and what a worker process gets."""

from __future__ import annotations

import json
import multiprocessing
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sshr_deploy.precision import Precision
from sshr_deploy.runtime.pipeline.result_folders import read_summary
from sshr_deploy.runtime.pipeline.spec import RunSpec
from sshr_deploy.runtime.results.findings import OtherSummary, PatchSummary
from sshr_deploy.runtime.settings import InferSettings, LargeImages, OpenOptions
from tests.runtime.running import Runner, patch_folder

Document = dict[str, Any]


def without_version(summary: Document) -> None:
    """As releases wrote it before there was a version."""
    del summary["schema_version"]


def of_a_later_release(summary: Document) -> None:
    summary["schema_version"] = 2
    summary["classes"] = [{**entry, "new": 1} for entry in summary["classes"]]
    summary["more"] = {"than": "is known"}


@pytest.mark.parametrize("change", [without_version, of_a_later_release])
def test_results_of_other_releases_are_not_computed_again(
    infer: Runner, demo_slide: Path, tmp_path: Path, change: Callable[[Document], None]
) -> None:
    images, out = patch_folder(tmp_path / "in", demo_slide, count=1), tmp_path / "out"
    (done,) = infer(images, out).results
    path = out / "[0] patch.png" / "summary.json"
    document = json.loads(path.read_text("utf-8"))
    change(document)
    path.write_text(json.dumps(document), "utf-8")

    (again,) = infer(images, out).results
    assert (done.status, again.status) == ("done", "skipped")
    assert isinstance(done.summary, PatchSummary)
    assert isinstance(again.summary, OtherSummary)
    assert again.summary.key == done.summary.key
    assert json.loads(path.read_text("utf-8")) == document
    row = json.loads((out / "run.json").read_text("utf-8"))["folder"]["inputs"][0]
    assert (row["status"], row["folder"]) == ("done", "[0] patch.png")

    images.rename(tmp_path / "moved")
    (moved,) = infer(tmp_path / "moved", out).results
    assert moved.status == "skipped"
    document["input"]["path"] = str(tmp_path / "moved" / "[0] patch.png")
    assert json.loads(path.read_text("utf-8")) == document, "nothing is lost"
    assert infer(tmp_path / "moved", out, overwrite=True).results[0].status == "done"
    assert isinstance(read_summary(path.parent), PatchSummary)


SPEC = RunSpec(
    Path("bundle"),
    InferSettings(mpp_um=0.25, large=LargeImages.WHOLE, batch=4),
    "onnx-cpu",
    OpenOptions(Precision("fp32"), build=False),
    threads=3,
)


def test_a_spec_survives_pickling() -> None:
    copy = pickle.loads(pickle.dumps(SPEC))
    assert copy == SPEC
    assert copy.settings.large is LargeImages.WHOLE
    assert len(pickle.dumps(SPEC)) < 1000


def test_a_spec_reaches_another_process() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(repr, (SPEC,)) == repr(SPEC)
