"""Checkpoint -> bundle: export, qualify, hash, and only then put the folder in its place."""

from __future__ import annotations

import glob
import platform
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import numpy as np

import sshr_deploy
from sshr_deploy.atomic import partial_name, remove_abandoned
from sshr_deploy.bundle import (
    MANIFEST_NAME,
    SCHEMA_VERSION,
    Artifact,
    Bundle,
    Manifest,
    ModelFacts,
    Qualification,
    file_entry,
    listed_files,
    load_bundle,
    write_manifest,
)
from sshr_deploy.errors import ExportError, UsageError, first_line
from sshr_deploy.export.deploy_graph import HfrmForm
from sshr_deploy.export.onnx_from_checkpoint import OPSET, flop_per_patch, write_onnx
from sshr_deploy.export.qualify import PatchSet, Tolerance, check_qualified, qualify
from sshr_deploy.model import SSHR
from sshr_deploy.model.checkpoint import (
    CONFIG_KEY,
    POSITION_KEY,
    PROFILE_KEY,
    load_checkpoint,
    read_header,
)
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.sessions.onnxruntime import OnnxRuntimeSession
from sshr_deploy.runtime.sessions.session import PATCH_PX

MODEL_NAME = "model.onnx"
_NOT_COPIED = {CONFIG_KEY, PROFILE_KEY, POSITION_KEY, "format"}  # the manifest has its own
_TOOLS = ("torch", "onnx", "onnxscript", "onnxruntime", "numpy")

Step = Callable[[str], None]


def export_bundle(
    checkpoint: Path,
    profile: Profile,
    out: Path,
    patches: PatchSet,
    *,
    form: HfrmForm = HfrmForm.DEPTHWISE,
    tolerance: Tolerance | None = None,
    overwrite: bool = False,
    on_step: Step = lambda _: None,
) -> Bundle:
    """Write the bundle `out`; it appears whole and qualified, or not at all.

    `on_step` is told what is being done, in a few words. With `overwrite` an earlier bundle at
    `out` is replaced at the end; any other folder there is left alone.

    Raises:
        CheckpointError: see `load_checkpoint`.
        UsageError: `out` is in the way; or the checkpoint has another number of classes.
        ExportError: the graph could not be made, or misses `tolerance`; or `form` is `FUSED`.
    """
    if form is HfrmForm.FUSED:
        raise ExportError(
            "a graph of form fused runs in TensorRT alone, so it cannot be qualified here; "
            "export form depthwise or separable"
        )
    out = out.resolve()
    _check_out(out, overwrite=overwrite)
    on_step(f"reading {checkpoint}")
    model = load_checkpoint(checkpoint)
    if model.config.num_classes != profile.num_classes:
        raise UsageError(
            f"{checkpoint} has {model.config.num_classes} classes, profile {profile.name} has "
            f"{profile.num_classes}; choose the profile it was trained with"
        )
    try:
        with _work_folder(out) as work:
            partial = work / "bundle"
            partial.mkdir()
            on_step("writing the ONNX graph")
            _write_graph(model, partial / MODEL_NAME, form)
            on_step(f"comparing it with PyTorch on {len(patches.images)} patches")
            found = _qualified(model, partial / MODEL_NAME, profile, patches)
            check_qualified(found, tolerance or Tolerance())
            artifact = Artifact(
                engine="onnx",
                precision="fp32",
                file=MODEL_NAME,
                opset=OPSET,
                hfrm_form=form.value,
                qualification=found,
            )
            write_manifest(partial, _manifest(checkpoint, model, profile, partial, artifact))
            _move(partial, out, work / "replaced")
    except OSError as error:
        raise ExportError(
            f"cannot write {out}: {error.strerror or error}; free space or choose another --out"
        ) from error
    return load_bundle(out)


@contextmanager
def _work_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out`, gone afterwards; one that a killed export left is removed."""
    out.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(out.parent, f"{glob.escape(out.name)}.*")
    work = out.parent / partial_name(out.name)
    work.mkdir()
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _check_out(out: Path, *, overwrite: bool) -> None:
    """Only a bundle and nothing else may be replaced; what a user put beside it is never lost."""
    try:
        if not out.exists():
            return
        names = {p.relative_to(out).as_posix() for p in out.rglob("*")} if out.is_dir() else {""}
        if not names:
            return
        if not out.is_dir() or MANIFEST_NAME not in names:
            raise UsageError(f"{out} exists and is not a bundle; choose another --out")
        foreign = sorted(names - {MANIFEST_NAME} - listed_files(out))
    except OSError as error:
        raise UsageError(f"{out} cannot be used: {error.strerror}; choose another --out") from error
    if foreign:
        raise UsageError(f"{out} holds {foreign[0]}, which is no part of a bundle; move it away")
    if not overwrite:
        raise UsageError(
            f"{out} exists; add --overwrite to replace that bundle, or choose another --out"
        )


def _write_graph(model: SSHR, path: Path, form: HfrmForm) -> None:
    try:
        write_onnx(model, path, form=form)
    except OSError:
        raise
    except Exception as error:  # the exporter raises many kinds
        raise ExportError(f"PyTorch could not export the network: {first_line(error)}") from error


def _qualified(model: SSHR, graph: Path, profile: Profile, patches: PatchSet) -> Qualification:
    with OnnxRuntimeSession(graph, profile.num_classes) as session:
        session.infer(np.zeros((2, PATCH_PX, PATCH_PX, 3), np.uint8))  # the batch is dynamic
        return qualify(session, model, profile, patches)


def _manifest(
    checkpoint: Path, model: SSHR, profile: Profile, folder: Path, artifact: Artifact
) -> Manifest:
    return Manifest(
        schema_version=SCHEMA_VERSION,
        created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        profile=profile,
        model=ModelFacts(
            width=model.config.width,
            num_classes=model.config.num_classes,
            parameters=sum(p.numel() for p in model.parameters()),
            gflop_per_patch=flop_per_patch(model) / 1e9,
            checkpoint_name=checkpoint.name,
            checkpoint_sha256=file_entry(checkpoint).sha256,
            metadata={k: v for k, v in read_header(checkpoint).items() if k not in _NOT_COPIED},
        ),
        tool_versions={
            "sshr-deploy": sshr_deploy.__version__,
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in _TOOLS},
        },
        artifacts=[artifact],
        files={p.name: file_entry(p) for p in sorted(folder.iterdir())},
    )


def _move(partial: Path, out: Path, replaced: Path) -> None:
    if out.exists():
        out.replace(replaced)
    try:
        partial.replace(out)
    except OSError:
        if replaced.exists():
            replaced.replace(out)
        raise
    shutil.rmtree(replaced, ignore_errors=True)
