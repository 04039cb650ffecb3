"""The machine of a document in one line."""

from __future__ import annotations

from sshr_deploy.benchmarks.report.records import BenchmarkDocument
from sshr_deploy.errors import counted


def machine_line(document: BenchmarkDocument, threads: int | None = None) -> str:
    """ "AMD EPYC, 2 cores, 2 threads, load 0.3 to 1.9, other work 2%"; what is not known is left
    out."""
    environment, load = document.environment, document.load
    parts = [environment.processor, counted(environment.cores, "core")]
    parts += [gpu.name for gpu in environment.gpus]
    parts += [] if threads is None else [counted(threads, "thread")]
    averages = [f"{average:.1f}" for average in (load.before, load.after) if average is not None]
    parts += [f"load {' to '.join(averages)}"] if averages else []
    parts += [] if load.other_work is None else [f"other work {load.other_work:.0%}"]
    return ", ".join(parts)
