"""`sshr-deploy benchmark latency`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from sshr_deploy.cli.benchmark import JsonOption, batches_option, benchmark_app
from sshr_deploy.cli.commands import command
from sshr_deploy.cli.options import (
    ENGINE,
    AllowUnqualifiedOption,
    BundleArgument,
    ModeOption,
    ThreadsOption,
)
from sshr_deploy.errors import UsageError
from sshr_deploy.precision import Precision

EnginesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--engine",
        metavar="NAME,...",
        help="Engines to measure; may be given several times, or with commas between.",
        show_default="all that work here",
        rich_help_panel=ENGINE,
    ),
]
PrecisionsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--precision",
        metavar="NAME,...",
        help="Precisions to measure; may be given several times, or with commas between.",
        show_default="all that the bundle has",
        rich_help_panel=ENGINE,
    ),
]


PeersOption = Annotated[
    bool,
    typer.Option(
        "--peers",
        help="Also what one would use instead: PyTorch in several ways, ONNX Runtime and OpenVINO "
        "as they come, trtexec where it is installed.",
    ),
]
CheckpointOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Weights that the bundle was exported from, for PyTorch; with --peers."
    ),
]

_BATCHES = {True: "1,4,8", False: "1,2,4"}
"""By whether the inputs are patches."""


@command(benchmark_app, config=True)
def latency(
    bundle: BundleArgument,
    engine: EnginesOption = None,
    precision: PrecisionsOption = None,
    allow_unqualified: AllowUnqualifiedOption = False,
    mode: ModeOption = None,
    batches: Annotated[str | None, batches_option(_BATCHES)] = None,
    seconds: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            min=0.1,
            max=3600,
            help="Measuring time of each way at each batch size, in s; six calls are made at "
            "least, and p99 needs 299.",
        ),
    ] = 10.0,
    cold: Annotated[
        int,
        typer.Option(min=0, max=100, help="Cold starts of each engine that count; 0 makes none."),
    ] = 5,
    base: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Way that the others are compared with, such as 'onnx-cpu fp32'.",
            show_default="PyTorch eager, else onnx-cpu fp32, else the first",
        ),
    ] = None,
    peers: PeersOption = False,
    checkpoint: CheckpointOption = None,
    threads: ThreadsOption = None,
    json_file: JsonOption = None,
) -> None:
    """Time of a call in ms by engine, precision and batch size, warm and from a cold start.

    A call is what a batch of a slide takes, through the session's stream, in the mode that slides
    take by default: in seamless mode from fields to activation maps, as label maps are made of all
    of a slide; in reference mode from patches to label maps. All ways take turns at each batch
    size, so that a busy moment of the machine falls on all of them. Percentiles stand with the
    interval that holds the true one with 95 %, where there are enough calls for it: 6 for p50, 29
    for p90, 59 for p95, 299 for p99. Throughput, in patches/s or fields/s, is that of the median
    call.

    Agreement: share of mask pixels equal to PyTorch's FP32 on the bundle's reference patches or
    fields, found in this run. A way whose masks miss their bounds gets no time. Speed: how many
    times as fast as --base, by medians; not told where the two overlap, or where the machine was
    busy. Of ceiling: the network's GFLOP/s over those of a large matrix product of the processor in
    that precision, in the same run. Where calls share the threads (streams), a call alone has a
    part of them; "1 stream" is the same engine with all threads for each call.

    Cold start: a process of its own each time, from its start to its first patch or field, in s.
    What is built once on a machine is told apart. The first process of an engine compares its masks
    too, once its time is taken. The bundle's files are in the system's cache then; after a boot,
    reading them takes longer. `benchmark compare` needs 5 starts.
    """
    from dataclasses import asdict

    from sshr_deploy.benchmarks.contenders.bundle import bundle_contenders, left_out
    from sshr_deploy.benchmarks.contenders.peers import peers as peers_of
    from sshr_deploy.benchmarks.contenders.peers import peers_left_out
    from sshr_deploy.benchmarks.contenders.trtexec import trtexec_peers
    from sshr_deploy.benchmarks.latency.measure import measure_latency
    from sshr_deploy.benchmarks.latency.settings import LatencySettings
    from sshr_deploy.benchmarks.measuring.batches import parse_batches
    from sshr_deploy.benchmarks.report.recorder import Recorder
    from sshr_deploy.benchmarks.report.subject import subject_of
    from sshr_deploy.bundle import load_bundle
    from sshr_deploy.cli.benchmark_document import shown
    from sshr_deploy.cli.console import say
    from sshr_deploy.cli.latency_table import print_latency
    from sshr_deploy.runtime.machine.threads import choose_threads
    from sshr_deploy.runtime.pipeline.sessions import choose_mode
    from sshr_deploy.runtime.settings import Mode

    if checkpoint is not None and not peers:
        raise UsageError("`checkpoint` is for PyTorch beside the bundle; give `peers` too")
    given = None if batches is None else parse_batches(batches)
    engines = split_names(engine)
    precisions = [Precision.of(name) for name in split_names(precision)]
    loaded = load_bundle(bundle)
    if (taken := choose_mode(mode, loaded)) is Mode.SEAMLESS:
        loaded = loaded.on_fields()
    sizes = given or parse_batches(_BATCHES[loaded.geometry.is_patch])
    count = choose_threads(loaded.manifest.model.width, threads).count
    settings = LatencySettings(sizes, seconds, base, cold, count, allow_unqualified)
    ways = bundle_contenders(
        loaded,
        engines=engines,
        precisions=precisions,
        threads=count,
        allow_unqualified=allow_unqualified,
        on_step=say,
    )
    ways += peers_of(loaded, checkpoint) if peers else []
    apart = trtexec_peers(loaded) if peers else []
    recorder = Recorder(
        "latency", subject_of(loaded), {**asdict(settings), "mode": taken}, json_file
    )
    absent = peers_left_out(loaded, checkpoint) if peers else None
    for note in (left_out(loaded, engines), absent):
        if note is not None:
            recorder.note(note)
    with shown(recorder, print_latency, json_file):
        measure_latency(loaded, ways, settings, recorder, say, apart=apart)


def split_names(texts: Sequence[str] | None) -> list[str]:
    """Names of an option that is given several times, or with commas between."""
    return [name.strip() for text in texts or () for name in text.split(",") if name.strip()]
