from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sshr_deploy.errors import OutputError
from sshr_deploy.known_tissue import Adaptation
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.contract import SessionInfo
from sshr_deploy.runtime.report.single import input_page, write_input_page
from sshr_deploy.runtime.results.findings import OtherSummary, SlideWarning
from sshr_deploy.runtime.slides import Mpp
from tests.runtime.report.found import patch_summary, slide_summary
from tests.runtime.report.reading import Page, table_rows


def facts(text: str) -> dict[str, str]:
    page = Page(text)
    return dict(zip(page.texts("dt"), page.texts("dd"), strict=True))


def test_a_slide_has_its_classes_facts_files_and_times(profile: Profile) -> None:
    text = input_page(slide_summary(), profile)
    assert table_rows(text, "classes") == [
        ["Class", "Share", "Area"],
        ["tumour", "25.0 %", "0.500 mm²"],
        ["stroma", "75.0 %", "1.50 mm²"],
        ["normal", "0.0 %", "0 mm²"],
        ["Tissue", "", "2.00 mm²"],
    ]
    assert table_rows(text, "files") == [
        ["mask.ome.tif", "1.23 kB"], ["overlay.png", "5.68 kB"], ["summary.json", ""],
    ]  # fmt: skip
    assert [(row[0], row[2]) for row in table_rows(text, "stages")] == [
        ("open", "0.10 s"), ("infer", "1 min 00 s"), ("waiting", "14.9 s"), ("Total", "1 min 15 s"),
    ]  # fmt: skip
    found = facts(text)
    assert found["Size"] == "4,000 × 2,000 px, 2.00 × 1.00 mm, 3 levels"
    assert found["Pixel size"] == "0.5 µm, from the file"
    assert found["Mask"] == "2,000 × 1,000 px of 1 µm"
    assert found["Computed"] == "3 of 4 fields: those with tissue"
    assert found["Engine"] == "onnx-cpu fp32"
    assert found["Agreement"] == "99.999 % of mask pixels equal to the reference's"
    assert found["Manifest"] == "ab" * 32


def test_an_image_has_probabilities_and_perhaps_no_area(profile: Profile) -> None:
    text = input_page(patch_summary(), profile)
    assert table_rows(text, "classes")[1:] == [
        ["tumour", "0.25", "25.0 %", "–"],
        ["stroma", "0.75", "75.0 %", "–"],
        ["normal", "0.00", "0.0 %", "–"],
    ]
    assert [row.attributes.get("class") for row in Page(text).all("tr")[1:4]] == [None, None, "off"]
    assert facts(text)["Pixel size"] == "not given, so that there are no areas"
    given = input_page(patch_summary(mpp=Mpp(1.0, 1.0, "--mpp (images state none)")), profile)
    assert facts(given)["Pixel size"] == "1 µm, --mpp (images state none)"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"stain_concern": "hardly stained"}, ["stain hardly stained"]),
        (
            {
                "stain_concern": "hardly stained",
                "warnings": (
                    SlideWarning(code="stain", text="pale"),
                    SlideWarning(code="border", text="it is cut off"),
                ),
            },
            ["stain pale", "border it is cut off"],
        ),
    ],
)
def test_warnings_come_first(
    profile: Profile, changes: dict[str, Any], expected: list[str]
) -> None:
    assert Page(input_page(slide_summary(**changes), profile)).texts("li") == expected


def test_links_stay_below_the_results(profile: Profile) -> None:
    page = Page(input_page(slide_summary(folder="2026/11/a #1.svs"), profile))
    assert page.addresses() == [
        "../../../report.html", "overlay.png", "overlay.png",
        "mask.ome.tif", "overlay.png", "summary.json",
    ]  # fmt: skip
    files = {"overlay.png": 1, "overlay@2x.png": 2}
    assert "overlay%402x.png" in Page(input_page(slide_summary(files=files), profile)).addresses()
    assert not Page(input_page(slide_summary(files={}), profile)).all("figure")


def test_all_that_is_known_of_engine_and_model_is_said(profile: Profile) -> None:
    engine = SessionInfo(
        "openvino", "int8", "a processor", "openvino 2026.1",
        rejected={"onnx-cuda": "no NVIDIA GPU"}, notes=("it is slow",),
        unqualified="--allow-unqualified", threads=4,
    )  # fmt: skip
    adaptation = Adaptation.model_construct(
        source="64 patches of cohort-a", adapted_utc="2026-11-01T08:00:00+00:00"
    )
    bundle = slide_summary().bundle.model_copy(
        update={"adaptation": adaptation, "model_metadata": {"title": "a <b>title</b>"}}
    )
    relabelled = {"profile": "luad", "classes": ["a", "b"]}
    text = input_page(
        slide_summary(engine=engine, bundle=bundle, relabelled_from=relabelled), profile
    )
    found = facts(text)
    assert "Agreement" not in found
    assert found["Not qualified"] == "--allow-unqualified"
    assert found["Note"] == "it is slow"
    assert found["Adapted to"] == "64 patches of cohort-a, 2026-11-01 08:00 UTC"
    assert found["Trained as"] == "luad: a, b"
    assert found["onnx-cuda"] == "no NVIDIA GPU"
    assert found["title"] == "a <b>title</b>"


def test_a_page_has_no_script(profile: Profile) -> None:
    page = Page(input_page(slide_summary("<script>.svs"), profile))
    assert not page.all("script")
    assert "script-src 'none'" in page.policy
    assert page.texts("h1") == ["<script>.svs"]


def test_writing(profile: Profile, tmp_path: Path) -> None:
    write_input_page(tmp_path / "1.svs", slide_summary(), profile)
    assert (tmp_path / "1.svs" / "report.html").read_text("utf-8").startswith("<!doctype html>")
    summary = slide_summary().model_dump(mode="json")
    write_input_page(tmp_path / "old", OtherSummary.model_validate(summary), profile)
    assert not (tmp_path / "old").exists(), "it says too little"
    (tmp_path / "taken").touch()
    with pytest.raises(OutputError):
        write_input_page(tmp_path / "taken", slide_summary(), profile)
