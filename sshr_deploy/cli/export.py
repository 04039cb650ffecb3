"""`sshr-deploy export`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sshr_deploy.cli.options import (
    CheckpointProfileOption,
    QuietOption,
    RelabelOption,
    Target,
    ThreadsOption,
)
from sshr_deploy.errors import MissingExtraError, UsageError
from sshr_deploy.geometry import CPU_FIELD_PX, GPU_FIELD_PX, PATCH, Geometry
from sshr_deploy.precision import Precision

if TYPE_CHECKING:
    from sshr_deploy.manifest import Artifact


class Form(StrEnum):
    """Forms of HFRM that all engines run; see `export.graph.deploy.HfrmForm`."""

    AUTO = "auto"
    DEPTHWISE = "depthwise"
    SEPARABLE = "separable"


def export(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="CHECKPOINT",
            help="SSHR weights: a .pth state dict with the authors' names, or .safetensors.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder of the bundle to write.")],
    profile: CheckpointProfileOption = None,
    relabel: RelabelOption = False,
    precision: Annotated[
        list[Precision] | None,
        typer.Option(
            help="Make a graph of this precision too; may be given several times. The FP32 graph "
            "is always there.",
            show_default="fp32",
        ),
    ] = None,
    engine: Annotated[
        list[Target] | None,
        typer.Option(
            help="Make it ready for this library too; may be given several times. ONNX Runtime "
            "always can run it.",
            show_default="onnx",
        ),
    ] = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            help="Patches or slides from which INT8 takes its ranges; only their tissue counts.",
            show_default="the patches of --qualify",
        ),
    ] = None,
    qualify: Annotated[
        Path | None,
        typer.Option(
            help="Patches on which every graph is compared with PyTorch: a folder of images (the "
            "first 64), or a split with img/ and mask/ (at most 128 parts), whose mean IoU is "
            "compared too. They become part of the bundle: each machine compares again.",
            show_default="six crops of a CC0 slide, shipped",
        ),
    ] = None,
    max_miou_drop: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Mean IoU that INT8 may lose, from 0 to 1, where there are masks.",
            show_default="0.005",
        ),
    ] = None,
    min_agreement: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Share of mask pixels on which INT8 must agree with FP32, 0 to 1.",
            show_default="0.985",
        ),
    ] = None,
    hfrm: Annotated[
        Form,
        typer.Option(
            help="Form of HFRM, the rectification module; the results are the same. auto: "
            "depthwise in graphs for processors, separable in those for GPUs, whose matrix units "
            "take no depthwise convolution. Name one for all graphs where a GPU was measured.",
        ),
    ] = Form.AUTO,
    field: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="PX",
            help="Side in pixels of the fields that seamless label maps are computed by, at the "
            "model's scale; 0 for a bundle of patches alone. A larger field computes less twice "
            "and needs more memory.",
            show_default=f"{CPU_FIELD_PX}; {GPU_FIELD_PX} with an --engine for GPUs",
        ),
    ] = None,
    fit_rule: Annotated[
        Path | None,
        typer.Option(
            metavar="SPLIT",
            help="Labelled images (img/ and mask/) on which the rule of seamless label maps is "
            "chosen: its gate, level weights and a bias for each class, on a coarse grid. It is "
            "used if it is better on images that are left out in turn.",
            show_default="the profile's own rule",
        ),
    ] = None,
    workspace_mib: Annotated[
        int | None,
        typer.Option(
            metavar="MIB",
            min=1,
            help="Most GPU memory in MiB that a layer of a TensorRT engine may use as scratch.",
            show_default="all",
        ),
    ] = None,
    version_compatible: Annotated[
        bool,
        typer.Option(
            "--version-compatible",
            help="TensorRT engines that later releases of the same major version can load, for use "
            "elsewhere: here each release builds its own.",
        ),
    ] = False,
    hardware_compatible: Annotated[
        bool,
        typer.Option(
            "--hardware-compatible",
            help="TensorRT engines that run on every GPU from SM 8.0 on, slower, for use "
            "elsewhere: here each GPU gets its own.",
        ),
    ] = False,
    threads: ThreadsOption = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the bundle that is at --out.")
    ] = False,
    quiet: QuietOption = False,
) -> None:
    """Turn a checkpoint into a bundle: ONNX graphs, weights and a manifest with hashes.

    Every graph is compared with PyTorch FP32 first; if one misses its tolerance, nothing is
    written. FP32: CAMs within 1e-4 relative RMS error, equal class gates, masks equal on 99.95 % of
    pixels. FP16: masks equal on 99.5 %, mean IoU within 0.001. INT8 keeps as few layers wider as
    its budget allows, and is refused if it is not clearly faster here. An interrupted INT8 search
    goes on when the same command is run again.

    Each graph for patches has one for fields on the same weights, which seamless slides are
    computed by. They are compared in the same way, gates on 99.95 % of all cells.
    """
    try:
        from sshr_deploy.export.bundle import export_bundle
        from sshr_deploy.export.graph.deploy import HfrmForm
        from sshr_deploy.export.int8.verdicts import Int8RejectedError
        from sshr_deploy.export.job import ExportOptions, int8_tolerances
        from sshr_deploy.export.reference import (
            patches_from_folder,
            shipped_patches,
        )
        from sshr_deploy.export.rule_fit import rule_text
        from sshr_deploy.model.checkpoint import read_profile
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "a package", "export") from error
    from sshr_deploy.cli.console import say
    from sshr_deploy.manifest import EngineOptions
    from sshr_deploy.profiles import load_profile

    for option, value in (
        ("--calibrate", calibrate),
        ("--max-miou-drop", max_miou_drop),
        ("--min-agreement", min_agreement),
    ):
        if value is not None and Precision.INT8 not in (precision or ()):
            raise UsageError(f"{option} is for --precision int8; leave it out, or add that")
    loaded = read_profile(checkpoint) if profile is None else load_profile(profile)
    options = ExportOptions(
        precisions=tuple(precision or ()),
        targets=tuple(str(target) for target in engine or ()),
        calibration=calibrate,
        form=None if hfrm is Form.AUTO else HfrmForm(hfrm.value),
        engine_options=EngineOptions(
            workspace_mib=workspace_mib,
            version_compatible=version_compatible,
            hardware_compatible=hardware_compatible,
        ),
        tolerances=int8_tolerances(miou_drop=max_miou_drop, mask_agreement=min_agreement),
        threads=threads,
        field_px=field,
        fit_rule=fit_rule,
    )
    patches = (
        shipped_patches()
        if qualify is None
        else patches_from_folder(qualify, loaded, relabel=relabel)
    )
    try:
        bundle = export_bundle(
            checkpoint,
            loaded,
            out,
            patches,
            options,
            overwrite=overwrite,
            relabel=relabel,
            on_step=lambda text: None if quiet else say(text),
        )
    except Int8RejectedError as error:
        say(error.table)
        raise
    fields = bundle.manifest.fields
    fit = None if fields is None else fields.rule_fit
    if fit is not None and not fit.used:
        say(f"warning: {rule_text(fit, loaded)}")
    if quiet:
        return
    size_mb = sum(entry.bytes for entry in bundle.manifest.files.values()) / 1e6
    typer.echo(f"{out}: {loaded.title}, {loaded.num_classes} classes, {size_mb:.1f} MB")
    for artifact in bundle.manifest.artifacts:
        typer.echo(_described(artifact, PATCH))
    if fields is not None:
        for artifact in fields.artifacts:
            typer.echo(f"fields: {_described(artifact, fields.geometry)}")
        if fit is not None and fit.used:
            typer.echo(rule_text(fit, loaded))


def _described(artifact: Artifact, geometry: Geometry) -> str:
    from sshr_deploy.export.int8.verdicts import change_text

    q = artifact.qualification
    kind = "" if artifact.quantisation is None else f"{artifact.quantisation.kind}, "
    engines = ", ".join(artifact.engines)
    name = f"{artifact.precision.upper()} ({kind}{artifact.hfrm_form} HFRM, for {engines})"
    if q is None:
        return f"{name}: not qualified here: {artifact.not_qualified_because}"
    worst = max(q.cam_relative_error.values())
    gates = "gates equal"
    if not q.gates_equal:
        gates += f" in {q.gate_agreement:.2%} of {'patches' if geometry.is_patch else 'cells'}"
    iou = "" if q.iou is None else f", mean IoU {q.iou.mean_iou:.4f} ({change_text(q.iou.drop)})"
    return (
        f"{name} qualified on {q.patches} {geometry.inputs} ({q.source}): CAM error {worst:.1e}, "
        f"{gates}, masks equal on {q.mask_agreement:.4%} of pixels{iou}"
    )
