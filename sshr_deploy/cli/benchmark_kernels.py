"""`sshr-deploy benchmark kernels`."""

from __future__ import annotations

from typing import Annotated

import typer

from sshr_deploy.cli.benchmark import JsonOption, benchmark_app
from sshr_deploy.cli.commands import command
from sshr_deploy.errors import MissingExtraError, SshrDeployError, UsageError


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

        from sshr_deploy.benchmarks.kernel_document import record_kernels
    except ModuleNotFoundError as error:
        extra = "kernels" if error.name == "triton" else "train"
        raise MissingExtraError(error.name or "a package", extra) from error
    from sshr_deploy.benchmarks.measuring.batches import parse_batches
    from sshr_deploy.benchmarks.report.recorder import Recorder
    from sshr_deploy.cli.benchmark_document import shown
    from sshr_deploy.cli.console import say
    from sshr_deploy.cli.kernels_table import print_kernels

    sizes = parse_batches(batches)
    if not torch.cuda.is_available():
        raise UsageError("PyTorch finds no NVIDIA GPU here, and these kernels are for one")
    settings = {"batches": sizes, "seconds": seconds}
    recorder = Recorder("kernels", None, settings, json_file)
    with shown(recorder, print_kernels, json_file):
        record_kernels(
            recorder,
            device=torch.device("cuda"),
            batches=sizes,
            seconds=seconds,
            on_step=say,
        )
    failed = [row.not_measured for row in recorder.document.rows if not row.samples]
    if failed:
        raise SshrDeployError(f"{len(failed)} forms failed, the first: {failed[0]}")
