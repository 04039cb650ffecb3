"""Checkpoint -> bundle: export, qualify, hash, and only then put the folder in its place."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np

from sshr_deploy.atomic import partial_folder, replace_folder
from sshr_deploy.bundle import (
    FIRST_LAYER_NAME,
    MANIFEST_NAME,
    Bundle,
    file_entry,
    listed_files,
    load_bundle,
    write_manifest,
)
from sshr_deploy.errors import ExportError, UsageError
from sshr_deploy.export.artifacts import make_artifacts, make_field_artifacts
from sshr_deploy.export.field_reference import field_reference
from sshr_deploy.export.graph.onnx_from_network import flop_per_input
from sshr_deploy.export.int8.artifacts import ChosenMix
from sshr_deploy.export.int8.search_state import check_state, clear_state
from sshr_deploy.export.job import ExportJob, ExportOptions, check_options
from sshr_deploy.export.proof import prove_here
from sshr_deploy.export.reference import PatchSet, reference_from
from sshr_deploy.export.rule_fit import fit_rule, rule_text
from sshr_deploy.known_tissue import (
    ADAPTATION_KEY,
    KNOWN_TISSUE_KEY,
    ORIGINAL_TISSUE_KEY,
    adaptation_of,
    known_tissue_of,
)
from sshr_deploy.manifest import (
    SCHEMA_VERSION,
    Artifact,
    FieldGraphs,
    Manifest,
    ModelFacts,
    RuleFit,
)
from sshr_deploy.model import SSHR
from sshr_deploy.model.checkpoint import (
    CONFIG_KEY,
    POSITION_KEY,
    PROFILE_KEY,
    check_labels,
    load_checkpoint,
    read_header,
)
from sshr_deploy.precision import Precision
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.engines.reference import (
    FIELD_REFERENCE_NAME,
    REFERENCE_NAME,
    write_reference,
)
from sshr_deploy.runtime.engines.store import EngineStore
from sshr_deploy.runtime.evaluation.split import check_split
from sshr_deploy.runtime.machine.clock import now_utc
from sshr_deploy.runtime.machine.threads import choose_threads, use_threads
from sshr_deploy.runtime.pipeline.tissue_patches import check_tissue_source
from sshr_deploy.runtime.progress import OnStep, tell_nobody
from sshr_deploy.version import __version__

_NOT_COPIED = {
    *(CONFIG_KEY, PROFILE_KEY, POSITION_KEY, "format"),
    *(KNOWN_TISSUE_KEY, ADAPTATION_KEY, ORIGINAL_TISSUE_KEY),
}  # the manifest has its own
_TOOLS = ("torch", "onnx", "onnxscript", "onnxruntime", "numpy")


def export_bundle(
    checkpoint: Path,
    profile: Profile,
    out: Path,
    patches: PatchSet,
    options: ExportOptions | None = None,
    *,
    overwrite: bool = False,
    relabel: bool = False,
    on_step: OnStep = tell_nobody,
) -> Bundle:
    """Write the bundle `out`; it appears whole and qualified, or not at all.

    With `overwrite` an earlier bundle at `out` is replaced at the end; any other folder there is
    left alone. A checkpoint that carries a profile keeps its class names, unless `relabel` allows
    `profile` to change them; the manifest records the carried one wherever they differ.

    Raises:
        CheckpointError: see `load_checkpoint`.
        DatasetError: the split to fit a rule on cannot be used.
        UsageError: `out` is in the way; the checkpoint has another number of classes, or carries
            other names for them; no such target; nothing to calibrate on.
        ExportError: nothing can be read to calibrate on; a graph could not be made or misses its
            tolerance, or an engine cannot be built from it.
        SessionError: an engine does not run here, or does not equal the reference.
    """
    options = options or ExportOptions()
    out = out.resolve()
    state = out.with_name(f"{out.name}.int8-search")
    _check(out, state, options, overwrite=overwrite)
    carried = check_labels(checkpoint, profile, relabel=relabel)
    on_step(f"reading {checkpoint}")
    model = _read(checkpoint, profile)
    facts = _facts(model, checkpoint)
    if carried == profile:
        carried = None
    if carried is not None:
        on_step(_difference(carried, profile))
    threads = choose_threads(model.config.width, options.threads)
    use_threads(threads)
    on_step(f"computing with {threads}")
    rule_fit = None
    if options.fit_rule is not None and (geometry := options.fields()) is not None:
        profile, rule_fit = fit_rule(
            model, profile, options.fit_rule, geometry, relabel=relabel, on_step=on_step
        )
        on_step(rule_text(rule_fit, profile))
    try:
        scratch_name = out.with_name(f"{out.name}.scratch")
        with partial_folder(out) as partial, partial_folder(scratch_name) as scratch:
            reference = reference_from(model, patches)
            job = ExportJob(model, profile, reference, partial, scratch, state, options, on_step)
            _fill(job, patches, facts, carried, rule_fit)
            replace_folder(partial, out)
            if Precision.INT8 in options.precisions:
                clear_state(state)
    except OSError as error:
        raise ExportError(
            f"cannot write {out}: {error.strerror or error}; free space or choose another `out`"
        ) from error
    return load_bundle(out)


def _check(out: Path, state: Path, options: ExportOptions, *, overwrite: bool) -> None:
    """Refuse what cannot work, before anything is computed."""
    check_options(options)
    _check_out(out, overwrite=overwrite)
    if Precision.INT8 in options.precisions:
        check_state(state)
        if options.calibration is not None:
            check_tissue_source(options.calibration)
    if options.fit_rule is not None:
        check_split(options.fit_rule)


def _check_out(out: Path, *, overwrite: bool) -> None:
    """Only a bundle and nothing else may be replaced; what a user put beside it is never lost."""
    try:
        if not out.exists():
            return
        names = {p.relative_to(out).as_posix() for p in out.rglob("*")} if out.is_dir() else {""}
        if not names:
            return
        if not out.is_dir() or MANIFEST_NAME not in names:
            raise UsageError(f"{out} exists and is not a bundle; choose another `out`")
        ours = {MANIFEST_NAME} | listed_files(out) | EngineStore(out).names()
        foreign = sorted(names - ours)
    except OSError as error:
        raise UsageError(f"{out} cannot be used: {error.strerror}; choose another `out`") from error
    if foreign:
        raise UsageError(f"{out} holds {foreign[0]}, which is no part of a bundle; move it away")
    if not overwrite:
        raise UsageError(
            f"{out} exists; add `overwrite` to replace that bundle, or choose another `out`"
        )


def _read(checkpoint: Path, profile: Profile) -> SSHR:
    model = load_checkpoint(checkpoint)
    if model.config.num_classes != profile.num_classes:
        raise UsageError(
            f"{checkpoint} has {model.config.num_classes} classes, profile {profile.name} has "
            f"{profile.num_classes}; choose the profile it was trained with"
        )
    return model


def _difference(carried: Profile, profile: Profile) -> str:
    """A line for the user on a profile that is not the checkpoint's own."""
    if carried.class_names != profile.class_names:
        names = ", ".join(carried.class_names)
        return f"renaming the classes, which were {names}; the manifest records that"
    fields = [
        name
        for name in Profile.model_fields
        if name not in ("name", "title") and getattr(carried, name) != getattr(profile, name)
    ]
    if not fields:
        return f"profile {profile.name} is the checkpoint's own under another name or title"
    return (
        f"profile {profile.name} differs from the checkpoint's own in {', '.join(fields)}; the "
        "manifest records both"
    )


