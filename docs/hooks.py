"""What MkDocs calls while it builds the site: pages and styles that would fetch are errors.

Scripts are not read: those of the theme fetch from the site alone, and `docs/` has one of its own.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError

_ELSEWHERE = r"(?:https?:)?//"
_TAG = re.compile(
    r"<(?:script|img|iframe|source|link|video|audio|track|object|embed|image|use)\b"
    rf"[^>]*?\b(?:src|href|srcset|poster|data)\s*=\s*[\"']?[^\"'>]*?(?<![\w:]){_ELSEWHERE}[^>]*",
    re.IGNORECASE,
)
"""Tags whose address a browser asks for by itself, and not only when a person follows it."""
_STYLE = re.compile(
    rf"(?:url\(\s*[\"']?|@import\s+[\"']){_ELSEWHERE}[^\"')\s]*",
    re.IGNORECASE,
)
_HARMLESS = re.compile(r"\brel=[\"']?(?:canonical|prev|next|alternate)\b")


def on_post_page(output: str, *, page: Any, **_: Any) -> None:
    """Stop where a page names something of another server that a browser would load.

    Raises:
        PluginError: it does.
    """
    found = [tag for tag in _TAG.findall(output) if not _HARMLESS.search(tag)]
    _refuse(page.file.src_uri, found + _STYLE.findall(output))


def on_post_build(*, config: Any, **_: Any) -> None:
    """Stop where a style sheet of the site does, the theme's own included.

    Raises:
        PluginError: it does.
    """
    site = Path(config.site_dir)
    for path in sorted(site.rglob("*.css")):
        _refuse(path.relative_to(site).as_posix(), _STYLE.findall(path.read_text("utf-8")))


def _refuse(name: str, found: list[str]) -> None:
    if found:
        raise PluginError(f"{name} would fetch something: {found[0]}")
