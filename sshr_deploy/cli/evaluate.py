"""`sshr-deploy evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sshr_deploy.choice import Choice
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
from sshr_deploy.errors import UsageError
from sshr_deploy.runtime.engines.kinds import AUTO, default_batch
from sshr_deploy.runtime.settings import LargeImages, Mode


class _EvaluatedMode(Choice):
    """Ways to take large images that are scored."""

    SEAMLESS = Mode.SEAMLESS.value
    REFERENCE = Mode.REFERENCE.value
    BOTH = "both"


def evaluate(
    split: SplitArgument,
    model: Annotated[Path, typer.Option("--model", help=SCORED_HELP)],
    profile: CheckpointProfileOption = None,
    relabel: RelabelOption = False,
    mode: Annotated[
        _EvaluatedMode | None,
        typer.Option(
            help="How large images are taken, as in infer. seamless: fields that share their "
            "context; reference: parts of about 224 px, each alone, as published; both: one beside "
            "the other.",
            show_default="seamless, but for bundles without graphs for fields",
        ),
    ] = None,
    large: LargeOption = LargeImages.TILES,
    engine: EngineOption = AUTO,
    precision: PrecisionOption = None,
    batch: BatchOption = None,
    threads: ThreadsOption = None,
    allow_unqualified: AllowUnqualifiedOption = False,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="File for all figures, as JSON."),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="PNG file for a few images, each beside its truth and prediction.",
        ),
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Score a bundle or a checkpoint against label maps.

    Prints IoU and Dice by class, their means, pixel accuracy, the confusion matrix, and how often
    the image-level labels are right (probability above 0.5 against the labels in the file name, or
    else the classes in the mask). Pixels whose truth is background are not scored.

    Seams: how often neighbouring pixels differ across the borders of the parts that reference mode
    cuts large images into, over how often other neighbours do. With both modes, the JSON file has
    the figures of seamless mode, and those of the other under "reference".
    """
    from sshr_deploy.atomic import write_json
    from sshr_deploy.cli.console import counting, say
    from sshr_deploy.cli.evaluation_tables import print_scores
    from sshr_deploy.runtime.evaluation.evaluate import evaluate_split
    from sshr_deploy.runtime.evaluation.report import report
    from sshr_deploy.runtime.evaluation.sheet import write_sheet
    from sshr_deploy.runtime.evaluation.split import check_split, read_split
    from sshr_deploy.runtime.evaluation.truth_classes import refuse_other_classes

    check_split(split)
    outputs = check_outputs(json_file, picture, [model], split)
    wanted = Wanted(engine, precision, batch, allow_unqualified, quiet, relabel, threads)
    with scored_model(model, profile, wanted) as (session, fields, loaded, facts):
        modes = _modes(mode, model, seamless=fields is not None)
        size = batch or default_batch(session.info.engine)
        if not quiet:
            say(f"checking the images and masks of {split}")
        images = read_split(split, loaded)
        if not relabel:
            refuse_other_classes(split, images, loaded)
        found = {}
        with counting(len(images) * len(modes), "images", quiet=quiet) as advance:
            for one in modes:
                found[one] = evaluate_split(
                    images,
                    session,
                    loaded,
                    fields=fields if one == Mode.SEAMLESS else None,
                    large=large,
                    batch=size,
                    on_image=lambda _: advance(),
                )
        reference = found[Mode.REFERENCE] if len(modes) > 1 else None
        document = report(
            found[modes[0]],
            loaded,
            session.info,
            facts,
            split=str(split),
            mode=modes[0],
            large=large,
            batch=size,
            reference=reference,
        )
    if json_file is not None:
        write_json(json_file, document)
    if picture is not None:
        title = f"{loaded.title}: {model.name} on {split.resolve().name}"
        beside = () if reference is None else reference.samples
        write_sheet(picture, found[modes[0]].samples, loaded, title, reference=beside)
    if not quiet:
        print_scores(document)
        for path in outputs:
            typer.echo(str(path))


def _modes(wish: _EvaluatedMode | None, model: Path, *, seamless: bool) -> list[Mode]:
    """The modes to score, the first of which is that of the document."""
    if not seamless and wish in (_EvaluatedMode.SEAMLESS, _EvaluatedMode.BOTH):
        raise UsageError(
            f"{model} has no graphs for fields; export it again, or choose --mode reference"
        )
    if wish == _EvaluatedMode.BOTH:
        return [Mode.SEAMLESS, Mode.REFERENCE]
    if wish is None:
        return [Mode.SEAMLESS if seamless else Mode.REFERENCE]
    return [Mode(wish.value)]
