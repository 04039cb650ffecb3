"""The NVIDIA GPUs of this machine, as the driver's own `nvidia-smi` lists them; no library needed.

    for gpu in find_gpus():
        print(gpu.name, sm_text(gpu.sm))
    if not find_gpus():
        print(why_no_gpu())
    print(first_gpu().name)  # the one that CUDA takes

nvidia-smi is started once in a process.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from sshr_deploy.errors import SessionError, one_line
from sshr_deploy.runtime.machine.child_process import run_child

PROGRAM = "nvidia-smi"
TIMEOUT_S = 30.0
"""Where no process keeps the driver awake, each GPU takes seconds to start."""
_QUERY = (
    "--query-gpu=index,uuid,name,compute_cap,driver_version,memory.total",
    "--format=csv,noheader,nounits",
)
_NO_DRIVER = (
    f"no NVIDIA GPU: {PROGRAM} is not on the PATH; where there is one, install NVIDIA's driver"
)
_HIDE_ALL = ("", "-1", "NoDevFiles")
"""Values of CUDA_VISIBLE_DEVICES that hide every GPU; the last comes from schedulers."""


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
    uuid: str = ""
    """As CUDA_VISIBLE_DEVICES may name it, "GPU-8932f937-..."; empty where it is not told."""


def find_gpus(timeout_s: float = TIMEOUT_S) -> tuple[Gpu, ...]:
    """The GPUs in the order of their index; none where there are none or they cannot be asked.

    Raises nothing: `why_no_gpu` says what is wrong.
    """
    return _ask(shutil.which(PROGRAM), timeout_s)[0]


def why_no_gpu(timeout_s: float = TIMEOUT_S) -> str:
    """One line: why `find_gpus` has none, and what mends that; empty where it has some."""
    return _ask(shutil.which(PROGRAM), timeout_s)[1]


def number_by_bus() -> None:
    """Make CUDA count as the driver does, unless the user's environment says otherwise.

    By default CUDA counts the fastest GPU first. It reads this when it starts.
    """
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")


def first_gpu() -> Gpu:
    """The GPU that is device 0 of CUDA in this process.

    Raises:
        SessionError: there is none, or `first_visible` cannot tell it.
    """
    number_by_bus()
    gpus = find_gpus()
    if not gpus:
        raise SessionError(why_no_gpu())
    return first_visible(gpus, os.environ.get("CUDA_VISIBLE_DEVICES"))


def first_visible(gpus: Sequence[Gpu], visible: str | None) -> Gpu:
    """The first GPU of those that CUDA_VISIBLE_DEVICES leaves, by number or start of the UUID.

    Source: NVIDIA, CUDA C++ Programming Guide, "CUDA Environment Variables".

    Args:
        gpus: all of this machine, at least one.
        visible: the variable's value; None where it is not set.

    Raises:
        SessionError: it hides every GPU, names a slice of one, or names none or several here.
    """
    if visible is None:
        return gpus[0]
    first, said = visible.split(",")[0].strip(), f"CUDA_VISIBLE_DEVICES is {visible.strip()!r}"
    if first in _HIDE_ALL:
        raise SessionError(
            f"{said}, which hides every GPU; unset it, or name the GPU, such as {gpus[0].index}"
        )
    if first.startswith("MIG-"):
        raise SessionError(
            f"{said}, a slice of a GPU; engines are proven for whole GPUs: name one by its number "
            "or UUID, or take `engine` onnx-cpu"
        )
    is_uuid = first.startswith("GPU-")
    named = [
        gpu for gpu in gpus if (gpu.uuid.startswith(first) if is_uuid else str(gpu.index) == first)
    ]
    if len(named) != 1:
        names = ", ".join(f"{gpu.index} ({gpu.uuid or 'no UUID told'})" for gpu in gpus)
        which = "more than one GPU" if named else "no GPU"
        raise SessionError(f"{said}, whose first names {which} here; give one of {names}")
    return named[0]


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
    if not index.isdecimal() or len(middle) < 5:
        return None
    uuid, *name, capability, driver, memory = middle  # a name may hold commas
    major, dot, minor = capability.partition(".")
    if not (dot and major.isdecimal() and minor.isdecimal() and len(minor) == 1):
        return None
    return Gpu(
        index=int(index),
        name=one_line(", ".join(name)),
        sm=10 * int(major) + int(minor),
        driver=driver if driver[:1].isdecimal() else "unknown",
        memory_mib=int(memory) if memory.isdecimal() else 0,
        uuid=uuid if uuid.startswith("GPU-") else "",
    )
