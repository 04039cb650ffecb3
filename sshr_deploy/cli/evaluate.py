"""`sshr-deploy evaluate`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from sshr_deploy.cli.engine import open_model
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
from sshr_deploy.errors import MissingExtraError, UsageError
from sshr_deploy.precision import Precision
from sshr_deploy.runtime.engines.kinds import AUTO, default_batch
from sshr_deploy.runtime.settings import InferSettings, LargeImages, OpenOptions

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from sshr_deploy.profiles import Profile
    from sshr_deploy.runtime.contract import Session

_SCORE_NAMES = {
    "mean_iou": "mean IoU",
    "mean_dice": "mean Dice",
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean class accuracy",
    "frequency_weighted_iou": "frequency-weighted IoU",
    "label_accuracy": "label accuracy",
    "exact_match": "exact match of labels",
    "seam_ratio": "seams (1 is none)",
}


def evaluate(
    split: Annotated[
        Path,
        typer.Argument(
            metavar="SPLIT_DIR",
            help="Folder with img/ (PNG, JPEG) and mask/ (PNG of the same name: 0 for the first "
            "class and so on, the number of classes for background).",
        ),
    ],
    model: Annotated[
        Path,
        typer.Option(
            "--model", help="Bundle folder written by sshr-deploy export, or a checkpoint file."
        ),
    ],
    profile: CheckpointProfileOption = None,
    relabel: RelabelOption = False,
    large: LargeOption = LargeImages.TILES,
    engine: EngineOption = AUTO,
    precision: PrecisionOption = None,
    batch: BatchOption = None,
    threads: ThreadsOption = None,
    allow_unqualified: AllowUnqualifiedOption = False,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", help="File for all figures, as JSON.", show_default="none"),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(
            help="PNG file for a few images, each beside its truth and prediction.",
            show_default="none",
        ),
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Score a bundle or a checkpoint against label maps.

    Prints IoU and Dice by class, their means, pixel accuracy, the confusion matrix, and how often
    the image-level labels are right (probability above 0.5 against the labels in the file name, or
    else the classes in the mask). Pixels whose truth is background are not scored.
    """
    from sshr_deploy.atomic import check_writable, write_json
    from sshr_deploy.cli.console import counting, say
    from sshr_deploy.runtime.evaluation.evaluate import evaluate_split
    from sshr_deploy.runtime.evaluation.report import report
    from sshr_deploy.runtime.evaluation.sheet import write_sheet
    from sshr_deploy.runtime.evaluation.split import check_split, read_split
    from sshr_deploy.runtime.evaluation.truth_classes import refuse_other_classes

    outputs = [path for path in (json_file, picture) if path is not None]
    if picture is not None and picture.suffix.lower() != ".png":
        raise UsageError(f"--picture {picture}: the picture is a PNG; give a name that ends in it")
    _check_outputs(outputs, model, split)
    check_split(split)
    for path in outputs:
        check_writable(path)
    wanted = _Wanted(engine, precision, batch, allow_unqualified, quiet, relabel, threads)
    with _opened(model, profile, wanted) as (session, loaded, facts):
        size = batch or default_batch(session.info.engine)
        if not quiet:
            say(f"checking the images and masks of {split}")
        images = read_split(split, loaded)
        if not relabel:
            refuse_other_classes(split, images, loaded)
        with counting(len(images), "images", quiet=quiet) as advance:
            evaluation = evaluate_split(
                images, session, loaded, large=large, batch=size, on_image=lambda _: advance()
            )
        document = report(
            evaluation, loaded, session.info, facts, split=str(split), large=large, batch=size
        )
    if json_file is not None:
        write_json(json_file, document)
    if picture is not None:
        title = f"{loaded.title}: {model.name} on {split.resolve().name}"
        write_sheet(picture, evaluation.samples, loaded, title)
    if not quiet:
        _print_scores(document)
        for path in outputs:
            typer.echo(str(path))


def _check_outputs(outputs: list[Path], model: Path, split: Path) -> None:
    """Neither two outputs in one file, nor an output over what is evaluated."""
    resolved = [path.resolve() for path in outputs]
    if len(set(resolved)) < len(resolved):
        raise UsageError(f"--json and --picture are both {outputs[0]}; give two files")
    for path in resolved:
        for source in (model.resolve(), split.resolve() / "img", split.resolve() / "mask"):
            if path.is_relative_to(source):
                raise UsageError(f"{path} is or lies in what is evaluated; choose another place")


class _Wanted(NamedTuple):
    """How to run a bundle."""

    engine: str
    precision: Precision | None
    batch: int | None
    allow_unqualified: bool
    quiet: bool
    relabel: bool
    threads: int | None


