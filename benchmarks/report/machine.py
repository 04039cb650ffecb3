"""The machine of a document in one line."""

from __future__ import annotations

from collections.abc import Iterator

from sshr_deploy.benchmarks.report.records import BenchmarkDocument, Load
from sshr_deploy.errors import counted


def machine_line(document: BenchmarkDocument, threads: int | None = None) -> str:
    """ "AMD EPYC, 2 cores, 2.4 to 3.1 GHz, 2 threads, load 0.3 to 1.9, other work 2%"; what is not
    known is left out."""
    environment, load = document.environment, document.load
    parts = [environment.processor, counted(environment.cores, "core")]
    parts += [*_cpu_clocks(load), *(gpu.name for gpu in environment.gpus), *_gpu_clocks(load)]
    parts += [] if threads is None else [counted(threads, "thread")]
    averages = [f"{average:.1f}" for average in (load.before, load.after) if average is not None]
    parts += [f"load {' to '.join(averages)}"] if averages else []
    parts += [] if load.other_work is None else [f"other work {load.other_work:.0%}"]
    return ", ".join(parts)


def _cpu_clocks(load: Load) -> Iterator[str]:
    found = [clocks for clocks in (load.clocks_before, load.clocks_after) if clocks is not None]
    told = [f"{clocks.cpu_mhz / 1e3:.2f}" for clocks in found if clocks.cpu_mhz is not None]
    if told:
        yield f"{' to '.join(dict.fromkeys(told))} GHz"
    if found and (governor := found[-1].governor) is not None:
        yield f"governor {governor}"


def _gpu_clocks(load: Load) -> Iterator[str]:
    """Those under load: before, a GPU idles."""
    mhz = () if load.clocks_after is None else load.clocks_after.gpu_sm_mhz
    told = [str(clock) for clock in mhz if clock is not None]
    if told:
        yield f"GPU clock {' and '.join(told)} MHz"
