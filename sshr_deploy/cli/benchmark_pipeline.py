"""`sshr-deploy benchmark pipeline`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sshr_deploy.cli.benchmark import JsonOption, benchmark_app
from sshr_deploy.cli.benchmark_document import shown
from sshr_deploy.cli.commands import command
from sshr_deploy.cli.engine import open_model
from sshr_deploy.cli.option_names import as_options
from sshr_deploy.cli.options import (
    AllowUnqualifiedOption,
    BatchOption,
    BundleArgument,
    EngineOption,
    ForceMppOption,
    ModeOption,
    MppOption,
    PrecisionOption,
    ReadersOption,
    StreamsOption,
    ThreadsOption,
)
from sshr_deploy.runtime.engines.kinds import AUTO
from sshr_deploy.runtime.settings import InferSettings, OpenOptions


@command(benchmark_app, config=True)
def pipeline(
    bundle: BundleArgument,
    slide: Annotated[
        Path,
        typer.Argument(
            metavar="SLIDE", help="A slide, or a folder of them that follow one another."
        ),
    ],
    rounds: Annotated[
        int, typer.Option(min=1, max=1000, help="Runs of each way; ratios need 5.")
    ] = 5,
    plan: Annotated[
        int | None,
        typer.Option(
            metavar="SLIDES",
            min=1,
            help="How long a day of so many slides like this keeps the machine busy, and what it "
            "would take to halve that.",
        ),
    ] = None,
    mode: ModeOption = None,
    mpp: MppOption = None,
    force_mpp: ForceMppOption = False,
    engine: EngineOption = AUTO,
    precision: PrecisionOption = None,
    batch: BatchOption = None,
    threads: ThreadsOption = None,
    streams: StreamsOption = None,
    readers: ReadersOption = None,
    allow_unqualified: AllowUnqualifiedOption = False,
    json_file: JsonOption = None,
) -> None:
    """A slide from end to end in s, stage by stage, and what limits it on this machine.

    Whole runs as sshr-deploy infer makes them, but that the engine is open: from the slide to the
    last file. In turns with them the engine alone, on the same tiles or fields, read before; and
    reading alone, by as many threads as the run has. Run over it: how many times as long the whole
    run takes. It is not told where a side has fewer than 5 rounds, or other work disturbed it.

    Second table, the stages by the run's own accounts, by the clock: where threads outnumber the
    cores, waiting for one counts. Work: seconds of all threads of the stage. Busy: of these
    threads' time. Engine waited: seconds that the engine's thread waited for the stage. Of the run:
    what the run spent on the stage or waited for it; these add up to the run, and the largest is
    the limit. Peak memory is that of the first run,
    which does not count otherwise.

    With --plan a slide is also run three times in a row, as in a queue: the next one is planned and
    the last one written while the engine computes. What would halve the day is told from the times
    of the engine alone and of reading alone, and not where other work disturbed them.
    """
    from sshr_deploy.benchmarks.pipeline.measure import measure_pipeline
    from sshr_deploy.benchmarks.report.recorder import Recorder
    from sshr_deploy.benchmarks.report.subject import subject_of
    from sshr_deploy.cli.console import say
    from sshr_deploy.cli.pipeline_table import print_pipeline
    from sshr_deploy.runtime.pipeline.spec import RunSpec

    settings = InferSettings(mode, mpp, force_mpp, readers=readers, overwrite=True)
    options = OpenOptions(precision, batch, allow_unqualified=allow_unqualified, streams=streams)
    spec = RunSpec(bundle, settings, engine, options, threads)
    with open_model(spec, for_slides=True) as model:
        context = model.context(model.settings, as_options)
        given = {
            "slide": slide.name, "rounds": rounds, "slides_a_day": plan, "mpp_um": mpp,
            "force_mpp": force_mpp, "mode": context.mode.value, "engine": engine,
            "precision": precision, "batch": context.settings.batch, "threads": threads,
            "streams": streams, "readers": readers, "allow_unqualified": allow_unqualified,
        }  # fmt: skip
        recorder = Recorder("pipeline", subject_of(model.bundle), given, json_file)
        with shown(recorder, print_pipeline, json_file):
            measure_pipeline(
                context, slide, recorder, rounds=rounds, slides_a_day=plan, on_step=say
            )
