"""Opens a bundle or a checkpoint to be scored on a split."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from sshr_deploy.cli.engine import open_model
from sshr_deploy.errors import MissingExtraError, UsageError
from sshr_deploy.precision import Precision
from sshr_deploy.runtime.engines.kinds import AUTO
from sshr_deploy.runtime.settings import InferSettings, OpenOptions

if TYPE_CHECKING:
    from sshr_deploy.known_tissue import Adaptation
    from sshr_deploy.profiles import Profile
    from sshr_deploy.runtime.contract import Session

SplitArgument = Annotated[
    Path,
    typer.Argument(
        metavar="SPLIT_DIR",
        help="Folder with img/ (PNG, JPEG) and mask/ (PNG of the same name: 0 for the first "
        "class and so on, the number of classes for background).",
    ),
]
SCORED_HELP = "Bundle folder written by sshr-deploy export, or a checkpoint file."


class Wanted(NamedTuple):
    """How to run a bundle."""

    engine: str
    precision: Precision | None
    batch: int | None
    allow_unqualified: bool
    quiet: bool
    relabel: bool
    threads: int | None


class ScoredModel(NamedTuple):
    """A model that is scored."""

    session: Session
    fields: Callable[[], Session] | None
    """Gives that of large images in seamless mode; None where the model has none."""
    profile: Profile
    facts: dict[str, Any]
    """For the report."""


@contextmanager
def scored_model(model: Path, profile: str | None, wanted: Wanted) -> Iterator[ScoredModel]:
    """The bundle or checkpoint at `model`, closed at the end of the block.

    Raises:
        UsageError: it does not exist, or options do not fit it.
        BundleError, CheckpointError: it cannot be used.
        MissingExtraError: no torch for a checkpoint.
    """
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
        "adaptation": _as_json(manifest.model.adaptation),
    }
    from sshr_deploy.runtime.pipeline.spec import RunSpec

    options = OpenOptions(
        wanted.precision, wanted.batch, allow_unqualified=wanted.allow_unqualified
    )
    spec = RunSpec(model, InferSettings(), wanted.engine, options, wanted.threads)
    with open_model(spec, quiet=wanted.quiet, bundle=bundle) as opened:
        fields = None if manifest.fields is None else lambda: opened.sessions.fields
        yield ScoredModel(opened.session, fields, manifest.profile, facts)


def _checkpoint(path: Path, profile: str | None, wanted: Wanted) -> ScoredModel:
    try:
        import torch

        from sshr_deploy.model.checkpoint import (
            check_labels,
            load_checkpoint,
            read_header,
            read_profile,
        )
        from sshr_deploy.train.model_session import ModelSession
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "a package", "train") from error
    from sshr_deploy.bundle import file_entry
    from sshr_deploy.geometry import CPU_FIELD_PX, field_geometry
    from sshr_deploy.known_tissue import adaptation_of
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
        "adaptation": _as_json(adaptation_of(read_header(path), str(path))),
    }
    if torch.cuda.is_available():
        network = network.cuda()
    fields = ModelSession(network, field_geometry(CPU_FIELD_PX))
    return ScoredModel(ModelSession(network), lambda: fields, loaded, facts)


def _as_json(adaptation: Adaptation | None) -> dict[str, Any] | None:
    return None if adaptation is None else adaptation.model_dump(mode="json")


def check_outputs(
    json_file: Path | None, picture: Path | None, models: Sequence[Path], split: Path
) -> list[Path]:
    """The outputs that are wanted, which are free to be written.

    Raises:
        UsageError: the two are one file, one lies in what is scored, or the picture is no PNG.
        OutputError: one cannot be written.
    """
    from sshr_deploy.atomic import check_writable

    if picture is not None and picture.suffix.lower() != ".png":
        raise UsageError(f"--picture {picture}: the picture is a PNG; give a name that ends in it")
    outputs = [path for path in (json_file, picture) if path is not None]
    resolved = [path.resolve() for path in outputs]
    if len(set(resolved)) < len(resolved):
        raise UsageError(f"--json and --picture are both {outputs[0]}; give two files")
    sources = [model.resolve() for model in models]
    sources += [split.resolve() / "img", split.resolve() / "mask"]
    for path in resolved:
        if any(path.is_relative_to(source) for source in sources):
            raise UsageError(f"{path} is or lies in what is evaluated; choose another place")
    for path in outputs:
        check_writable(path)
    return outputs
