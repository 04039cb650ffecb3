"""`sshr-deploy benchmark int8`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from sshr_deploy.cli.benchmark import JsonOption, benchmark_app
from sshr_deploy.cli.commands import command
from sshr_deploy.cli.options import (
    AllowUnqualifiedOption,
    CheckpointProfileOption,
    RelabelOption,
    ThreadsOption,
)
from sshr_deploy.errors import MissingExtraError, UsageError


@command(benchmark_app, config=True)
def int8(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="SSHR weights, as for export.")
    ],
    patches: Annotated[
        Path | None,
        typer.Option(
            help="Patches to calibrate and to compare on: a folder of images, or a split with "
            "img/ and mask/.",
            show_default="six crops of a CC0 slide, shipped",
        ),
    ] = None,
    profile: CheckpointProfileOption = None,
    relabel: RelabelOption = False,
    keep: Annotated[
        str,
        typer.Option(
            metavar="LAYERS",
            help="Layers of the mix that stay FP32, with commas between: conv1a,b2.conv_branch2a.",
            show_default="none",
        ),
    ] = "",
    weight_bits: Annotated[
        int,
        typer.Option(min=7, max=8, help="Bits of a weight; 7 where the processor has no VNNI."),
    ] = 8,
    ranges: Annotated[
        str,
        typer.Option(
            metavar="METHOD", help="How ranges are found: min-max, p99.9, p99.99, p99.999 or mse."
        ),
    ] = "mse",
    seconds: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            min=0.1,
            max=3600,
            help="Measuring time of each way, in s; six patches are made at least.",
        ),
    ] = 10.0,
    allow_unqualified: AllowUnqualifiedOption = False,
    threads: ThreadsOption = None,
    json_file: JsonOption = None,
) -> None:
    """Time of a patch in ms on this processor: PyTorch, FP32, all of it in INT8, and a mix.

    One patch a call; the ways take turns, so that a busy moment of the machine falls on all of
    them. A ratio is not reported where the machine was busy: the quartiles of its two sides
    overlap, or are further apart than 15 % of the median, or other work took more than 10 %.

    Beside each stands how well its masks and CAMs agree with PyTorch's; one whose masks miss the
    bounds of export gets no time. What mix a budget allows, sshr-deploy export --precision int8
    finds out.
    """
    try:
        from sshr_deploy.benchmarks.int8 import Int8Settings, checkpoint_subject, measure_int8
        from sshr_deploy.export.int8.activation_ranges import RangeMethod
        from sshr_deploy.export.reference import (
            patches_from_folder,
            shipped_patches,
        )
        from sshr_deploy.model.checkpoint import check_labels, load_checkpoint, read_profile
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "a package", "export") from error
    from sshr_deploy.benchmarks.report.recorder import Recorder
    from sshr_deploy.cli.benchmark_document import shown
    from sshr_deploy.cli.console import say
    from sshr_deploy.cli.int8_table import print_int8
    from sshr_deploy.profiles import load_profile

    methods = [method.value for method in RangeMethod]
    if ranges not in methods:
        raise UsageError(f"--ranges {ranges!r}: choose {', '.join(methods)}")
    loaded = read_profile(checkpoint) if profile is None else load_profile(profile)
    check_labels(checkpoint, loaded, relabel=relabel)
    chosen = (
        shipped_patches()
        if patches is None
        else patches_from_folder(patches, loaded, relabel=relabel)
    )
    kept = tuple(name.strip() for name in keep.split(",") if name.strip())
    settings = Int8Settings(
        kept, weight_bits, RangeMethod(ranges), seconds, threads, allow_unqualified
    )
    model = load_checkpoint(checkpoint)
    subject = checkpoint_subject(checkpoint, model, loaded)
    recorder = Recorder("int8", subject, asdict(settings), json_file)
    with shown(recorder, print_int8, json_file):
        measure_int8(model, loaded, chosen, settings, recorder, say)
