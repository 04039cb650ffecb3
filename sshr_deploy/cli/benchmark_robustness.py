"""`sshr-deploy benchmark robustness`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sshr_deploy.cli.benchmark import JsonOption, benchmark_app
from sshr_deploy.cli.commands import command
from sshr_deploy.cli.options import (
    AllowUnqualifiedOption,
    BatchOption,
    CheckpointProfileOption,
    EngineOption,
    LargeOption,
    PrecisionOption,
    QuietOption,
    RelabelOption,
    ThreadsOption,
)
from sshr_deploy.cli.scored_model import (
    SCORED_HELP,
    SplitArgument,
    Wanted,
    check_outputs,
    scored_model,
)
from sshr_deploy.errors import MissingExtraError, UsageError
from sshr_deploy.runtime.engines.kinds import AUTO, default_batch
from sshr_deploy.runtime.settings import LargeImages, Mode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sshr_deploy.benchmarks.robustness import Subject


@command(benchmark_app, config=True)
def robustness(
    split: SplitArgument,
    model: Annotated[
        list[Path],
        typer.Option(
            "--model",
            help=f"{SCORED_HELP} Several times, such as before and after sshr-deploy adapt: the "
            "others are compared with the first.",
        ),
    ],
    profile: CheckpointProfileOption = None,
    relabel: RelabelOption = False,
    mode: Annotated[
        Mode | None,
        typer.Option(
            help="How large images are taken, as in evaluate.",
            show_default="seamless, but where a bundle has no graphs for fields",
        ),
    ] = None,
    large: LargeOption = LargeImages.TILES,
    engine: EngineOption = AUTO,
    precision: PrecisionOption = None,
    batch: BatchOption = None,
    threads: ThreadsOption = None,
    allow_unqualified: AllowUnqualifiedOption = False,
    json_file: JsonOption = None,
    picture: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="PNG file for the scores as a picture."),
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Scores of a network when another scanner or stain made the images.

    A fixed set of changes is made to the images of a split with label maps: haematoxylin and eosin
    x0.7 and x1.4, gamma 0.7 and 1.4, a warm tint, a cold white balance, blur, JPEG, noise, and
    tissue 5 and 10 % smaller and larger. The same changes each time: chance depends on the name of
    an image alone.

    Prints mean IoU and IoU by class for each change, what is lost to the unchanged images, and
    with several models the difference to the first.
    """
    from sshr_deploy.atomic import write_json
    from sshr_deploy.benchmarks.perturbations import PERTURBATIONS
    from sshr_deploy.benchmarks.robustness import (
        Subject,
        check_classes,
        distinct_names,
        measure_robustness,
    )
    from sshr_deploy.cli.console import counting, say
    from sshr_deploy.cli.robustness_tables import print_robustness
    from sshr_deploy.runtime.evaluation.split import check_split, read_split
    from sshr_deploy.runtime.evaluation.truth_classes import refuse_other_classes

    if picture is not None:
        try:
            from sshr_deploy.benchmarks.robustness_picture import write_picture
        except ModuleNotFoundError as error:
            raise MissingExtraError(error.name or "a package", "train") from error
    names = distinct_names(model)
    check_split(split)
    outputs = check_outputs(json_file, picture, model, split)
    wanted = Wanted(engine, precision, batch, allow_unqualified, quiet, relabel, threads)
    with ExitStack() as stack:
        subjects = []
        for name, path in zip(names, model, strict=True):
            session, fields, loaded, facts = stack.enter_context(
                scored_model(path, profile, wanted)
            )
            size = batch or default_batch(session.info.engine)
            subjects.append(Subject(name, session, fields, loaded, facts, size))
        check_classes(subjects)
        chosen = _mode(mode, subjects)
        if not quiet:
            say(f"checking the images and masks of {split}")
        images = read_split(split, subjects[0].profile)
        if not relabel:
            refuse_other_classes(split, images, subjects[0].profile)
        total = len(images) * len(PERTURBATIONS) * len(subjects)
        with counting(total, "images", quiet=quiet) as advance:
            report = measure_robustness(
                split, images, subjects, mode=chosen, large=large, on_image=advance
            )
    if json_file is not None:
        write_json(json_file, report)
    if picture is not None:
        write_picture(picture, report)
    if not quiet:
        print_robustness(report)
        for path in outputs:
            typer.echo(str(path))


def _mode(wish: Mode | None, subjects: Sequence[Subject]) -> Mode:
    without = [subject.name for subject in subjects if subject.fields is None]
    if wish is Mode.SEAMLESS and without:
        raise UsageError(
            f"{without[0]} has no graphs for fields; export it again, or choose --mode reference"
        )
    return wish or (Mode.REFERENCE if without else Mode.SEAMLESS)