def _fill(
    job: ExportJob,
    patches: PatchSet,
    facts: ModelFacts,
    carried: Profile | None,
    rule_fit: RuleFit | None,
) -> None:
    """Write all files of the bundle into the job's folder, and prove them."""
    if facts.known_tissue is not None:
        np.save(job.folder / FIRST_LAYER_NAME, job.model.conv1a.weight.detach().numpy())
    write_reference(job.folder / REFERENCE_NAME, job.reference)
    made = make_artifacts(job)
    fields = _field_graphs(job, patches, made.mixes, rule_fit)
    write_manifest(job.folder, _manifest(facts, carried, job, made.artifacts, fields))
    prove_here(load_bundle(job.folder), job.on_step)


def _field_graphs(
    job: ExportJob, patches: PatchSet, mixes: Sequence[ChosenMix], rule_fit: RuleFit | None
) -> FieldGraphs | None:
    """The graphs for fields, written and qualified; None where none are wanted."""
    geometry = job.options.fields()
    if geometry is None:
        return None
    job.on_step(f"computing {geometry.inputs} with PyTorch, to compare with")
    on_fields = replace(job, reference=field_reference(job.model, patches, geometry))
    write_reference(job.folder / FIELD_REFERENCE_NAME, on_fields.reference)
    return FieldGraphs(
        geometry=geometry,
        gflop_per_field=flop_per_input(job.model, geometry) / 1e9,
        reference_file=FIELD_REFERENCE_NAME,
        rule_fit=rule_fit,
        artifacts=make_field_artifacts(on_fields, job, mixes),
    )


def _facts(model: SSHR, checkpoint: Path) -> ModelFacts:
    header = read_header(checkpoint)
    return ModelFacts(
        width=model.config.width,
        num_classes=model.config.num_classes,
        parameters=sum(p.numel() for p in model.parameters()),
        gflop_per_patch=flop_per_input(model) / 1e9,
        checkpoint_name=checkpoint.name,
        checkpoint_sha256=file_entry(checkpoint).sha256,
        metadata={k: v for k, v in header.items() if k not in _NOT_COPIED},
        known_tissue=known_tissue_of(header, str(checkpoint)),
        adaptation=adaptation_of(header, str(checkpoint)),
    )


def _manifest(
    facts: ModelFacts,
    carried: Profile | None,
    job: ExportJob,
    artifacts: list[Artifact],
    fields: FieldGraphs | None,
) -> Manifest:
    return Manifest(
        schema_version=SCHEMA_VERSION,
        created_utc=now_utc(),
        profile=job.profile,
        carried_profile=carried,
        model=facts,
        tool_versions={
            "sshr-deploy": __version__,
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in _TOOLS},
        },
        reference_file=REFERENCE_NAME,
        engine_options=job.options.engine_options,
        artifacts=artifacts,
        fields=fields,
        files={p.name: file_entry(p) for p in sorted(job.folder.iterdir())},
    )
