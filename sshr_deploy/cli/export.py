"""`sshr-deploy export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sshr_deploy.cli.options import CheckpointProfileOption, QuietOption
from sshr_deploy.errors import MissingExtraError


def export(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="CHECKPOINT",
            help="SSHR weights: a .pth state dict with the authors' names, or .safetensors.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the bundle to write.")],
    profile: CheckpointProfileOption = None,
    qualify: Annotated[
        Path | None,
        typer.Option(
            help="Folder of patch images (PNG, JPEG; the first 64) on which the ONNX graph is "
            "compared with PyTorch.",
            show_default="six crops of a CC0 slide, shipped",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the bundle that is at --out.")
    ] = False,
    quiet: QuietOption = False,
) -> None:
    """Turn a checkpoint into a bundle: ONNX graph, weights and a manifest with hashes.

    The graph is compared with PyTorch FP32 first; if it misses the tolerance (CAMs within 1e-4
    relative RMS error, equal class gates, masks equal on 99.95 % of pixels) nothing is written.
    """
    try:
        from sshr_deploy.export.bundle_from_checkpoint import export_bundle
        from sshr_deploy.export.qualify import patches_from_folder, shipped_patches
        from sshr_deploy.model.checkpoint import read_profile
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "a package", "export") from error
    from sshr_deploy.cli.console import say
    from sshr_deploy.profiles import load_profile

    loaded = read_profile(checkpoint) if profile is None else load_profile(profile)
    patches = shipped_patches() if qualify is None else patches_from_folder(qualify)
    bundle = export_bundle(
        checkpoint,
        loaded,
        out,
        patches,
        overwrite=overwrite,
        on_step=lambda text: None if quiet else say(text),
    )
    if quiet:
        return
    q = bundle.manifest.artifacts[0].qualification
    worst = max(q.cam_relative_error.values())
    size_mb = sum(entry.bytes for entry in bundle.manifest.files.values()) / 1e6
    typer.echo(f"{out}: {loaded.title}, {loaded.num_classes} classes, {size_mb:.1f} MB")
    typer.echo(
        f"qualified on {q.patches} patches ({q.source}): CAM error {worst:.1e}, gates equal, "
        f"masks equal on {q.mask_agreement:.4%} of pixels"
    )
