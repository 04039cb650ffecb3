"""The page in Chromium: what a person sees and presses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from sshr_deploy.runtime.viewer.opened import OpenInput
from sshr_deploy.runtime.viewer.serving import Server, private_link
from sshr_deploy.runtime.viewer.workers import TooBusyError
from tests.browser import chromium
from tests.runtime.viewer.asking import listed
from tests.runtime.viewer.conftest import EVIL
from tests.runtime.viewer.page import Page


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    with chromium(1200, 800) as browser:
        yield browser


@pytest.fixture
def page(browser: webdriver.Chrome, server: Server) -> Iterator[Page]:
    page = Page(browser, server)
    yield page
    assert not page.errors()  # of scripts, of loading, and of the content security policy


def test_first_input_opens_with_its_classes(page: Page) -> None:
    page.open()
    page.loaded(EVIL)  # the first by name
    assert [row.text for row in page.all(".class .name")] == ["tumour", "stroma", "normal"]
    assert page["#tissue"].text.endswith("mm²")
    assert page["#list-note"].text == "5 inputs, 1 not shown"
    assert "It is empty (0 bytes)" in page["#list .failed"].text
    assert len(np.unique(page.stage().reshape(-1, 3), axis=0)) > 100  # it shows a picture


def test_markup_in_a_name_is_text(page: Page) -> None:
    page.open(EVIL)
    assert page.title == EVIL
    assert page.browser.title == "sshr-deploy view"  # it goes into the history
    assert not page.all("#list img, main script")


def test_a_class_is_toggled(page: Page) -> None:
    page.open("gone.tif", x=25, y=25, z=8, opacity=100, outlines=0)  # all of it tumour
    assert np.abs(page.stage() - (0xC8, 0x10, 0x2E)).max() < 8
    page["#classes input"].click()
    page.wait_for(lambda: page.stage().min() > 240)
    assert page.place["off"] == "0"
    page.press("1")
    page.wait_for(lambda: page.stage()[..., 1].max() < 40)
    assert "off" not in page.place
    page.press("m")
    page.wait_for(lambda: page.stage().min() > 240)


def test_opacity_by_key(page: Page) -> None:
    page.open("a.tif", opacity=40)
    page.press("]")
    assert page["#opacity-text"].text == "50 %"
    page.press("[", "[", "[")
    assert page.place["opacity"] == "20"


def test_zoom_and_move_by_key(page: Page) -> None:
    page.open("a.tif", x=300, y=300, z=1)
    page.press("+")
    page.wait_for(lambda: float(page.place["z"]) == pytest.approx(1.5, rel=0.01))
    page.press(Keys.ARROW_RIGHT)
    page.wait_for(lambda: int(page.place["x"]) > 310)
    assert page.place["y"] == "300"
    page.press("0")
    page.wait_for(lambda: float(page.place["z"]) < 1.4)


def test_scale_bar_is_as_long_as_it_says(page: Page) -> None:
    page.open("a.tif", x=300, y=300, z=2.5)  # pixels of 1 um
    number, unit = page["#scale-text"].text.split()
    assert unit == "µm"
    assert page["#scale-bar"].rect["width"] == pytest.approx(2.5 * float(number), abs=0.6)


def test_a_link_keeps_the_place(page: Page) -> None:
    place = {"x": "350", "y": "280", "z": "2.500", "off": "1", "opacity": "30", "outlines": "0"}
    page.open("a.tif", **place)
    kept = page.place
    assert kept.items() >= place.items()
    assert not page.all("#classes input")[1].is_selected()
    page.browser.refresh()
    page.wait_for(lambda: page.title)
    page.loaded("a.tif")
    assert page.place == kept


def test_outlines_come_with_zoom(page: Page) -> None:
    page.open("huge.tif")
    assert page["#outlines"].get_attribute("data-lines") == "0"
    assert page["#outlines-note"].text == "Zoom in to see them."
    page.open("huge.tif", x=16000, y=16000, z=0.4)
    page.wait_for(lambda: int(page["#outlines"].get_attribute("data-lines") or 0) > 0)
    page.press("o")
    page.wait_for(lambda: page["#outlines"].get_attribute("data-lines") == "0")


def test_huge_slide_at_three_zooms(page: Page) -> None:
    for z in (0.005, 0.05, 1):
        page.open("huge.tif", x=50_000, y=50_000, z=z, opacity=0)
        wanted = np.array((190, 80, 140))
        assert (np.abs(page.stage() - wanted).max(-1) < 8).any()


def test_what_is_under_the_pointer(page: Page) -> None:
    page.open("a.tif", x=75, y=25, z=8)
    ActionChains(page.browser).move_to_element(page["#stage"]).perform()
    page.wait_for(lambda: page["#point"].text == "stroma")
    assert page["#place"].text.startswith("x 7")


def test_next_previous_and_back(page: Page) -> None:
    page.open("a.tif")
    page.press("n")
    page.loaded("gone.tif")
    assert page["#count"].text == "3 of 5"
    page.press("p")
    page.loaded("a.tif")
    page.browser.back()
    page.loaded("gone.tif")
    page["#next"].click()
    page.loaded("huge.tif")


def test_search(page: Page) -> None:
    page.open("a.tif")
    page.press("/")
    page.press("image")
    assert page["#list-note"].text == "1 found"
    page.press(Keys.ENTER)
    page.loaded("image.png")
    assert page["#scale-text"].text.endswith(" px")  # an image states no pixel size
    assert page["#tissue"].get_attribute("hidden") is not None


def test_a_slide_that_is_gone(page: Page) -> None:
    page.open("gone.tif")
    assert page["#banner"].text.startswith("The mask alone is shown: ")
    assert page["#banner"].text.endswith("gone.tif is not there any more.")
    page.open("a.tif")
    assert not page["#banner"].is_displayed()


def test_keys_are_told(page: Page) -> None:
    page.open("a.tif")
    page.press("?")
    assert "Show or hide a class" in page["#keys"].text
    page.press(Keys.ESCAPE)
    page.wait_for(lambda: not page["#keys"].is_displayed())


def test_a_link_that_may_not_be_copied(page: Page) -> None:
    page.open("a.tif")
    refuse = "navigator.clipboard.writeText = () => Promise.reject(new Error('denied'))"
    page.browser.execute_script(refuse)
    page["#copy"].click()
    page.wait_for(lambda: "copy it from the address bar" in page["#banner"].text)
    page.browser.refresh()


def test_a_late_error_is_not_told_of_another_input(page: Page) -> None:
    page.open("a.tif")
    number = listed(page.server)["gone.tif"]["id"]
    page.browser.execute_script(
        """const real = fetch;
        window.fetch = (path) => String(path).endsWith(`inputs/${arguments[0]}`)
            ? new Promise((_, refuse) => { window.failLate = () => refuse(new Error("late")); })
            : real(path);""",
        number,
    )
    page.press("n")  # gone.tif, which does not answer
    page.wait_for(lambda: page.browser.execute_script("return Boolean(window.failLate)"))
    page.press("p")
    page.loaded("a.tif")
    page.browser.execute_script("window.failLate()")
    page.browser.execute_async_script("setTimeout(arguments[0], 50)")
    assert page["#banner"].text == ""
    page.browser.refresh()


def test_a_link_to_what_is_not_there(page: Page) -> None:
    page.open(slide="0123456789abcdef", x=25, y=25, z=8)
    page.loaded(EVIL)  # the first, and its own place
    assert page["#banner"].text == "The link's input is not among these results."
    assert float(page.place["z"]) < 2
    page.open("a.tif")
    assert page["#banner"].text == ""


def test_a_link_followed_before_the_list_is_there(page: Page) -> None:
    page.open("gone.tif")
    hold = """const real = fetch;
        window.fetch = async (path) => {
            if (path === "inputs") await new Promise((go) => { window.letListCome = go; });
            return real(path);
        };"""
    held = page.browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": hold})
    page.browser.refresh()
    page.browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", held)
    page.wait_for(lambda: page.browser.execute_script("return Boolean(window.letListCome)"))
    fragment = f"slide={listed(page.server)['a.tif']['key']}&z=2"  # no x, y: the whole of it
    page.browser.execute_script("location.hash = arguments[0]", fragment)
    page.browser.execute_async_script("setTimeout(arguments[0], 50)")
    page.browser.execute_script("letListCome()")
    page.loaded("a.tif")
    assert page["#banner"].text == ""
    page.browser.refresh()


@pytest.mark.parametrize(("times", "said"), [(2, ""), (9, "Some of the picture cannot be read.")])
def test_a_tile_is_asked_for_again(
    page: Page, monkeypatch: pytest.MonkeyPatch, times: int, said: str
) -> None:
    page.browser.get("about:blank")
    page.browser.execute_cdp_cmd("Network.clearBrowserCache", {})
    picture_tile, asked = OpenInput.picture_tile, Counter[object]()

    def busy(one: OpenInput, *place: int) -> bytes:
        asked[place] += 1
        if asked[place] > times:  # the navigator asks too
            return picture_tile(one, *place)
        raise TooBusyError("busy, ask again")

    monkeypatch.setattr(OpenInput, "picture_tile", busy)
    page.open("image.png")
    page.wait_for(lambda: max(asked.values(), default=0) > 2)  # the finest tile, which is shown
    page.wait_for(lambda: page["#banner"].text == said)
    page.browser.get("about:blank")  # or the navigator's last try comes after the log was read
    assert all("503" in error or "failed to load" in error for error in page.errors())


def test_the_private_link_leads_to_the_page(page: Page) -> None:
    with private_link(page.server.url) as link:
        page.browser.get(link)
        page.wait_for(lambda: page.browser.current_url.startswith(page.server.url))
        page.wait_for(lambda: page.title)
