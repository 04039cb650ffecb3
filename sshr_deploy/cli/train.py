"""`sshr-deploy train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sshr_deploy.cli.options import NAME_OR_FILE, ProfileOption, QuietOption, WidthOption
from sshr_deploy.errors import MissingExtraError


def train(
    dataset: Annotated[
        Path,
        typer.Argument(
            metavar="DATASET",
            help="Folder with training/ (patches, labels in their names: x[1 0 1].png) and, for "
            "scores, val/img and val/mask.",
        ),
    ],
    profile: ProfileOption,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder of the run to write.")],
    recipe: Annotated[
        str,
        typer.Option(
            metavar=NAME_OR_FILE,
            help="How to train: paper (as published), fast (the same in mixed precision), scratch "
            "(no initial weights), smoke (a try), or the path of your own .toml file.",
        ),
    ],
    width: WidthOption = 64,
    init: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Initial weights: the ImageNet file of MXNet (.params), .pth or .safetensors.",
            show_default="random",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run at --out from its last checkpoint.")
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=64,
            help="Processes that decode patches; 0 decodes in the training process.",
            show_default="by device",
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1024,
            help="CPU threads; another number than a resumed run was begun with changes the last "
            "digits of its sums.",
            show_default="the resumed run's, OMP_NUM_THREADS, or by width and cores",
        ),
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Train a network on patches with patch-level labels.

    Writes last.safetensors (to go on from, after each epoch and every few minutes),
    best.safetensors (the best epoch on val, of a small val by the mean of three epochs; for
    sshr-deploy export), metrics.jsonl, TensorBoard events, curves.png and val_overlays.png. Several
    GPUs: torchrun --nproc-per-node 4 -m sshr_deploy.train DATASET ...
    """
    try:
        from sshr_deploy.train.job import TrainingJob
        from sshr_deploy.train.run import train as run_training
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "a package", "train") from error
    from sshr_deploy.cli.console import say
    from sshr_deploy.cli.training_console import make_training_reporter, print_training_result
    from sshr_deploy.profiles import load_profile
    from sshr_deploy.train.recipe import load_recipe

    job = TrainingJob(
        dataset,
        load_profile(profile),
        load_recipe(recipe),
        out,
        width,
        init,
        resume,
        workers,
        threads,
    )
    with make_training_reporter(quiet=quiet) as reporter:
        result = run_training(job, reporter)
    if result.interrupted:
        if result.first:
            say(f"interrupted; {out} holds a checkpoint: add --resume to the same command to go on")
        raise typer.Exit(1)
    if result.first and not quiet:
        print_training_result(result.rows, out)
