from __future__ import annotations

import os
import urllib.parse
from pathlib import Path

import pytest

from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.report import folder as folder_module
from sshr_deploy.runtime.report.folder import folder_page, write_folder_page
from sshr_deploy.runtime.results.findings import SlideClass, SlideWarning
from sshr_deploy.runtime.results.table import FailedRow, ResultRow, Row
from sshr_deploy.runtime.slides.fit import Fit
from tests.runtime.report.found import patch_summary, record, row_of, slide_summary
from tests.runtime.report.reading import Page, table_rows

FOCUS = SlideWarning(code="focus", text="4 of 16 places are out of focus")
HOSTILE = [
    "<script>alert(1)</script>.svs",
    "\"><img src=x onerror='alert(1)'>.svs",
    "{{ 7 * 7 }}{% raw %}.svs",
    "javascript:alert(1).svs",
    "a\nb\t\x1b[31m.svs",
    os.fsdecode(b"\xff\xfe.svs"),
    "\u202egnp.svs",
]


def test_a_result_is_a_row(profile: Profile) -> None:
    rows = [row_of(slide_summary("2026/a.svs", warnings=(FOCUS,)), "overlay-small.jpg")]
    text = folder_page("R", profile, rows)
    heading, cells = table_rows(text, "results")
    assert heading[1:] == [
        "Input", "Tissue", "", "tumour", "stroma", "normal", "Pixel size", "Time", "Warnings",
    ]  # fmt: skip
    assert cells[1:] == [
        "a.svs2026", "2.00 mm²", "", "25.0 %0.500 mm²", "75.0 %1.50 mm²", "0.0 %0 mm²",
        "0.5 µmfrom the file", "1 min 15 s", "focus",
    ]  # fmt: skip
    page = Page(text)
    assert FOCUS.text in [e.attributes.get("title") for e in page.elements]
    assert {"2026/a.svs/report.html", "2026/a.svs/overlay-small.jpg"} <= set(page.addresses())
    (picture,) = page.all("img")
    assert picture.attributes["loading"] == "lazy"
    assert [e.attributes["class"] for e in page.all("rect")] == ["k0", "k1", "k0", "k1"]
    for index, tissue in enumerate(profile.classes):
        assert f".k{index}{{--k:{tissue.color}}}" in page.all("style")[0].text


def test_pictures_that_are_there_are_shown(profile: Profile) -> None:
    def shown(*files: str) -> list[str | None]:
        page = Page(folder_page("R", profile, [row_of(slide_summary(), *files)]))
        return [picture.attributes["src"] for picture in page.all("img")]

    both = ["1.svs/thumbnail.jpg", "1.svs/overlay-small.jpg"]
    assert shown("overlay.png", "overlay-small.jpg", "thumbnail.jpg") == both
    assert shown("overlay-small.jpg") == both[1:]
    assert not shown("overlay.png", "overlay@2x.png"), "they are too large for a table"


def test_the_fit_of_a_slide_says_what_differs(profile: Profile) -> None:
    fit = Fit(
        score=0.5, verdict="differs", words="bluer than the slides", darkness=1.0, haematoxylin=1.0,
        eosin=1.0, tint=0.0, detail=1.0,
    )  # fmt: skip
    rows = [row_of(slide_summary(fit=fit)), row_of(patch_summary())]
    text = folder_page("R", profile, rows)
    heading, slide, image = table_rows(text, "results")
    assert [line[heading.index("Fit")] for line in (slide, image)] == ["differs", "–"]
    (cell,) = (e for e in Page(text).all("td") if "bluer" in (e.attributes.get("title") or ""))
    assert cell.text == "differs"


def test_failures_have_their_reasons(profile: Profile) -> None:
    failed = FailedRow(Path("/in/x.svs"), "slide", "in/x.svs ends too early; copy it again")
    text = folder_page("R", profile, [failed, row_of(slide_summary())])
    assert table_rows(text, "failures") == [["Input", "Reason"], ["x.svs", failed.reason]]
    assert len(table_rows(text, "results")) == 2
    assert Page(text).texts("dd")[:3] == ["1", "1", "0"]


def test_totals_are_those_of_all_results(profile: Profile) -> None:
    rows = [row_of(slide_summary("1.svs")), row_of(slide_summary("2.svs"))]
    rows.append(row_of(patch_summary("3.png")))
    page = Page(folder_page("R", profile, rows))
    assert page.texts("dd")[:5] == ["3", "0", "0", "4.00 mm²", "3 min 45 s"]
    assert "tumour 25.0 % 1.00 mm²" in page.texts("li")
    assert any("lack those of 1 of the inputs" in text for text in page.texts("p"))
    page = Page(folder_page("R", profile, rows[2:]))
    assert page.texts("dd")[3] == "–", "nothing has an area"


