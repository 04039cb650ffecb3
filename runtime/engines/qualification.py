"""Whether a session, on this machine, gives what the PyTorch FP32 network gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import cycle

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.geometry import PATCH, Geometry
from sshr_deploy.manifest import IouComparison, Qualification, Tolerance
from sshr_deploy.precision import Precision
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.contract import CAM_NAMES, PATCH_PX, CamBatch, Session
from sshr_deploy.runtime.engines.reference import ReferenceSet
from sshr_deploy.runtime.field_labels import field_label_map, field_rule
from sshr_deploy.runtime.masks import gate, label_map, mask_rule
from sshr_deploy.scores import confusion_matrix, scores_from

TOLERANCES: Mapping[Precision, Tolerance] = {
    # Measured at full width: 1e-5 and 99.998 %. More is another graph, not rounding.
    Precision.FP32: Tolerance(
        mask_agreement=0.9995,
        mask_agreement_worst=0.9995,
        cam_relative_error=1e-4,
        gates_equal=True,
        miou_drop=0.001,
    ),
    # No patch may be wholly wrong (measured at width 8 and 16, FP16: 99.8 % in the worst).
    Precision.FP16: Tolerance(mask_agreement=0.995, mask_agreement_worst=0.95, miou_drop=0.001),
    Precision.BF16: Tolerance(mask_agreement=0.985, mask_agreement_worst=0.85, miou_drop=0.005),
    Precision.INT8: Tolerance(mask_agreement=0.985, miou_drop=0.005),
}
"""Bounds for an artefact of each precision, unless the export was told otherwise."""
_GATES_OF_CELLS = 0.9995
"""Share of a field's cells whose gates must be those of the reference, where all of a patch must.
Among ten thousand probabilities one may be within rounding of the threshold."""


def tolerance_on(tolerance: Tolerance, geometry: Geometry) -> Tolerance:
    """Bounds for patches as they hold for inputs of this geometry."""
    if geometry.is_patch or not tolerance.gates_equal:
        return tolerance
    return tolerance.model_copy(update={"gates_equal": False, "gate_agreement": _GATES_OF_CELLS})


def qualify(
    session: Session,
    reference: ReferenceSet,
    profile: Profile,
    *,
    passes: Sequence[Sequence[int]] = ((1, 8),),
    fill: bool = False,
    on_patches: Callable[[int], None] = lambda _: None,
) -> Qualification:
    """Run the patches of `reference` through `session` and compare; the worst pass counts.

    Args:
        session: what is to be qualified.
        reference: patches, and what they should give.
        profile: gate and weights of the label maps.
        passes: each goes over all patches in calls of these sizes, taking turns.
        fill: the last call of a pass has its full size, with patches from the beginning: for
            engines that have code for fixed sizes.
        on_patches: told how many patches more were compared.

    Label maps that the engine's device makes are compared as well, twice over, because the second
    time may run a captured graph.

    Raises:
        SessionError: the engine fails.
    """
    found = []
    for sizes in passes:
        comparison = _Comparison(reference, profile)
        chunks = _chunks(len(reference), sizes, fill=fill)
        batches = ((chosen, reference.patches[chosen]) for chosen in chunks)
        for chosen, got in session.stream(batches):
            for place, index in enumerate(chosen):
                comparison.add(index, got, place)
            on_patches(len(chosen))
        found.append(comparison)
    own_maps = [_agreement_of_maps(session, reference, profile, sizes, fill) for sizes in passes]
    return Qualification(
        reference=reference.made_by,
        engine=f"{session.info.engine}, {session.info.library}",
        device=session.info.device,
        patches=len(reference),
        source=reference.source,
        cam_relative_error={name: max(c.cam_errors[name] for c in found) for name in CAM_NAMES},
        prob_max_abs_error=max(c.prob_error for c in found),
        gates_equal=all(c.gate_agreement == 1 for c in found),
        gate_agreement=min(c.gate_agreement for c in found),
        mask_agreement=min([*(c.agreement for c in found), *own_maps]),
        mask_agreement_worst=min(c.worst for c in found),
        iou=max((c.iou for c in found if c.iou), key=lambda iou: iou.drop, default=None),
    )


def passes_for(batches: Sequence[int], geometry: Geometry = PATCH) -> tuple[tuple[int, ...], ...]:
    """Passes that reach all that an engine of these static batch sizes has: each, and the tail.

    An engine that takes any number gets fields one by one: a call of eight could fill the memory.
    """
    if not batches:
        return ((1, 8),) if geometry.is_patch else ((1,),)
    tail = max(max(batches) // 2, 1)
    return tuple((size,) for size in sorted({*batches, tail}))


def misses(found: Qualification, tolerance: Tolerance) -> list[str]:
    """Each figure that misses the tolerance, with its bound; empty for a qualified artefact."""
    said = []
    if tolerance.cam_relative_error is not None:
        said += [
            f"{name} is off by {error:.1e} (relative; at most {tolerance.cam_relative_error:.0e})"
            for name, error in found.cam_relative_error.items()
            if not error <= tolerance.cam_relative_error
        ]
    if tolerance.gates_equal and not found.gates_equal:
        said.append("a class gate differs")
    if not found.gate_agreement >= tolerance.gate_agreement:
        said.append(
            f"class gates agree in {found.gate_agreement:.4%} of cells "
            f"(at least {tolerance.gate_agreement:.2%})"
        )
    for worst, share, least in (
        ("", found.mask_agreement, tolerance.mask_agreement),
        ("in the worst patch ", found.mask_agreement_worst, tolerance.mask_agreement_worst),
    ):
        if not share >= least:
            said.append(f"masks agree {worst}on {share:.4%} of pixels (at least {least:.2%})")
    iou, most = found.iou, tolerance.miou_drop
    if iou is not None and most is not None and not iou.drop <= most:
        said.append(
            f"mean IoU changes by {-iou.drop:+.4f} to {iou.mean_iou:.4f} (at most {most:g} less)"
        )
    return said


def relative_rms_error(got: NDArray[np.float32], ref: NDArray[np.float32]) -> float:
    """RMS(got - ref) / RMS(ref) in float64; 0 for two all-zero arrays; 1e9 at most."""
    difference = float(np.sqrt(np.mean((got.astype(np.float64) - ref) ** 2)))
    scale = float(np.sqrt(np.mean(ref.astype(np.float64) ** 2)))
    if difference == 0:
        return 0.0
    return min(difference / scale, _LARGEST_ERROR) if scale else _LARGEST_ERROR


_LARGEST_ERROR = 1e9
"""Stands for infinity, which JSON does not have."""


LabelMaker = Callable[[CamBatch, int, int], NDArray[np.uint8]]
"""Label map of a place of a batch, which is an input of the reference (its index)."""


def label_maker(reference: ReferenceSet, profile: Profile) -> LabelMaker:
    """Makes label maps of the size of the reference's images; of fields each by itself."""
    if not reference.geometry.is_patch:
        on_fields = field_rule(profile)
        return lambda batch, place, _: field_label_map(batch, place, on_fields)
    rule = mask_rule(profile)

    def label(batch: CamBatch, place: int, index: int) -> NDArray[np.uint8]:
        height, width = reference.sizes_px[index].tolist()
        return label_map(batch, place, rule, height_px=height, width_px=width)

    return label


