"""The pages in Chromium, opened as files."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.report.folder import write_folder_page
from sshr_deploy.runtime.results.findings import SlideClass, SlideWarning
from sshr_deploy.runtime.results.table import FailedRow, Row
from tests.browser import chromium
from tests.runtime.report.found import SHARES, row_of, slide_summary

NAMES = ("slide 10.svs", "slide 9.svs", "<img src=x onerror=document.title='run'>.svs")
AREAS_MM2 = (0.5, 30.0, 4.0)
FOCUS = SlideWarning(code="focus", text="it is out of focus")


@pytest.fixture(scope="module")
def out(profile: Profile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three results with pictures, the second with a warning, and a failure."""
    out = tmp_path_factory.mktemp("pages") / "out"
    rows: list[Row] = [FailedRow(Path("/in/broken.svs"), "slide", "it is damaged")]
    for name, area_mm2 in zip(NAMES, AREAS_MM2, strict=True):
        classes = tuple(
            SlideClass(label=i, name=n, pixels=1, share=s, area_mm2=s * area_mm2)
            for i, (n, s) in enumerate(SHARES.items())
        )
        warnings = (FOCUS,) if name == NAMES[1] else ()
        summary = slide_summary(name, tissue_area_mm2=area_mm2, classes=classes, warnings=warnings)
        rows.append(row_of(summary, "thumbnail.jpg"))
        (out / name).mkdir(parents=True)
        picture = Image.fromarray(np.full((80, 120, 3), 200, np.uint8))
        picture.save(out / name / "thumbnail.jpg")
    write_folder_page(out, profile, rows)
    return out


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    with chromium(1400, 900) as browser:
        yield browser


@pytest.fixture
def page(browser: webdriver.Chrome, out: Path) -> webdriver.Chrome:
    browser.get_log("browser")  # type: ignore[no-untyped-call]
    browser.get((out / "report.html").as_uri())
    return browser


def names(page: webdriver.Chrome) -> list[str]:
    """Of the rows that are seen, from above."""
    script = """return [...document.querySelectorAll('.results tbody tr')]
        .filter((row) => row.checkVisibility()).map((row) => row.querySelector('th a').textContent)
    """
    found: list[str] = page.execute_script(script)
    return found


def press(page: webdriver.Chrome, *keys: str) -> None:
    for key in keys:
        page.switch_to.active_element.send_keys(key)


def test_pictures_show_and_a_name_does_not_run(page: webdriver.Chrome) -> None:
    widths = "return [...document.images].map((image) => image.naturalWidth)"
    WebDriverWait(page, 60).until(lambda d: d.execute_script(widths) == [120] * 3)
    assert page.title == "out – results"
    assert names(page) == list(NAMES)
    assert page.get_log("browser") == []  # type: ignore[no-untyped-call]


def test_the_policy_lets_nothing_in(page: webdriver.Chrome) -> None:
    script = """
        const done = arguments[0];
        const blocked = [];
        document.addEventListener('securitypolicyviolation', (event) => {
            blocked.push(event.effectiveDirective);
            if (blocked.length === 4) done(blocked.sort());
        });
        document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.1:9/x.png'}));
        document.body.append(Object.assign(document.createElement('script'), {text: 'let a = 1'}));
        document.body.insertAdjacentHTML('beforeend', '<p style="color: red">x</p>');
        fetch('http://127.0.0.1:9/').catch(() => {});
    """
    found = page.execute_async_script(script)
    assert found == ["connect-src", "img-src", "script-src-elem", "style-src-attr"]


def test_columns_sort(page: webdriver.Chrome) -> None:
    def click(column: str) -> str:
        (button,) = (
            b for b in page.find_elements(By.CSS_SELECTOR, "thead button") if b.text == column
        )
        button.click()
        return str(button.find_element(By.XPATH, "..").get_attribute("aria-sort"))

    third, second, first = NAMES[2], NAMES[1], NAMES[0]
    assert click("Input") == "ascending"
    assert names(page) == [third, second, first], "9 before 10"
    assert click("Input") == "descending"
    assert names(page) == [first, second, third]
    assert click("Tissue") == "descending", "numbers begin with the largest"
    assert names(page) == [second, third, first]
    assert click("Tissue") == "ascending"
    assert names(page) == [first, third, second]
    assert click("Warnings") == "descending"
    assert names(page)[0] == second, "rows without one come last"


def test_rows_are_filtered_by_text_and_by_warnings(page: webdriver.Chrome) -> None:
    press(page, "/", "SVS 9")
    assert names(page) == [NAMES[1]]
    assert page.find_element(By.ID, "found").text == "1 of 3"
    press(page, Keys.ESCAPE)
    assert len(names(page)) == 3
    page.find_element(By.ID, "warned").click()
    assert names(page) == [NAMES[1]]
    page.find_element(By.ID, "warned").click()
    assert len(names(page)) == 3


def test_keys_go_from_row_to_row(page: webdriver.Chrome) -> None:
    press(page, "j", "j", "j", "j", "k")
    assert page.switch_to.active_element.text == NAMES[1]
    press(page, "/", "9", Keys.ENTER)  # to the first that is found
    assert page.switch_to.active_element.text == NAMES[1]
    href = page.switch_to.active_element.get_attribute("href")
    assert href is not None and href.endswith("/slide%209.svs/report.html")


def test_all_rows_are_printed_in_light_colours(page: webdriver.Chrome) -> None:
    press(page, "/", "9")
    assert len(names(page)) == 1
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    background = "return getComputedStyle(document.body).backgroundColor"
    try:
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "screen", "features": dark})
        assert page.execute_script(background) == "rgb(22, 20, 27)"
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": dark})
        assert len(names(page)) == 3
        assert page.execute_script(background) == "rgb(255, 255, 255)"
        assert not page.find_element(By.ID, "filter").is_displayed()
        pdf = base64.b64decode(page.execute_cdp_cmd("Page.printToPDF", {})["data"])
        assert pdf.startswith(b"%PDF")
    finally:
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})


def test_a_narrow_window_needs_no_sideways_scrolling(page: webdriver.Chrome) -> None:
    size = {"width": 480, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        assert page.execute_script("return document.documentElement.scrollWidth") <= 480
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
