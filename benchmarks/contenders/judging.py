"""How far a contender's results are from PyTorch's, and whether its speed may be told."""

from __future__ import annotations

from sshr_deploy.benchmarks.contenders.contender import Contender
from sshr_deploy.benchmarks.report.records import Agreement
from sshr_deploy.bundle import Bundle
from sshr_deploy.geometry import Geometry
from sshr_deploy.manifest import Qualification, Tolerance
from sshr_deploy.runtime.contract import Session
from sshr_deploy.runtime.engines.qualification import (
    misses,
    passes_for,
    qualify,
    tolerance_on,
)
from sshr_deploy.runtime.engines.reference import ReferenceSet, read_reference


def judged(
    session: Session, contender: Contender, bundle: Bundle, *, batch: int | None = None
) -> Agreement:
    """Compare a session's results with PyTorch's on the bundle's reference, now.

    Args:
        session: an open one of `contender`.
        contender: its tolerance decides.
        bundle: for the reference.
        batch: inputs of every call; None for calls of one and of eight patches, or one field.

    Raises:
        SessionError: the session fails.
        BundleError: the reference is broken.
    """
    size = 1 if batch is None and contender.compiles_sizes else batch
    found = qualify(
        session,
        reference_of(bundle),
        bundle.manifest.profile,
        passes=passes_for((), bundle.geometry) if size is None else ((size,),),
        fill=size is not None,
    )
    return agreement_of(found, contender.tolerance, bundle.geometry)


def agreement_of(found: Qualification, tolerance: Tolerance, geometry: Geometry) -> Agreement:
    """What was found about an engine, for a row; `tolerance` is that for patches."""
    return Agreement(
        masks=found.mask_agreement,
        cam_error=max(found.cam_relative_error.values()),
        misses=tuple(misses(found, tolerance_on(tolerance, geometry))),
    )


def why_no_speed(agreement: Agreement | None) -> str | None:
    """Why a row has no samples, for its `not_measured`; None where its speed may be told."""
    if agreement is None or not agreement.misses:
        return None
    return "its masks disagree: " + "; ".join(agreement.misses)


def reference_of(bundle: Bundle) -> ReferenceSet:
    """Patches or fields of `bundle`, and what PyTorch FP32 says of them.

    Raises:
        BundleError: the file is broken.
    """
    file = bundle.file(bundle.reference_file)
    return read_reference(file, bundle.manifest.profile.num_classes, bundle.geometry)
