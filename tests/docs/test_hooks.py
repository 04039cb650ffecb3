"""A page or style of the site that a browser would fetch something for is an error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

exceptions = pytest.importorskip("mkdocs.exceptions")
PAGE = SimpleNamespace(file=SimpleNamespace(src_uri="index.md"))


@pytest.mark.parametrize(
    "tag",
    [
        '<script src="https://cdn.example/x.js">',
        "<img alt='x' src='//example/x.png'>",
        '<img src="x.png" srcset="x.png 1x, https://example/x2.png 2x">',
        '<link rel="stylesheet" href="https://fonts.example/css">',
        "<iframe src=http://example>",
        '<video poster="https://example/x.jpg">',
        '<object data="//example/x.svg">',
        '<EMBED SRC="HTTPS://example/x">',
        '<p style="background: url(https://example/x.png)">',
        "<style>@import '//example/x.css';</style>",
    ],
)
def test_fetches_are_errors(tag: str, docs_module: Callable[[str], ModuleType]) -> None:
    with pytest.raises(exceptions.PluginError, match=r"index\.md would fetch something: "):
        docs_module("hooks").on_post_page(f"<p>a</p>{tag}", page=PAGE)


@pytest.mark.parametrize(
    "tag",
    [
        '<a href="https://arxiv.org/abs/2110.08048">',
        '<script src="assets/bundle.js">',
        '<link rel="canonical" href="https://example/">',
        '<img src="a//b.png">',
        '<p style="background: url(x.png)">',
        "<code>src=https://example</code>",
    ],
)
def test_links_and_files_of_the_site_are_not(
    tag: str, docs_module: Callable[[str], ModuleType]
) -> None:
    docs_module("hooks").on_post_page(tag, page=PAGE)


def test_styles_that_fetch_are_errors(
    docs_module: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    hooks, config = docs_module("hooks"), SimpleNamespace(site_dir=str(tmp_path))
    style = tmp_path / "assets" / "x.css"
    style.parent.mkdir()
    style.write_text('a{mask:url(data:image/svg+xml,<svg xmlns="http://www.w3.org/2000/svg"/>)}')
    hooks.on_post_build(config=config)
    for rule in ('@import "https://fonts.example/css";', "a{background:url( '//example/x' )}"):
        style.write_text(rule)
        with pytest.raises(exceptions.PluginError, match=r"assets/x\.css would fetch something"):
            hooks.on_post_build(config=config)