def gate_threshold(reference: ReferenceSet, profile: Profile) -> float:
    """Above which a class is on."""
    if reference.geometry.is_patch:
        return profile.gate_threshold
    return field_rule(profile).threshold


class _Comparison:
    """Findings of one pass."""

    def __init__(self, reference: ReferenceSet, profile: Profile) -> None:
        self._reference = reference
        self._label = label_maker(reference, profile)
        self._gate_above = gate_threshold(reference, profile)
        self._classes = profile.num_classes
        self._equal: dict[int, tuple[int, int]] = {}  # by patch: equal pixels, pixels
        self._gates: dict[int, float] = {}  # by patch: share of its gates (of cells) that are equal
        # Of the session and of the reference.
        self._confusion = np.zeros((2, self._classes, self._classes + 1), np.int64)
        self.cam_errors = dict.fromkeys(CAM_NAMES, 0.0)
        self.prob_error = 0.0

    def add(self, index: int, got: CamBatch, place: int) -> None:
        """Compare patch `index` of the reference with place `place` of what the session gave."""
        reference = self._reference
        for name in CAM_NAMES:
            exact = getattr(reference.cams, name)[index]
            error = relative_rms_error(getattr(got, name)[place], exact)
            self.cam_errors[name] = max(self.cam_errors[name], error)
        prob = reference.cams.prob[index]
        self.prob_error = max(self.prob_error, float(np.abs(got.prob[place] - prob).max()))
        mine, wanted = (gate(p, self._gate_above, axis=0) for p in (got.prob[place], prob))
        equal_gates = float((mine == wanted).all(0).mean())  # of the patch, or of its cells
        masks = [self._label(got, place, index), self._label(reference.cams, index, index)]
        equal = int((masks[0] == masks[1]).sum())
        if index in self._equal:  # it filled a call: the worse one counts, once
            equal = min(equal, self._equal[index][0])
        elif reference.truth is not None:
            truth = reference.truth[index]
            counts = [confusion_matrix(truth, mask, self._classes) for mask in masks]
            self._confusion += np.stack(counts)
        self._equal[index] = equal, masks[0].size
        self._gates[index] = min(self._gates.get(index, 1.0), equal_gates)

    @property
    def gate_agreement(self) -> float:
        """Share of patches, or of fields' cells, whose gates are equal."""
        return sum(self._gates.values()) / len(self._gates)

    @property
    def agreement(self) -> float:
        """Share of mask pixels with the same label."""
        counts = self._equal.values()
        return sum(equal for equal, _ in counts) / sum(pixels for _, pixels in counts)

    @property
    def worst(self) -> float:
        """The same in the worst patch."""
        return min(equal / pixels for equal, pixels in self._equal.values())

    @property
    def iou(self) -> IouComparison | None:
        """None without label maps, and where none of their pixels is of a class."""
        there = np.flatnonzero(self._confusion[1].sum(1))
        if not len(there):
            return None
        got, ref = (scores_from(counts).class_iou for counts in self._confusion)
        return IouComparison(
            mean_iou=float(np.mean([got[label] or 0.0 for label in there])),
            reference_mean_iou=float(np.mean([ref[label] or 0.0 for label in there])),
            class_iou=got,
            reference_class_iou=ref,
        )


def _chunks(count: int, sizes: Sequence[int], *, fill: bool) -> Iterator[list[int]]:
    """Indices 0 to `count` - 1 in order, in lists of `sizes`, which take turns."""
    start, turn = 0, cycle(sizes)
    while start < count:
        end = start + next(turn)
        yield [i % count for i in range(start, end if fill else min(end, count))]
        start = end


def _agreement_of_maps(
    session: Session, reference: ReferenceSet, profile: Profile, sizes: Sequence[int], fill: bool
) -> float:
    """Share of equal pixels in the label maps that the session made itself; 1 if it makes none.

    The maps are those of the patches themselves, 224 x 224.
    """
    if not session.labels_on_device:
        return 1.0
    rule, equal, pixels = mask_rule(profile), 0, 0
    chunks = list(_chunks(len(reference), sizes, fill=fill)) * 2
    batches = ((chosen, reference.patches[chosen]) for chosen in chunks)
    for chosen, got in session.stream(batches, rule):
        for labels, index in zip(got.labels, chosen, strict=True):
            wanted = label_map(reference.cams, index, rule, height_px=PATCH_PX, width_px=PATCH_PX)
            equal, pixels = equal + int((labels == wanted).sum()), pixels + wanted.size
    return equal / pixels
