"""Text files that people write: lists and tables."""

from __future__ import annotations

import codecs

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
"""Windows PowerShell writes lists so."""


def decoded(content: bytes) -> str:
    """Text of a file, UTF-8 or UTF-16 with a byte order mark; names may hold bytes of neither."""
    encoding = "utf-16" if content.startswith(_UTF_16) else "utf-8-sig"
    errors = "replace" if encoding == "utf-16" else "surrogateescape"
    return content.decode(encoding, errors)
