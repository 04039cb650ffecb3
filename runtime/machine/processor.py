"""The machine that a result was computed on."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from contextlib import suppress
from importlib import metadata
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
"""Linux describes its processors there."""


def processor_name() -> str:
    """The processor's name as the system tells it."""
    return _first("model name", CPUINFO) or platform.processor() or platform.machine()


def processor_flags(cpuinfo: Path = CPUINFO) -> set[str] | None:
    """Instruction sets of an x86 processor under Linux, "avx2" and so on; None elsewhere."""
    flags = _first("flags", cpuinfo)
    return None if flags is None else set(flags.split())


def processor_text() -> str:
    """Name and what decides how it computes in 8 bits: "AMD EPYC, AVX2, AVX-512, VNNI"."""
    flags = processor_flags() or set()
    named = {
        "AVX2": {"avx2"},
        "AVX-512": {"avx512f"},
        "VNNI": {"avx512_vnni", "avx_vnni"},
        "AMX": {"amx_int8"},
    }
    return ", ".join(
        [processor_name(), *(name for name, any_of in named.items() if any_of & flags)]
    )


def _first(wanted: str, cpuinfo: Path) -> str | None:
    if cpuinfo.exists():
        for line in cpuinfo.read_text("utf-8", "replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == wanted:
                return value.strip()
    return None


def library_versions(names: Iterable[str]) -> dict[str, str]:
    """Versions of the installed ones among the distributions `names`."""
    found = {}
    for name in names:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
