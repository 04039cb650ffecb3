"""A page of the site that a browser would fetch something for is an error."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType, SimpleNamespace

import pytest

exceptions = pytest.importorskip("mkdocs.exceptions")
PAGE = SimpleNamespace(file=SimpleNamespace(src_uri="index.md"))


@pytest.mark.parametrize(
    "tag",
    [
        '<script src="https://cdn.example/x.js">',
        "<img alt='x' src='//example/x.png'>",
        '<link rel="stylesheet" href="https://fonts.example/css">',
        "<iframe src=http://example>",
    ],
)
def test_fetches_are_errors(tag: str, docs_module: Callable[[str], ModuleType]) -> None:
    with pytest.raises(exceptions.PluginError, match=r"index\.md would fetch something: <"):
        docs_module("hooks").on_post_page(f"<p>a</p>{tag}", page=PAGE)


@pytest.mark.parametrize(
    "tag",
    [
        '<a href="https://arxiv.org/abs/2110.08048">',
        '<script src="assets/bundle.js">',
        '<link rel="canonical" href="https://example/">',
    ],
)
def test_links_and_files_of_the_site_are_not(
    tag: str, docs_module: Callable[[str], ModuleType]
) -> None:
    docs_module("hooks").on_post_page(tag, page=PAGE)
