"""One adaptation, from a checkpoint and unlabelled slides to another checkpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from sshr_deploy.errors import AdaptationError, UsageError, check_count
from sshr_deploy.known_tissue import Adaptation, Checks, KnownTissue, known_tissue_of
from sshr_deploy.model.batch_norms import Moments, measure
from sshr_deploy.model.checkpoint import carried_profile
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.evaluation.split import TruthImage, check_split, read_split
from sshr_deploy.runtime.evaluation.truth_classes import refuse_other_classes
from sshr_deploy.runtime.machine.clock import now_utc
from sshr_deploy.runtime.machine.threads import choose_threads, use_threads
from sshr_deploy.runtime.pipeline.discovery import fingerprint_of, kind_of
from sshr_deploy.runtime.pipeline.tissue_patches import (
    TissuePatches,
    check_tissue_source,
    tissue_patches,
)
from sshr_deploy.runtime.progress import OnStep, tell_nobody
from sshr_deploy.runtime.settings import InferSettings
from sshr_deploy.train.adaptation.guards import (
    MIN_INPUTS,
    checks_of,
    look_at_slides,
    objections_to_labels,
    objections_to_slides,
)
from sshr_deploy.train.adaptation.original import (
    Original,
    check_out,
    read_original,
    write_adapted,
)
from sshr_deploy.train.adaptation.qualify import measure_gain, objections_to_gain
from sshr_deploy.train.adaptation.tuning import (
    Balance,
    Tuning,
    adapt_network,
    predicted_cells,
    shares_of,
    training_moments,
)
from sshr_deploy.train.dataset import TRAINING_FOLDER

DEFAULT_PATCHES = 64
_TRAINING_PATCHES = 128
_MAX_PATCHES = 1024  # 13 GB at width 64, see `measure`


@dataclass(frozen=True)
class AdaptJob:
    """What to adapt, to what, and how."""

    checkpoint: Path
    profile: Profile
    """Classes, gate and pixel size of the checkpoint."""
    slides: Path
    """A folder of slides and images of the other scanner."""
    out: Path
    """The checkpoint to write."""
    tuning: Tuning = field(default_factory=Tuning)
    settings: InferSettings = field(default_factory=InferSettings)
    """How slides and images are taken: pixel size, stain."""
    patches: int = DEFAULT_PATCHES
    seed: int = 0
    """Of the choice of patches."""
    training: Path | None = None
    """Data set, or folder of patches, from which the moments of the training set are measured; None
    for those of the checkpoint."""
    qualify: Path | None = None
    """Labelled split on which the adapted network may not be worse."""
    force: bool = False
    """Adapt in spite of objections, and record them."""
    overwrite: bool = False
    threads: int | None = None


def adapt(job: AdaptJob, on_step: OnStep = tell_nobody) -> Adaptation:
    """Adapt a checkpoint; the new one appears whole at `job.out`, or not at all.

    An adapted checkpoint is adapted from its original statistics. The same job gives the same
    weights.

    Raises:
        UsageError: `out` is in the way; a bundle; a profile of other classes; nothing shows tissue;
            class shares are needed and not known.
        CheckpointError: it cannot be read, or says nothing of its training set and there is no
            `training`.
        DatasetError: the split cannot be used.
        AdaptationError: the network had better not be adapted to this.
        OutputError: `out` cannot be written.
    """
    _check(job)
    on_step(f"reading {job.checkpoint}")
    original = _read(job)
    model, names = original.model, job.profile.class_names
    labelled = None if job.qualify is None else _labelled(job.qualify, job.profile)
    threads = choose_threads(model.config.width, job.threads)
    use_threads(threads)
    on_step(f"computing with {threads}")
    known = _training_set(job, original, on_step)
    _check_balance(job, known)
    found = _patches(job, on_step)
    guard = _Guard(job, on_step)
    first_layer = model.conv1a.weight.detach().numpy()
    slides = look_at_slides(found, first_layer, job.profile.mpp_um)
    guard.hear(objections_to_slides(found, slides))
    on_step(f"labelling {len(found.patches)} patches with the network as it is")
    before = predicted_cells(model, job.profile, found.patches)
    guard.hear(objections_to_labels(before, names))
    adapted = adapt_network(
        model,
        job.profile,
        found.patches,
        known.moments,
        known.class_shares,
        job.tuning,
        on_step,
        labels=before.labels,
    )
    on_step(f"labelling {len(found.patches)} patches with the adapted network")
    after = predicted_cells(adapted, job.profile, found.patches)
    guard.hear(objections_to_labels(before, names, after, known.class_shares))
    checks = checks_of(before, after, slides.apart)
    if job.qualify is not None and labelled is not None:
        gain = measure_gain(model, adapted, job.profile, labelled, on_step)
        guard.hear(objections_to_gain(gain, job.qualify))
        checks = checks.model_copy(update=gain.as_checks())
    adaptation = _record(job.tuning, found, original, checks, guard.forced)
    tissue = KnownTissue(
        source=found.source,
        patches=len(found.patches),
        class_shares=known.class_shares,
        appearance=slides.appearance,
    )
    write_adapted(job.out, adapted, original, job.profile, known.moments, adaptation, tissue)
    return adaptation


class _Guard:
    """Takes objections, and ends the work unless the user overrules them."""

    def __init__(self, job: AdaptJob, on_step: OnStep) -> None:
        self._job, self._on_step = job, on_step
        self.forced: list[str] = []

    def hear(self, objections: Sequence[str]) -> None:
        if not objections:
            return
        if not self._job.force:
            count = len(objections)
            which = "" if count == 1 else f", {count} objections, the first"
            raise AdaptationError(
                f"{self._job.checkpoint} is not adapted{which}: {objections[0]}; or add `force`, "
                "which is recorded",
                objections,
            )
        for objection in objections:
            self._on_step(f"overruled: {objection}")
        self.forced += objections


class _TrainingSet(NamedTuple):
    """What is known of the training set."""

    moments: Mapping[str, Moments]
    class_shares: tuple[float, ...] | None
    """Of the label maps of its patches; None if not known."""


def _check(job: AdaptJob) -> None:
    """Refuse what cannot work, before anything is computed."""
    check_count("patches", job.patches, _MAX_PATCHES)
    if job.patches < MIN_INPUTS and not job.force:
        raise UsageError(
            f"`patches` is {job.patches}, too few for one of each of {MIN_INPUTS} slides or "
            f"images; give at least {MIN_INPUTS}, or add `force`, which is recorded"
        )
    check_tissue_source(job.slides)
    if job.training is not None:
        check_tissue_source(job.training)
    if job.qualify is not None:
        check_split(job.qualify)
    check_out(job.checkpoint, job.out, overwrite=job.overwrite)


def _read(job: AdaptJob) -> Original:
    original = read_original(job.checkpoint)
    carried = carried_profile(job.checkpoint)
    if carried is not None and carried.class_names != job.profile.class_names:
        raise UsageError(
            f"{job.checkpoint} was trained on {', '.join(carried.class_names)}, which profile "
            f"{job.profile.name} does not have in this order; leave `profile` out"
        )
    classes = original.model.config.num_classes
    if classes != job.profile.num_classes:
        raise UsageError(
            f"{job.checkpoint} has {classes} classes, profile {job.profile.name} has "
            f"{job.profile.num_classes}; give the `profile` it was trained with"
        )
    return original


def _training_set(job: AdaptJob, original: Original, on_step: OnStep) -> _TrainingSet:
    model, profile = original.model, job.profile
    if job.training is None:
        tissue = known_tissue_of(original.header, str(job.checkpoint))
        shares = None if tissue is None else tissue.class_shares
        return _TrainingSet(training_moments(job.checkpoint, model), shares)
    inside = job.training / TRAINING_FOLDER
    source = inside if inside.is_dir() else job.training
    found = tissue_patches(source, profile, limit=_TRAINING_PATCHES, seed=job.seed)
    on_step(f"measuring {found.source}, on which it was trained")
    shares = shares_of(predicted_cells(model, profile, found.patches).labels, profile.num_classes)
    return _TrainingSet(measure(model, found.patches), shares)


def _check_balance(job: AdaptJob, known: _TrainingSet) -> None:
    if job.tuning.balance is Balance.CLASSES and known.class_shares is None:
        raise UsageError(
            f"{job.checkpoint} does not say which shares of classes it was trained on; give the "
            "folder of its training set with `training`, or `balance` slides"
        )


def _patches(job: AdaptJob, on_step: OnStep) -> TissuePatches:
    on_step(f"choosing patches of tissue in {job.slides}")
    found = tissue_patches(
        job.slides,
        job.profile,
        job.settings,
        limit=job.patches,
        seed=job.seed,
        balanced=job.tuning.balance is not Balance.NONE,
    )
    for reason in found.skipped:
        on_step(f"left out: {reason}")
    if job.settings.mpp_um is None and any(kind_of(path) == "patch" for path in found.inputs):
        on_step(
            f"PNG and JPEG state no pixel size and are taken to have the model's "
            f"{job.profile.mpp_um:g} um; give `mpp` if theirs is another"
        )
    return found


def _labelled(split: Path, profile: Profile) -> tuple[TruthImage, ...]:
    images = read_split(split, profile)
    refuse_other_classes(split, images, profile, may_relabel=False)
    return images


def _record(
    tuning: Tuning,
    found: TissuePatches,
    original: Original,
    checks: Checks,
    forced: Sequence[str],
) -> Adaptation:
    fingerprints = sorted(fingerprint_of(path) for path in found.inputs)
    return Adaptation(
        adapted_utc=now_utc(),
        source=found.source,
        inputs_sha256=hashlib.sha256("".join(fingerprints).encode()).hexdigest(),
        slides=len(found.inputs),
        patches=len(found.patches),
        depth=tuning.depth,
        balance=tuning.balance.value,
        strength=tuning.strength,
        min_spread=tuning.min_spread,
        original_sha256=original.sha256,
        checks=checks,
        forced=tuple(forced),
    )
