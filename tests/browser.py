"""Chromium without a window, for the tests of pages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from selenium import webdriver
from selenium.common.exceptions import WebDriverException

PROGRAMS = ("chromium", "chromedriver")


@contextmanager
def chromium(width_px: int, height_px: int) -> Iterator[webdriver.Chrome]:
    """A browser whose log can be read; the test is skipped where it is missing or cannot start."""
    found = {name: shutil.which(name) for name in PROGRAMS}
    if missing := [name for name, path in found.items() if path is None]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    options = webdriver.ChromeOptions()
    options.binary_location = found["chromium"] or ""
    for argument in (
        "--headless=new",
        "--no-sandbox",  # as root in a container
        "--disable-gpu",
        "--disable-dev-shm-usage",
        f"--window-size={width_px},{height_px}",
        "--force-prefers-reduced-motion",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    try:
        browser = webdriver.Chrome(options, webdriver.ChromeService(found["chromedriver"]))
    except WebDriverException as error:
        pytest.skip(f"chromium cannot start: {(error.msg or str(error)).splitlines()[0]}")
    try:
        yield browser
    finally:
        browser.quit()