def test_what_made_the_results_is_said_once_for_all(profile: Profile) -> None:
    summary = slide_summary("3.svs", key={"mode": "reference"})
    rows = [row_of(slide_summary("1.svs")), row_of(slide_summary("2.svs")), row_of(summary)]
    _, first, second = table_rows(folder_page("R", profile, rows), "origins")
    assert first == [
        "onnx-cpu fp32onnxruntime 1.30.0", "a processor", "99.999 %", "seamless",
        "lungabababababab", "2",
    ]  # fmt: skip
    assert (second[3], second[5]) == ("reference", "1")


def test_classes_of_other_models_are_grey(profile: Profile) -> None:
    other = SlideClass(label=0, name="necrosis", pixels=5, share=1.0, area_mm2=1.0)
    rows = [row_of(slide_summary("1.svs")), row_of(slide_summary("2.svs", classes=(other,)))]
    text = folder_page("R", profile, rows)
    assert ".k3{--k:var(--pale-ink)}" in text
    heading, first, second = table_rows(text, "results")
    assert heading[4:8] == ["tumour", "stroma", "normal", "necrosis"]
    assert (first[7], second[7]) == ("–", "100.0 %1.00 mm²")


def test_the_latest_run_is_described(profile: Profile) -> None:
    rows = [row_of(slide_summary())]
    page = Page(folder_page("R", profile, rows, record()))
    facts = dict(zip(page.texts("dt"), page.texts("dd"), strict=True))
    assert facts["Time"] == "2026-11-28 10:50 UTC, 2 min 00 s"
    assert facts["Inputs"] == "8 done, 0 done earlier, 1 failed"
    assert facts["Files not read"] == "3 .txt"
    stopped = record(stopped_by="cannot write /out: No space left on device")
    assert "No space left" in folder_page("R", profile, rows, stopped)
    assert "was interrupted" in folder_page("R", profile, rows, record(interrupted=True))
    assert "Latest run" not in folder_page("R", profile, rows)


def test_a_folder_without_results_has_a_page(profile: Profile) -> None:
    assert "No input has a result" in folder_page("R", profile, [])


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_never_markup(profile: Profile, name: str, tmp_path: Path) -> None:
    summary = slide_summary(name, warnings=(SlideWarning(code="border", text=name),))
    rows: list[Row] = [
        row_of(summary, "overlay-small.jpg"),
        FailedRow(Path("/in") / name, "slide", name),
    ]
    plain: list[Row] = [
        row_of(
            slide_summary("p/x.svs" if "/" in name else "x.svs", warnings=(FOCUS,)),
            "overlay-small.jpg",
        ),
        FailedRow(Path("/in/x.svs"), "slide", "x"),
    ]
    out = tmp_path / "R"
    write_folder_page(out, profile, rows, record(stopped_by=name))
    page = Page((out / "report.html").read_text("utf-8"))
    expected = Page(folder_page("R", profile, plain, record(stopped_by="x")))
    assert [e.tag for e in page.elements] == [e.tag for e in expected.elements]
    assert not any(attribute.startswith("on") for e in page.elements for attribute in e.attributes)
    addresses = [a for a in page.addresses() if not a.startswith(("summary", "run"))]
    assert len(addresses) == 3
    for address in addresses:
        assert not urllib.parse.urlsplit(address).scheme
        path = os.fsdecode(urllib.parse.unquote_to_bytes(address))
        assert path.rpartition("/")[0] == name


def test_nothing_but_the_page_itself_may_run_or_be_fetched(profile: Profile) -> None:
    page = Page(folder_page("R", profile, [row_of(slide_summary(), "overlay-small.jpg")]))
    parts = dict(part.split(" ", 1) for part in page.policy.split("; "))
    assert parts == {
        "default-src": "'none'",
        "img-src": "'self' file:",
        "style-src": page.hashes("style")[0],
        "script-src": page.hashes("script")[0],
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert not [e for e in page.elements if "style" in e.attributes], "the policy refuses these"


def test_a_page_of_many_results_is_cut(profile: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_module, "MOST_ROWS", 2)
    rows: list[Row] = [FailedRow(Path(f"/in/{i}.tif"), "slide", "broken") for i in range(3)]
    rows += [row_of(slide_summary(f"{i}.svs")) for i in range(4)]
    text = folder_page("R", profile, rows)
    assert len(table_rows(text, "results")) == len(table_rows(text, "failures")) == 1 + 2
    words = Page(text).texts("p")
    assert "The first 2 of 3; summary.csv has all of them." in words
    assert "The first 2 of 4; summary.csv has all of them." in words
    assert Page(text).texts("dd")[:4] == ["4", "3", "0", "8.00 mm²"]


def test_results_of_other_releases_lead_to_their_folder(profile: Profile) -> None:
    row = ResultRow(
        path=Path("/in/old.svs"), kind="slide", folder="old.svs", finished_utc="", profile=None,
        mpp=None, areas_mm2={}, shares={"tumour": 1.0}, tissue_area_mm2=None, seconds={}, fit=None,
    )  # fmt: skip
    text = folder_page("R", profile, [row])
    assert "old.svs/" in Page(text).addresses()
    assert table_rows(text, "origins")[1] == ["An earlier release of sshr-deploy", "1"]
