"""The machine that a result was computed on."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from contextlib import suppress
from importlib import metadata
from pathlib import Path


def processor_name() -> str:
    """The processor's name as the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def library_versions(names: Iterable[str]) -> dict[str, str]:
    """Versions of the installed ones among the distributions `names`."""
    found = {}
    for name in names:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
