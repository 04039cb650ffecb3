"""The NVIDIA GPUs of this machine, as the driver's own `nvidia-smi` lists them; no library needed.

    for gpu in find_gpus():
        print(gpu.name, sm_text(gpu.sm))
    if not find_gpus():
        print(why_no_gpu())

It is asked once a process.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from functools import cache

from sshr_deploy.errors import one_line
from sshr_deploy.runtime.child import run_child

PROGRAM = "nvidia-smi"
TIMEOUT_S = 30.0
"""Where no process keeps the driver awake, each GPU takes seconds to start."""
_QUERY = (
    "--query-gpu=index,name,compute_cap,driver_version,memory.total",
    "--format=csv,noheader,nounits",
)
_NO_DRIVER = (
    f"no NVIDIA GPU: {PROGRAM} is not on the PATH; where there is one, install NVIDIA's driver"
)


@dataclass(frozen=True)
class Gpu:
    """One GPU."""

    index: int
    """By place on the bus; CUDA counts the fastest first, CUDA_DEVICE_ORDER=PCI_BUS_ID like this.

    CUDA_VISIBLE_DEVICES changes CUDA's numbers, not these.
    """
    name: str
    sm: int
    """89 for SM 8.9."""
    driver: str
    """Version, "580.95.05"; "unknown" where it is not told."""
    memory_mib: int
    """All of it; 0 where it is not told, as on chips that share the system's memory."""


def find_gpus(timeout_s: float = TIMEOUT_S) -> tuple[Gpu, ...]:
    """The GPUs in the order of their index; none where there are none or they cannot be asked.

    Raises nothing: `why_no_gpu` says what is wrong.
    """
    return _ask(shutil.which(PROGRAM), timeout_s)[0]


def why_no_gpu(timeout_s: float = TIMEOUT_S) -> str:
    """One line: why `find_gpus` has none, and what mends that; empty where it has some."""
    return _ask(shutil.which(PROGRAM), timeout_s)[1]


@cache
def _ask(program: str | None, timeout_s: float) -> tuple[tuple[Gpu, ...], str]:
    """GPUs, or the reason for none."""
    if program is None:
        return (), _NO_DRIVER
    try:
        code, out, err = run_child([program, *_QUERY], timeout_s)
    except subprocess.TimeoutExpired:
        return (), (
            f"{PROGRAM} did not answer in {timeout_s:g} s: the driver hangs; restart the machine"
        )
    except OSError as error:
        return (), (
            f"{PROGRAM} cannot be started: {error.strerror or error}; install NVIDIA's driver again"
        )
    lines = [line.strip() for line in f"{out}\n{err}".splitlines() if line.strip()]
    gpus = [gpu for line in lines if (gpu := _parse(line)) is not None]
    if gpus:
        return tuple(sorted(gpus, key=lambda gpu: gpu.index)), ""
    said = f"says: {one_line(lines[0])[:200].rstrip('. ')}" if lines else "lists none"
    if code:
        said = f"failed, it {said}" if lines else f"failed with exit code {code} and says nothing"
        return (), f"{PROGRAM} {said}; install or update NVIDIA's driver, then restart"
    return (), f"no NVIDIA GPU: {PROGRAM} {said}; check that the card is seated and switched on"


def _parse(line: str) -> Gpu | None:
    """A GPU of a line of the query; None for anything else, such as a line about a MIG slice."""
    index, *middle = (part.strip() for part in line.split(","))
    if not index.isdecimal() or len(middle) < 4:
        return None
    *name, capability, driver, memory = middle  # a name may hold commas
    major, dot, minor = capability.partition(".")
    if not (dot and major.isdecimal() and minor.isdecimal() and len(minor) == 1):
        return None
    return Gpu(
        index=int(index),
        name=one_line(", ".join(name)),
        sm=10 * int(major) + int(minor),
        driver=driver if driver[:1].isdecimal() else "unknown",
        memory_mib=int(memory) if memory.isdecimal() else 0,
    )
