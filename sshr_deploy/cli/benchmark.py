"""`sshr-deploy benchmark`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sshr_deploy.cli.benchmark_tables import print_kernels, print_training
from sshr_deploy.cli.commands import command
from sshr_deploy.cli.help import Group
from sshr_deploy.cli.options import BundleArgument, ThreadsOption, WidthOption
from sshr_deploy.errors import MissingExtraError, SshrDeployError, UsageError

benchmark_app = typer.Typer(
    cls=Group,
    name="benchmark",
    help="Measure a bundle, training or the GPU kernels on this machine.",
    no_args_is_help=True,
)

JsonOption = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", help="File for raw samples, environment and figures."),
]


@benchmark_app.callback()
def _group() -> None:
    """Measure a bundle, training or the GPU kernels on this machine."""


@command(benchmark_app, config=True)
def host(
    bundle: BundleArgument,
    slides: Annotated[
        Path,
        typer.Argument(
            metavar="SLIDES", help="A slide, or a folder of them that follow one another."
        ),
    ],
    side_px: Annotated[
        int,
        typer.Option(
            help="Side of the fields in px; 224 for the patches of reference mode.", min=224
        ),
    ] = 1344,
    patches_per_s: Annotated[
        float, typer.Option(min=1, help="Speed of the GPU that is played, in patches/s.")
    ] = 3000.0,
    batch: Annotated[
        int, typer.Option(min=1, max=1024, help="Fields, or patches, in a call of the engine.")
    ] = 1,
    readers: Annotated[
        int | None,
        typer.Option(min=1, max=256, help="Reading threads.", show_default="one a core"),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, max=100, help="Runs of each way.")] = 3,
    json_file: JsonOption = None,
) -> None:
    """Whether this machine keeps up with a GPU: everything but the network, in fields/s.

    Reading alone: the fields of the slides, by the reading threads and nothing else. Null: a whole
    run, with a stand-in for the engine that answers at once. Fixed: one that takes twice as long
    for a field as reading it. GPU: one that sleeps as long as a GPU of that speed computes. Of
    bound: the rate over that of reading alone (null), or over the stand-in's own (fixed, GPU).
    CPU: seconds of all threads for a field. The ways take turns.
    """
    from sshr_deploy.atomic import check_writable, write_json
    from sshr_deploy.benchmarks.host import measure_host
    from sshr_deploy.bundle import load_bundle
    from sshr_deploy.cli.benchmark_tables import print_host
    from sshr_deploy.cli.console import say
    from sshr_deploy.geometry import PATCH, field_geometry

    try:
        geometry = PATCH if side_px == PATCH.side_px else field_geometry(side_px)
    except ValueError as error:
        raise UsageError(f"--side-px {side_px}: {error}") from None
    if json_file is not None:
        check_writable(json_file)
    report = measure_host(
        load_bundle(bundle),
        slides,
        geometry,
        patches_per_s=patches_per_s,
        readers=readers,
        batch=batch,
        rounds=rounds,
        on_step=say,
    )
    print_host(report)
    if json_file is not None:
        write_json(json_file, report)
        typer.echo(str(json_file))


@command(benchmark_app, config=True)
def training(
    width: WidthOption = 64,
    batch: Annotated[
        int | None,
        typer.Option(
            min=1, max=1024, help="Patches a step.", show_default="4 on a CPU, 20 on a GPU"
        ),
    ] = None,
    rounds: Annotated[
        int,
        typer.Option(
            min=1, max=1000, help="Timed steps of each variant, after one (GPU: five) to warm up."
        ),
    ] = 5,
    classes: Annotated[int, typer.Option(min=1, max=16, help="Tissue classes.")] = 4,
    threads: ThreadsOption = None,
    json_file: JsonOption = None,
) -> None:
    """Time of a training step in ms and patches/s: as published, and as the recipes here run it.

    Random weights and random patches of 224 x 224 px, one process, on an NVIDIA GPU if there is
    one. The variants take turns, so that a busy moment of the machine falls on all of them.

    First table, HFRM (the rectification module) with its CAM heads alone, forward and backward,
    in FP32. Plain: the rectified feature maps with their 15x15 convolutions, as published. Pooled:
    the means over these maps that the losses need, without such a convolution. By feature level;
    "all": the three levels and the deep head together.

    Second table, whole steps: normalise, forward, losses, backward, optimiser. Published: recipe
    paper with plain HFRM, FP32 without TF32. Pooled: recipe paper. Fast: recipe fast, convolutions
    in BF16, on a GPU also channels_last and torch.compile. Speed-up: over published. GFLOP/s:
    multiplications and additions of convolutions and matrix products, as PyTorch counts them. On a
    GPU also the peak memory of each variant alone, in MB. A ratio is not reported where the
    quartiles of its two sides overlap, or are further apart than 15 % of the median: the machine
    was busy then.

    Before anything is timed, logits and gradients are compared with those of published on the same
    weights, dropout off; where one misses its bound (relative RMS error 1e-4 for pooled, 1e-3 for
    its worst gradient, 5e-2 for the logits of fast) no speed is reported. Gradients of fast are
    shown without a bound: those of a random network are small differences, and BF16 moves them by
    a few tenths.
    """
    try:
        from sshr_deploy.benchmarks.training import measure_training
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "a package", "train") from error
    from sshr_deploy.atomic import check_writable, write_json
    from sshr_deploy.cli.console import say

    if json_file is not None:
        check_writable(json_file)
    report = measure_training(
        width=width, batch=batch, rounds=rounds, classes=classes, on_step=say, threads=threads
    )
    print_training(report)
    if json_file is not None:
        write_json(json_file, report)
        typer.echo(str(json_file))


@command(benchmark_app, config=True)
def kernels(
    batches: Annotated[
        str, typer.Option(metavar="N,N,...", help="Batch sizes in patches, with commas between.")
    ] = "1,8,32,128",
    seconds: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", min=0.01, max=60, help="Measuring time for each form and size, in s."
        ),
    ] = 0.25,
    json_file: JsonOption = None,
) -> None:
    """Time of HFRM with its CAM head on an NVIDIA GPU, in ms: PyTorch's ways and the fused kernel.

    For the three feature levels of the full-size network, FP16 and BF16, four classes. Plain: as
    published; compiled: the same under torch.compile; separable: two dense convolutions; fused:
    the kernel, on features in NCHW and in channels_last. All from captured CUDA graphs, on inputs
    that are not in the cache.

    TFLOP/s and GB/s: the operations and the bytes of the fused form over the time. Floor: the
    larger of these bytes over a copy's bandwidth and these operations over a matrix product's
    rate, both measured first. Error: relative RMS against FP64; no speed is reported of a form that
    misses its bound (5e-3 in FP16, 2e-2 in BF16), and the command ends with an error.
    """
    try:
        import torch

        from sshr_deploy.benchmarks.kernels import measure_kernels
    except ModuleNotFoundError as error:
        extra = "kernels" if error.name == "triton" else "train"
        raise MissingExtraError(error.name or "a package", extra) from error
    from sshr_deploy.atomic import check_writable, write_json
    from sshr_deploy.benchmarks.measuring.batches import parse_batches
    from sshr_deploy.cli.console import say

    sizes = parse_batches(batches)
    if not torch.cuda.is_available():
        raise UsageError("PyTorch finds no NVIDIA GPU here, and these kernels are for one")
    if json_file is not None:
        check_writable(json_file)
    device = torch.device("cuda")
    report = measure_kernels(device=device, batches=sizes, seconds=seconds, on_step=say)
    print_kernels(report)
    if json_file is not None:
        write_json(json_file, report)
        typer.echo(str(json_file))
    failed = [row["failed"] for row in report["rows"] if "failed" in row]
    if failed:
        raise SshrDeployError(f"{len(failed)} forms failed, the first: {failed[0]}")
