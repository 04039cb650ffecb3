"""`sshr-deploy benchmark training`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from sshr_deploy.cli.benchmark import JsonOption, benchmark_app
from sshr_deploy.cli.commands import command
from sshr_deploy.cli.options import ThreadsOption, WidthOption
from sshr_deploy.errors import MissingExtraError


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
    machine was busy: the quartiles of its two sides overlap, or are further apart than 15 % of the
    median, or other work took more than 10 %.

    Before anything is timed, logits and gradients are compared with those of published on the same
    weights, dropout off; where one misses its bound (relative RMS error 1e-4 for pooled, 1e-3 for
    its worst gradient, 5e-2 for the logits of fast) no speed is reported. Gradients of fast are
    shown without a bound: those of a random network are small differences, and BF16 moves them by
    a few tenths.
    """
    try:
        from sshr_deploy.benchmarks.training import TrainingSettings, measure_training, usual_batch
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "a package", "train") from error
    from sshr_deploy.benchmarks.report.recorder import Recorder
    from sshr_deploy.cli.benchmark_document import shown
    from sshr_deploy.cli.console import say
    from sshr_deploy.cli.training_table import print_training

    settings = TrainingSettings(width, batch or usual_batch(), rounds, classes, threads)
    recorder = Recorder("training", None, asdict(settings), json_file)
    with shown(recorder, print_training, json_file):
        measure_training(settings, recorder, say)
