"""`sshr-deploy benchmark slides`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from sshr_deploy.cli.benchmark import JsonOption, benchmark_app
from sshr_deploy.cli.benchmark_document import shown
from sshr_deploy.cli.commands import command
from sshr_deploy.cli.options import (
    BundleArgument,
    EngineOption,
    ForceMppOption,
    MppOption,
    ThreadsOption,
)
from sshr_deploy.runtime.engines.kinds import AUTO
from sshr_deploy.runtime.settings import CPU_BATCH


@command(benchmark_app, config=True)
def slides(
    bundle: BundleArgument,
    slide: Annotated[Path, typer.Argument(metavar="SLIDE", help="A slide with tissue.")],
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="SSHR weights that the bundle was exported from, for peers by PyTorch.",
            show_default="only peers that run the bundle's graph",
        ),
    ] = None,
    peers: Annotated[
        str,
        typer.Option(
            metavar="NAME,NAME,...",
            help="Peers whose names contain one of these, such as WSInfer,loop.",
            show_default="all",
        ),
    ] = "",
    rounds: Annotated[
        int, typer.Option(min=1, max=1000, help="Timed runs of each; ratios need 5.")
    ] = 5,
    mpp: MppOption = None,
    force_mpp: ForceMppOption = False,
    engine: EngineOption = AUTO,
    batch: Annotated[
        int, typer.Option(min=1, max=1024, help="Tiles in a call of the network.")
    ] = CPU_BATCH,
    threads: ThreadsOption = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=0, max=256, help="Processes that read for a DataLoader.", show_default="one a core"
        ),
    ] = None,
    json_file: JsonOption = None,
) -> None:
    """The same slide by sshr-deploy and by what one would take instead, in s and mm2/s.

    Same tiles (those of reference mode), same network in FP32, on the processor alone: plain loops
    over OpenSlide and a DataLoader, WSInfer's and TIAToolbox's own runners. Each run is a process
    of its own, and they take turns. First table: from its start to its end; second: without
    start-up, from the network that is ready to the end of what each does. Tiles alone: ours from
    the first tile that is read to the last label map, which is what the loops do. Times ours, times
    our tiles: how many times as long as sshr-deploy; not told where a side has fewer than 5 runs,
    makes no masks, or the machine was busy. Memory: largest of the process and its children, in
    MiB.

    Equal: share of the mask's pixels with our label, and of ours with PyTorch's on the bundle's
    reference patches. Below 99 % no speed is reported; peers that cannot read fractions of pixels
    may be below where the model's pixel is no whole number of the slide's: give --mpp 0.5
    --force-mpp for a file that says 0.499.

    WSInfer and TIAToolbox live in environments of their own, made by
    python -m sshr_deploy.benchmarks.peers.set_up wsinfer tiatoolbox
    """
    from sshr_deploy.benchmarks.report.recorder import Recorder
    from sshr_deploy.benchmarks.report.subject import subject_of
    from sshr_deploy.benchmarks.slides.contenders import peers_named
    from sshr_deploy.benchmarks.slides.job import SlideSettings
    from sshr_deploy.benchmarks.slides.measure import measure_slides
    from sshr_deploy.bundle import load_bundle
    from sshr_deploy.cli.console import say
    from sshr_deploy.cli.slides_table import print_slides

    chosen, loaded = peers_named(peers), load_bundle(bundle)
    settings = SlideSettings(
        engine=engine, batch=batch, threads=threads, workers=workers,
        mpp_um=mpp, force_mpp=force_mpp,
    )  # fmt: skip
    given = {"slide": slide.name, "rounds": rounds, **asdict(settings)}
    recorder = Recorder("slides", subject_of(loaded), given, json_file)
    with shown(recorder, print_slides, json_file):
        measure_slides(
            loaded, slide, checkpoint,
            peers=chosen, rounds=rounds, recorder=recorder, settings=settings, on_step=say,
        )  # fmt: skip
