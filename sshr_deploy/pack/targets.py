"""Workstations that a kit can be made for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from sshr_deploy.runtime.engines.kinds import TENSORRT, TENSORRT_RTX

# The wheels' names for Linux by glibc, newest first. 2.28 is that of RHEL 8; Debian 11 and
# Ubuntu 20.04 are newer. Every dependency has a wheel for it.
_MANYLINUX = (
    *(f"manylinux_2_{minor}_x86_64" for minor in range(28, 16, -1)),
    "manylinux2014_x86_64",
    "manylinux_2_12_x86_64",
    "manylinux2010_x86_64",
    "manylinux_2_5_x86_64",
    "manylinux1_x86_64",
)


class TargetName(StrEnum):
    """Values of `sshr-deploy pack --target`."""

    LINUX_CPU = "linux-x86_64-cpu"
    LINUX_CUDA = "linux-x86_64-cuda"
    LINUX_RTX = "linux-x86_64-rtx"
    LINUX_TENSORRT = "linux-x86_64-tensorrt"
    WINDOWS_CPU = "win_amd64-cpu"
    WINDOWS_RTX = "win_amd64-rtx"


@dataclass(frozen=True)
class System:
    """An operating system and processor."""

    system: str
    """As `platform.system()` names it there."""
    machine: str
    """As `platform.machine()` names it there."""
    tags: tuple[str, ...]
    """Platform tags of its wheels, the preferred first."""
    markers: Mapping[str, str]
    """Values of environment markers of requirements there."""


@dataclass(frozen=True)
class Target:
    """Kind of machine that a kit is made for."""

    name: TargetName
    on: System
    extras: tuple[str, ...]
    """Of our own package."""
    has_gpu: bool
    source_only: tuple[str, ...] = ()
    """Packages without any wheel on the index, pure Python: built where the kit is packed."""
    hint: str = ""
    """Advice where pip does not find a package."""
    note: str = ""
    """A caution for the user, before relying on it."""


_LINUX = System(
    "Linux",
    "x86_64",
    _MANYLINUX,
    {
        "os_name": "posix",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
    },
)
_WINDOWS = System(
    "Windows",
    "AMD64",
    ("win_amd64",),
    {
        "os_name": "nt",
        "sys_platform": "win32",
        "platform_system": "Windows",
        "platform_machine": "AMD64",
    },
)
_RTX_SOURCES = (f"{TENSORRT_RTX.package}", f"{TENSORRT_RTX.package}-cu13")
_NVIDIA_INDEX = (
    "TensorRT's libraries come from NVIDIA's own package index: name that index in "
    "PIP_EXTRA_INDEX_URL, or a folder with its wheels in PIP_FIND_LINKS"
)
_UNTESTED = "no kit has been installed on Windows yet"

_ALL = (
    Target(TargetName.LINUX_CPU, _LINUX, ("cpu",), has_gpu=False),
    Target(TargetName.LINUX_CUDA, _LINUX, ("gpu",), has_gpu=True),
    Target(TargetName.LINUX_RTX, _LINUX, ("cpu", "rtx"), has_gpu=True, source_only=_RTX_SOURCES),
    Target(
        TargetName.LINUX_TENSORRT,
        _LINUX,
        ("gpu", "tensorrt"),
        has_gpu=True,
        source_only=(f"{TENSORRT.package}", f"{TENSORRT.package}-cu13"),
        hint=_NVIDIA_INDEX,
    ),
    Target(TargetName.WINDOWS_CPU, _WINDOWS, ("cpu",), has_gpu=False, note=_UNTESTED),
    Target(
        TargetName.WINDOWS_RTX,
        _WINDOWS,
        ("cpu", "rtx"),
        has_gpu=True,
        source_only=_RTX_SOURCES,
        note=_UNTESTED,
    ),
)
_EVERYWHERE = ("view", "watch")
"""Extras of every kit: small, and nobody can add them later without internet."""
TARGETS = {target.name: replace(target, extras=(*target.extras, *_EVERYWHERE)) for target in _ALL}
