"""Reads pages as a browser's parser does, with the standard library's."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from html.parser import HTMLParser

VOID = {"meta", "img", "input", "rect", "link", "br"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str | None]
    text: str = ""
    """Of it and all below."""


class Page(HTMLParser):
    """Elements of a page, in their order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[Element] = []
        self._open: list[Element] = []
        self.feed(text)
        self.close()
        assert not self._open, "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attrs))
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(Element(tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.text += data

    def all(self, tag: str) -> list[Element]:
        return [element for element in self.elements if element.tag == tag]

    def texts(self, tag: str) -> list[str]:
        return [" ".join(element.text.split()) for element in self.all(tag)]

    def addresses(self) -> list[str]:
        """Of links and pictures."""
        found = (e.attributes.get(name) for e in self.elements for name in ("href", "src"))
        return [address for address in found if address is not None]

    @property
    def policy(self) -> str:
        (meta,) = [e for e in self.all("meta") if "http-equiv" in e.attributes]
        return meta.attributes["content"] or ""

    def hashes(self, tag: str) -> list[str]:
        """Of styles or scripts, as the policy names them."""
        digests = (hashlib.sha256(e.text.encode()).digest() for e in self.all(tag))
        return [f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests]


def table_rows(text: str, name: str) -> list[list[str]]:
    """Texts of the cells of a table, row by row."""
    (table,) = re.findall(rf'<table class="{name}">.*?</table>', text, re.DOTALL)
    rows = re.findall(r"<tr.*?</tr>", table, re.DOTALL)
    return [[e.text.strip() for e in Page(row).elements if e.tag in ("td", "th")] for row in rows]
