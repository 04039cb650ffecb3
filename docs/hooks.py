"""What MkDocs calls while it builds the site: pages that would fetch something are errors."""

from __future__ import annotations

import re
from typing import Any

from mkdocs.exceptions import PluginError

FETCHES = re.compile(
    r"<(?:script|img|iframe|source|link)\b[^>]*?\b(?:src|href)=[\"']?(?:https?:)?//[^>]*"
)
"""Tags whose address a browser asks for by itself, and not only when a person follows it."""
HARMLESS = re.compile(r"\brel=[\"']?(?:canonical|prev|next|alternate)\b")


def on_post_page(output: str, *, page: Any, **_: Any) -> None:
    """Stop where a page names something of another server that a browser would load.

    Raises:
        PluginError: it does.
    """
    for found in FETCHES.findall(output):
        if not HARMLESS.search(found):
            raise PluginError(f"{page.file.src_uri} would fetch something: {found}")
