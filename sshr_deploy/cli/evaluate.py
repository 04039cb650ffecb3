"""`sshr-deploy evaluate`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from sshr_deploy.choice import Choice
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
from sshr_deploy.runtime.settings import InferSettings, LargeImages, Mode, OpenOptions

if TYPE_CHECKING:
    from sshr_deploy.profiles import Profile
    from sshr_deploy.runtime.contract import Session


class _EvaluatedMode(Choice):
    """Ways to take large images that are scored."""

    SEAMLESS = Mode.SEAMLESS.value
    REFERENCE = Mode.REFERENCE.value
    BOTH = "both"


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

    Seams: how often neighbouring pixels differ across the borders of the parts that reference mode
    cuts large images into, over how often other neighbours do. With both modes, the JSON file has
    the figures of seamless mode, and those of the other under "reference".
    """
    from sshr_deploy.atomic import check_writable, write_json
    from sshr_deploy.cli.console import counting, say
    from sshr_deploy.cli.evaluation_tables import print_scores
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
    with _opened(model, profile, wanted) as (session, fields, loaded, facts):
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


class _Opened(NamedTuple):
    """A model that is scored."""

    session: Session
    fields: Callable[[], Session] | None
    """Gives that of large images in seamless mode; None where the model has none."""
    profile: Profile
    facts: dict[str, Any]
    """For the report."""


@contextmanager
def _opened(model: Path, profile: str | None, wanted: _Wanted) -> Iterator[_Opened]:
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
        fields = None if manifest.fields is None else lambda: opened.sessions.fields
        yield _Opened(opened.session, fields, manifest.profile, facts)


def _checkpoint(path: Path, profile: str | None, wanted: _Wanted) -> _Opened:
    try:
        import torch

        from sshr_deploy.model.checkpoint import check_labels, load_checkpoint, read_profile
        from sshr_deploy.train.model_session import ModelSession
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "a package", "train") from error
    from sshr_deploy.bundle import file_entry
    from sshr_deploy.geometry import CPU_FIELD_PX, field_geometry
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
    fields = ModelSession(network, field_geometry(CPU_FIELD_PX))
    return _Opened(ModelSession(network), lambda: fields, loaded, facts)
