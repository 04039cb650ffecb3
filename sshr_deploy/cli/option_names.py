"""Settings in the messages of the library, as the options of the command line."""

from __future__ import annotations

import re

_SETTING = re.compile(r"`([a-z][a-z0-9_]*)`")


def as_options(text: str) -> str:
    """A message with each setting in backticks, such as `force_mpp`, as its option --force-mpp."""
    return _SETTING.sub(lambda found: "--" + found[1].replace("_", "-"), text)
