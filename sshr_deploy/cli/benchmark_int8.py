"""`sshr-deploy benchmark int8`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sshr_deploy.cli.benchmark import JsonOption, benchmark_app
from sshr_deploy.cli.commands import command
from sshr_deploy.cli.options import CheckpointProfileOption, RelabelOption, ThreadsOption
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
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="Timed patches of each way.")] = 15,
    threads: ThreadsOption = None,
    json_file: JsonOption = None,
) -> None:
    """Time of a patch in ms on this processor: PyTorch, FP32, all of it in INT8, and a mix.

    One patch a call; the ways take turns, so that a busy moment of the machine falls on all of
    them. A ratio is not reported where the quartiles of its two sides overlap, or are further
    apart than 15 % of the median: the machine was busy then.

    Beside each stands how well its masks and CAMs agree with PyTorch's. What mix a budget
    allows, sshr-deploy export --precision int8 finds out.
    """
    try:
        from sshr_deploy.benchmarks.int8 import measure_int8
        from sshr_deploy.export.int8.activation_ranges import RangeMethod
        from sshr_deploy.export.reference import (
            patches_from_folder,
            shipped_patches,
        )
        from sshr_deploy.model.checkpoint import check_labels, read_profile
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "a package", "export") from error
    from sshr_deploy.atomic import check_writable, write_json
    from sshr_deploy.cli.benchmark_tables import print_int8
    from sshr_deploy.profiles import load_profile

    methods = [method.value for method in RangeMethod]
    if ranges not in methods:
        raise UsageError(f"--ranges {ranges!r}: choose {', '.join(methods)}")
    if json_file is not None:
        check_writable(json_file)
    loaded = read_profile(checkpoint) if profile is None else load_profile(profile)
    check_labels(checkpoint, loaded, relabel=relabel)
    report = measure_int8(
        checkpoint,
        loaded,
        shipped_patches()
        if patches is None
        else patches_from_folder(patches, loaded, relabel=relabel),
        keep=[name.strip() for name in keep.split(",") if name.strip()],
        weight_bits=weight_bits,
        method=RangeMethod(ranges),
        rounds=rounds,
        threads=threads,
    )
    print_int8(report)
    if json_file is not None:
        write_json(json_file, report)
        typer.echo(str(json_file))
