"""`sshr-deploy benchmark`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sshr_deploy.cli.benchmark_tables import print_kernels, print_training
from sshr_deploy.cli.commands import command
from sshr_deploy.cli.engine import open_model
from sshr_deploy.cli.help import Group
from sshr_deploy.cli.options import (
    AllowUnqualifiedOption,
    BundleArgument,
    EngineOption,
    PrecisionOption,
    ThreadsOption,
    WidthOption,
)
from sshr_deploy.errors import MissingExtraError, SshrDeployError, UsageError
from sshr_deploy.runtime.engines.kinds import AUTO

if TYPE_CHECKING:
    from sshr_deploy.bundle import Bundle
    from sshr_deploy.runtime.contract import Session

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
def latency(
    bundle: BundleArgument,
    engine: EngineOption = AUTO,
    precision: PrecisionOption = None,
    allow_unqualified: AllowUnqualifiedOption = False,
    batches: Annotated[
        str, typer.Option(metavar="N,N,...", help="Batch sizes in patches, with commas between.")
    ] = "1,4,8",
    seconds: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", min=0.1, max=3600, help="Measuring time for each batch size, in s."
        ),
    ] = 10.0,
    threads: ThreadsOption = None,
    json_file: JsonOption = None,
) -> None:
    """Warm latency in ms and throughput in patches/s by batch size.

    Median (p50) and quartiles (p25, p75); p95 from 20 calls on, p99 from 100 on. Cold start is told
    apart. The batch sizes take turns, so that a busy moment of the machine
    falls on all of them. Beside every speed stands how well the masks agree with PyTorch's, as it
    was found on this machine.
    """
    from sshr_deploy.atomic import check_writable, write_json
    from sshr_deploy.benchmarks.latency import measure_latency, parse_batches
    from sshr_deploy.cli.benchmark_tables import print_latency
    from sshr_deploy.runtime.pipeline.spec import RunSpec
    from sshr_deploy.runtime.settings import InferSettings, OpenOptions

    if json_file is not None:
        check_writable(json_file)
    sizes = parse_batches(batches)

    def opened(loaded: Bundle) -> Session:
        options = OpenOptions(precision, sizes[-1], allow_unqualified=allow_unqualified)
        spec = RunSpec(bundle, InferSettings(), engine, options, threads)
        return open_model(spec, bundle=loaded).session

    report = measure_latency(bundle, opened, sizes, seconds)
    print_latency(report)
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
    from sshr_deploy.benchmarks.latency import parse_batches
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
