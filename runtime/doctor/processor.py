"""Processor and system, as they describe themselves."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from sshr_deploy.runtime.doctor.report import Machine, Processor
from sshr_deploy.runtime.machine.processor import CPUINFO, processor_flags, processor_name
from sshr_deploy.runtime.machine.threads import usable_cores


def look_at_machine(cpuinfo: Path = CPUINFO) -> Machine:
    """This computer; `cpuinfo` is the kernel's list of processors, which only Linux has."""
    flags = processor_flags(cpuinfo)
    return Machine(
        platform=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        processor=Processor(
            name=processor_name(),
            cores=usable_cores(),
            avx2=None if flags is None else "avx2" in flags,
            avx512=None if flags is None else "avx512f" in flags,
            vnni=None if flags is None else bool(flags & {"avx512_vnni", "avx_vnni"}),
        ),
        memory_mib=_memory_mib(),
    )


def _memory_mib() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return None
