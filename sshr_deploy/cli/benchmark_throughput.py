"""`sshr-deploy benchmark throughput`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sshr_deploy.cli.benchmark import JsonOption, batches_option, benchmark_app
from sshr_deploy.cli.commands import command
from sshr_deploy.cli.options import (
    AllowUnqualifiedOption,
    BundleArgument,
    EngineOption,
    ModeOption,
    PrecisionOption,
    ThreadsOption,
)
from sshr_deploy.errors import UsageError
from sshr_deploy.runtime.engines.kinds import AUTO

if TYPE_CHECKING:
    from sshr_deploy.benchmarks.report.records import Kind

_BATCHES = {True: "1,2,4,8,16,32,64", False: "1,2,4"}
"""By whether the inputs are patches."""


@command(benchmark_app, config=True)
def throughput(
    bundle: BundleArgument,
    engine: EngineOption = AUTO,
    precision: PrecisionOption = None,
    mode: ModeOption = None,
    batches: Annotated[str | None, batches_option(_BATCHES)] = None,
    streams: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,...",
            help="Calls of ONNX Runtime at the same time on a CPU, with commas between.",
            show_default="1,2,4 and so on up to the threads",
        ),
    ] = None,
    seconds: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", min=0.1, max=3600, help="Measuring time of each setting, in s."
        ),
    ] = 5.0,
    slide_mm2: Annotated[
        float | None,
        typer.Option(
            metavar="MM2",
            min=0.01,
            max=10000,
            help="Tissue of a slide in mm2, for slides/h and joules a slide.",
        ),
    ] = None,
    slide: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The same for a slide, whose tissue is found."),
    ] = None,
    soak: Annotated[
        float | None,
        typer.Option(
            metavar="MINUTES",
            min=0.01,
            max=10000,
            help="Compute so long without a pause instead, in the batch and streams of infer or "
            "the first of --batches and --streams: rates by windows of 10 s, with temperature, "
            "clocks and power.",
        ),
    ] = None,
    threads: ThreadsOption = None,
    allow_unqualified: AllowUnqualifiedOption = False,
    json_file: JsonOption = None,
) -> None:
    """Patches/s (seamless: fields/s), mm2/s and slides/h by batch and calls at the same time.

    Through the session's stream, as slides are computed, but with nothing beside it; pipeline
    measures a whole slide. All settings take turns. Larger batches are not tried where two in a
    row gained nothing (2 %). The knee is the smallest setting within 5 % of the best rate. Joules
    are told where RAPL (CPU) or NVML (GPU) can be read. Ctrl-C shows what there is so far.
    """
    from sshr_deploy.benchmarks.measuring.batches import parse_batches
    from sshr_deploy.benchmarks.report.recorder import Recorder
    from sshr_deploy.benchmarks.report.subject import subject_of
    from sshr_deploy.benchmarks.throughput.engine import BundleEngine
    from sshr_deploy.benchmarks.throughput.measure import measure_throughput
    from sshr_deploy.benchmarks.throughput.slide_amount import stated_amount
    from sshr_deploy.benchmarks.throughput.soak import measure_soak
    from sshr_deploy.bundle import load_bundle
    from sshr_deploy.cli.benchmark_document import shown
    from sshr_deploy.cli.console import say
    from sshr_deploy.cli.throughput_table import print_throughput
    from sshr_deploy.runtime.pipeline.sessions import choose_mode
    from sshr_deploy.runtime.settings import Mode

    if slide_mm2 is not None and slide is not None:
        raise UsageError("--slide-mm2 and --slide both state a slide; give one")
    loaded = load_bundle(bundle)
    if (taken := choose_mode(mode, loaded)) is Mode.SEAMLESS:
        loaded = loaded.on_fields()
    amount = stated_amount(loaded, slide_mm2, slide)
    wanted = BundleEngine(
        loaded,
        engine,
        precision,
        threads=threads,
        allow_unqualified=allow_unqualified,
        on_step=say,
    )
    sizes = parse_batches(batches or _BATCHES[loaded.geometry.is_patch])
    counts = _doublings(wanted.threads) if streams is None else parse_batches(streams, "streams")
    if soak is not None:  # of one setting: what is not given is as infer has it
        sizes, counts = sizes[: batches is not None], counts[: streams is not None]
    settings = {
        "engine": engine, "precision": precision, "mode": taken, "batches": sizes,
        "streams": counts, "seconds": seconds, "slide_mm2": slide_mm2,
        "slide": None if slide is None else slide.name, "soak_minutes": soak,
        "threads": wanted.threads,
    }  # fmt: skip
    kind: Kind = "throughput" if soak is None else "soak"
    recorder = Recorder(kind, subject_of(loaded), settings, json_file)
    with shown(recorder, print_throughput, json_file):
        if soak is not None:
            batch, count = next(iter(sizes), None), next(iter(counts), None)
            measure_soak(wanted, recorder, batch=batch, streams=count, minutes=soak, amount=amount)
            return
        measure_throughput(
            wanted, recorder, batches=sizes, streams=counts, seconds=seconds, amount=amount
        )


def _doublings(most: int) -> list[int]:
    """1, 2, 4 and so on, and the most."""
    return sorted({*(1 << power for power in range(most.bit_length())), most})