@contextmanager
def _opened(
    model: Path, profile: str | None, wanted: _Wanted
) -> Iterator[tuple[Session, Profile, dict[str, Any]]]:
    """The model as a session, its profile, and what a report says of it."""
    if not model.exists():
        raise UsageError(f"--model {model} does not exist; give a bundle folder or a checkpoint")
    if not model.is_dir():
        if wanted.engine != AUTO or wanted.precision is not None:
            raise UsageError(
                f"--engine and --precision are for bundles, {model} runs in PyTorch; "
                "leave them out, or export it and give the bundle"
            )
        yield _checkpoint(model, profile, wanted)
        return
    from sshr_deploy.bundle import load_bundle
    from sshr_deploy.profiles import load_profile

    bundle = load_bundle(model)
    manifest = bundle.manifest
    if profile is not None and load_profile(profile) != manifest.profile:
        raise UsageError(
            f"--profile {profile} is not the profile that the bundle {model} was exported with "
            f"({manifest.profile.name}); leave --profile out, or export the checkpoint again"
        )
    facts = {
        "kind": "bundle",
        "path": str(model),
        "manifest_sha256": bundle.manifest_sha256,
        "checkpoint_sha256": manifest.model.checkpoint_sha256,
        "width": manifest.model.width,
        "parameters": manifest.model.parameters,
        "relabelled_from": manifest.relabelled_from,
    }
    from sshr_deploy.runtime.pipeline.spec import RunSpec

    options = OpenOptions(
        wanted.precision, wanted.batch, allow_unqualified=wanted.allow_unqualified
    )
    spec = RunSpec(model, InferSettings(), wanted.engine, options, wanted.threads)
    with open_model(spec, quiet=wanted.quiet, bundle=bundle) as opened:
        yield opened.session, manifest.profile, facts


def _checkpoint(
    path: Path, profile: str | None, wanted: _Wanted
) -> tuple[Session, Profile, dict[str, Any]]:
    try:
        import torch

        from sshr_deploy.model.checkpoint import check_labels, load_checkpoint, read_profile
        from sshr_deploy.train.model_session import ModelSession
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "a package", "train") from error
    from sshr_deploy.bundle import file_entry
    from sshr_deploy.profiles import load_profile, relabelled_from
    from sshr_deploy.runtime.machine.threads import choose_threads, use_threads

    loaded = read_profile(path) if profile is None else load_profile(profile)
    carried = check_labels(path, loaded, relabel=wanted.relabel)
    network = load_checkpoint(path)
    config = network.config
    if config.num_classes != loaded.num_classes:
        raise UsageError(
            f"{path} has {config.num_classes} classes, profile {loaded.name} has "
            f"{loaded.num_classes}; give the --profile it was trained with"
        )
    use_threads(choose_threads(config.width, wanted.threads))
    facts = {
        "kind": "checkpoint",
        "path": str(path),
        "checkpoint_sha256": file_entry(path).sha256,
        "width": config.width,
        "parameters": sum(p.numel() for p in network.parameters()),
        "relabelled_from": relabelled_from(carried, loaded),
    }
    if torch.cuda.is_available():
        network = network.cuda()
    return ModelSession(network), loaded, facts


def _print_scores(document: dict[str, Any]) -> None:
    """Tables on stdout: by class, over all, confusion in percent of the true class's pixels."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    names = [escape(entry["name"]) for entry in document["classes"]]
    table = Table("class", "IoU", "Dice", "share of truth")
    for name, entry in zip(names, document["classes"], strict=True):
        scores = ("-" if entry[k] is None else f"{entry[k]:.4f}" for k in ("iou", "dice"))
        table.add_row(name, *scores, f"{entry['truth_share']:.1%}")
    _print_right_aligned(console, table)
    totals = Table("score", "value")
    for key, name in _SCORE_NAMES.items():
        value = document["scores"][key]
        totals.add_row(name, "-" if value is None else f"{value:.4f}")
    _print_right_aligned(console, totals)
    console.print("predicted class, in % of the true class's pixels:")
    _print_right_aligned(console, _confusion_table(names, document["confusion"]["pixels"]))
    split, engine = document["split"], document["engine"]
    console.print(
        f"{split['images']} images, {split['scored_pixels']} pixels scored, "
        f"{document['seconds']:.1f} s with {engine['engine']} {engine['precision']}"
    )


def _confusion_table(names: list[str], pixels: list[list[int]]) -> Table:
    """Percent of each true class's pixels; without the background column where it is empty."""
    from rich.table import Table

    columns = [*names, "background"] if any(row[-1] for row in pixels) else names
    table = Table("truth", *columns)
    for name, row in zip(names, pixels, strict=True):
        shares = (f"{100 * n / sum(row):.1f}" if any(row) else "-" for n in row)
        table.add_row(name, *list(shares)[: len(columns)])
    return table


def _print_right_aligned(console: Console, table: Table) -> None:
    for column in table.columns[1:]:
        column.justify = "right"
    console.print(table)
