"""`sshr-deploy adapt`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sshr_deploy.choice import Choice
from sshr_deploy.cli.options import (
    CheckpointProfileOption,
    ForceMppOption,
    MppOption,
    QuietOption,
    ThreadsOption,
)
from sshr_deploy.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from sshr_deploy.known_tissue import Adaptation


class _Balance(Choice):
    """Names of `train.adaptation.tuning.Balance`."""

    NONE = "none"
    SLIDES = "slides"
    CLASSES = "classes"


def adapt(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="CHECKPOINT",
            help="The network: .safetensors of sshr-deploy train, or a .pth of the authors. One "
            "that was adapted before is adapted anew, from the statistics that training left.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Checkpoint to write (.safetensors).")],
    slides: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder of unlabelled slides, or PNG and JPEG fields of them, of the scanner and "
            "stain to adapt to: at least 3, better of as many patients and with all classes.",
            show_default=False,
        ),
    ] = None,
    undo: Annotated[
        bool,
        typer.Option(
            "--undo",
            help="Write the network as it was before it was adapted, and nothing else.",
        ),
    ] = False,
    qualify: Annotated[
        Path | None,
        typer.Option(
            metavar="SPLIT",
            help="Labelled images of that scanner (img/ and mask/), if there are any: mean IoU is "
            "compared, and a network that would be worse is refused.",
            show_default="no labels are needed",
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Adapt in spite of every objection; the checkpoint and all results list them.",
        ),
    ] = False,
    profile: CheckpointProfileOption = None,
    training: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="The data set that the network was trained on, or a folder of its patches: for "
            "checkpoints that do not say how it looked to them.",
            show_default="what the checkpoint says",
        ),
    ] = None,
    patches: Annotated[
        int,
        typer.Option(
            min=1,
            max=1024,
            help="Most patches of tissue to measure, of 224 px: 13 MB of memory each at width 64.",
        ),
    ] = 64,
    depth: Annotated[
        str | None,
        typer.Option(
            metavar="STAGE",
            help="Deepest stage of the backbone whose batch norms are adapted, b2 to b7. Stain "
            "lives in the first ones, classes in the deep ones.",
            show_default="b3",
        ),
    ] = None,
    balance: Annotated[
        _Balance | None,
        typer.Option(
            help="none: slides count by their tissue; slides: alike; classes: besides, predicted "
            "classes count as much as in the training set.",
            show_default="slides",
        ),
    ] = None,
    strength: Annotated[
        float | None,
        typer.Option(
            help="How far, from 0 (statistics of training) to 1 (those of the slides).",
            show_default="0.5",
        ),
    ] = None,
    min_spread: Annotated[
        float | None,
        typer.Option(
            help="Least standard deviation of a channel, as a part of the batch norm's own: keeps "
            "one that hardly varies from being blown up.",
            show_default="0.1",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the choice of patches.")] = 0,
    mpp: MppOption = None,
    force_mpp: ForceMppOption = False,
    any_stain: Annotated[
        bool,
        typer.Option(
            "--any-stain",
            help="Measure what does not look like H&E as well, where parts of it have its colours.",
        ),
    ] = False,
    threads: ThreadsOption = None,
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json", metavar="FILE", help="File for what was done and all figures, as JSON."
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the checkpoint that is at --out.")
    ] = False,
    quiet: QuietOption = False,
) -> None:
    """Fit a network to a scanner or stain that it was not trained on, without labels.

    Measures the tissue of the slides, and gives the first batch norms statistics under which it
    looks to the network as that of the training set did. Weights and speed stay as they are. Takes
    minutes on a CPU. Export what comes out: its bundle and every result say that it was adapted,
    and to what.

    Refused without --force: fewer than three slides or images, tissue of one class, slides that
    are stained unlike each other, and an adaptation after which a class would be all but gone.
    Slides that infer would refuse (no H&E, too coarse, no pixel size) are left out. The table shows
    how often label maps agree before and after, the share of each class, and how undecided the
    network is (entropy): lower is surer, not always better.
    """
    try:
        from sshr_deploy.model.checkpoint import read_profile
        from sshr_deploy.train.adaptation.job import AdaptJob
        from sshr_deploy.train.adaptation.job import adapt as run
        from sshr_deploy.train.adaptation.original import refuse_bundle
        from sshr_deploy.train.adaptation.tuning import Balance, Tuning
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "a package", "train") from error
    from sshr_deploy.atomic import write_json
    from sshr_deploy.cli.console import say
    from sshr_deploy.profiles import load_profile
    from sshr_deploy.runtime.settings import InferSettings

    if undo:
        _undo(checkpoint, out, slides, overwrite=overwrite, quiet=quiet)
        return
    if slides is None:
        raise UsageError("give --slides, the slides to adapt to (or --undo)")
    refuse_bundle(checkpoint)
    usual = Tuning()
    tuning = Tuning(
        usual.depth if depth is None else depth,
        usual.balance if balance is None else Balance(balance.value),
        usual.strength if strength is None else strength,
        usual.min_spread if min_spread is None else min_spread,
    )
    if json_file is not None:
        _check_json(json_file, checkpoint, out)
    loaded = read_profile(checkpoint) if profile is None else load_profile(profile)
    job = AdaptJob(
        checkpoint=checkpoint,
        profile=loaded,
        slides=slides,
        out=out,
        tuning=tuning,
        settings=InferSettings(mpp_um=mpp, force_mpp=force_mpp, any_stain=any_stain),
        patches=patches,
        seed=seed,
        training=training,
        qualify=qualify,
        force=force,
        overwrite=overwrite,
        threads=threads,
    )
    adaptation = run(job, lambda text: None if quiet else say(text))
    if json_file is not None:
        write_json(json_file, adaptation.model_dump(mode="json"))
    if not quiet:
        _print(adaptation, loaded.class_names)
        for path in (out, json_file):
            if path is not None:
                typer.echo(str(path))


def _check_json(json_file: Path, model: Path, out: Path) -> None:
    """Refuse a place for the figures where they would replace a checkpoint."""
    from sshr_deploy.atomic import check_writable

    for name, path in (("the checkpoint that is read", model), ("--out too", out)):
        if json_file.resolve() == path.resolve():
            raise UsageError(f"--json {json_file} is {name}; give another file")
    check_writable(json_file)


def _undo(model: Path, out: Path, slides: Path | None, *, overwrite: bool, quiet: bool) -> None:
    from sshr_deploy.train.adaptation.original import check_out, undo_adaptation

    if slides is not None:
        raise UsageError("--undo takes no --slides; leave one of them out")
    check_out(model, out, overwrite=overwrite)
    undo_adaptation(model, out)
    if not quiet:
        typer.echo(str(out))


def _print(adaptation: Adaptation, names: tuple[str, ...]) -> None:
    """A table of the checks on stdout, and what they were made on."""
    from rich.markup import escape
    from rich.table import Table

    from sshr_deploy.cli.tables import print_table
    from sshr_deploy.cli.terminal import stdout_console

    checks = adaptation.checks
    table = Table("on its patches", "before", "after")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, before, after in zip(names, checks.shares_before, checks.shares_after, strict=True):
        table.add_row(escape(name), f"{before:.1%}", f"{after:.1%}")
    table.add_section()
    table.add_row("entropy", f"{checks.entropy_before:.3f}", f"{checks.entropy_after:.3f}")
    if checks.mean_iou_before is not None:
        table.add_row("mean IoU", f"{checks.mean_iou_before:.4f}", f"{checks.mean_iou_after:.4f}")
    print_table(stdout_console(), table)
    if checks.mean_iou_gain_interval is not None:
        low, high = checks.mean_iou_gain_interval
        typer.echo(f"gain in mean IoU: {low:+.4f} to {high:+.4f} (95 % interval)")
    typer.echo(
        f"labels agree on {checks.agreement:.1%} of the cells; slides differ by "
        f"{checks.slides_apart:.2f} at most"
    )
    typer.echo(
        f"adapted to {adaptation.source}: batch norms to {adaptation.depth}, balance "
        f"{adaptation.balance}, strength {adaptation.strength:g}"
    )
    for objection in adaptation.forced:
        typer.echo(f"forced: {objection}")
