"""A viewer's page in a browser: opened, pressed, read."""

from __future__ import annotations

import io
import urllib.parse
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from sshr_deploy.runtime.viewer.serving import Server
from tests.runtime.viewer.asking import listed

LIMIT_S = 60


class Page:
    """The viewer in a browser."""

    def __init__(self, browser: webdriver.Chrome, server: Server) -> None:
        self.browser, self.server = browser, server

    def open(self, name: str | None = None, **place: object) -> None:
        """At an input, and a place in the words of the URL."""
        fields = dict(place)
        if name is not None:
            fields = {"slide": listed(self.server)[name]["key"], **fields}
        fragment = urllib.parse.urlencode(fields)
        if self.browser.current_url.startswith(self.server.url):  # as a link in the page
            script = "delete document.body.dataset.open; location.hash = arguments[0]"
            self.browser.execute_script(script, fragment)
        else:
            self.browser.get(f"{self.server.url}#{fragment}")
        self.wait_for(lambda: self.title != "")
        if name is not None:
            self.loaded(name)

    def loaded(self, name: str) -> None:
        number = str(listed(self.server)[name]["id"])
        self.wait_for(lambda: self["body"].get_attribute("data-open") == number)
        self.wait_for(lambda: self["#picture"].get_attribute("data-loaded") == "true")

    def __getitem__(self, selector: str) -> WebElement:
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    @property
    def title(self) -> str:
        return self["#name"].text

    @property
    def place(self) -> dict[str, str]:
        fragment = urllib.parse.urlsplit(self.browser.current_url).fragment
        return dict(urllib.parse.parse_qsl(fragment))

    def press(self, *keys: str) -> None:
        ActionChains(self.browser).send_keys(*keys).perform()

    def wait_for(self, condition: Callable[[], object]) -> None:
        WebDriverWait(self.browser, LIMIT_S, poll_frequency=0.05).until(lambda _: condition())

    def stage(self) -> NDArray[np.int64]:
        """Middle of the picture, RGB."""
        shot = Image.open(io.BytesIO(self["#stage"].screenshot_as_png)).convert("RGB")
        w, h = shot.size
        return np.asarray(shot.crop((w // 4, h // 4, 3 * w // 4, 3 * h // 4))).astype(int)

    def errors(self) -> list[str]:
        return [
            entry["message"]
            for entry in self.browser.get_log("browser")  # type: ignore[no-untyped-call]
            if entry["level"] == "SEVERE"
        ]
