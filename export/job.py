"""The job of one export: its options, what it works with, and the making of one artefact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sshr_deploy.errors import ExportError, SessionError, UsageError
from sshr_deploy.export.graph.deploy import HfrmForm
from sshr_deploy.export.graph.onnx_from_network import OPSET
from sshr_deploy.geometry import (
    BLOCK_PX,
    CPU_FIELD_PX,
    GPU_FIELD_PX,
    MAX_SIDE_PX,
    Geometry,
    field_geometry,
)
from sshr_deploy.manifest import Artifact, EngineOptions, Qualification, Tolerance
from sshr_deploy.model import SSHR
from sshr_deploy.precision import Precision
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.engines.kinds import KINDS, ONNX_CPU, TARGETS, TENSORRT
from sshr_deploy.runtime.engines.qualification import (
    TOLERANCES,
    misses,
    passes_for,
    qualify,
    tolerance_on,
)
from sshr_deploy.runtime.engines.reference import ReferenceSet
from sshr_deploy.runtime.progress import OnStep
from sshr_deploy.runtime.sessions.onnxruntime.session import OnnxRuntimeSession

MODEL_NAME = "model.onnx"
CPU_ENGINE = ONNX_CPU.name


class UnequalGraphError(ExportError):
    """A graph that misses its tolerance; `misses` names every figure that does."""

    def __init__(self, precision: Precision, misses: Sequence[str]) -> None:
        super().__init__(
            f"the exported {precision.upper()} graph does not equal the checkpoint: "
            f"{'; '.join(misses)}; nothing was written"
        )
        self.misses = tuple(misses)


@dataclass(frozen=True)
class ExportOptions:
    """Choices of a user for a bundle, which holds the FP32 graph for ONNX Runtime in any case."""

    precisions: tuple[Precision, ...] = ()
    targets: tuple[str, ...] = ()
    """Keys of `kinds.TARGETS`."""
    calibration: Path | None = None
    """Patches or slides for INT8; without it the patches of the qualification serve."""
    form: HfrmForm | None = None
    """Of HFRM in every graph; None for depthwise where a processor runs it and separable where a
    GPU does. 225 depthwise taps run on a GPU's plain units, the separable form on its matrix units:
    PyTorch took 24.8 and 14.4 ms for 32 patches in FP16 (H200, `benchmarks/notes.md`)."""
    engine_options: EngineOptions = field(default_factory=EngineOptions)
    tolerances: dict[Precision, Tolerance] = field(default_factory=lambda: dict(TOLERANCES))
    threads: int | None = None
    """CPU threads; None chooses by width and cores."""
    field_px: int | None = None
    """Side of the fields that graphs are made for; 0 for none, None for what the targets like."""
    fit_rule: Path | None = None
    """Split with label maps, on which the rule of fields is chosen; None for the profile's own."""

    def engines(self) -> tuple[str, ...]:
        """Names of the engines that the bundle is for."""
        targets = dict.fromkeys((ONNX_CPU.target, *self.targets))
        return tuple(engine for target in targets for engine in TARGETS[target])

    def form_for(self, engines: Sequence[str]) -> HfrmForm:
        """Form of HFRM in a graph for these engines."""
        usual = HfrmForm.DEPTHWISE if list(engines) == [CPU_ENGINE] else HfrmForm.SEPARABLE
        return self.form or usual

    def fp32_graphs(self, geometry: Geometry) -> dict[str, tuple[str, ...]]:
        """The FP32 graphs by the ending of their names, that for processors first, and the engines
        that run each.

        Of fields, that for processors takes several sides, and those for GPUs one.
        """
        gpu = tuple(engine for engine in self.engines() if engine != CPU_ENGINE)
        if geometry.is_patch and self.form_for(gpu) is self.form_for((CPU_ENGINE,)):
            return {"": self.engines()}
        return {"": (CPU_ENGINE,), "-gpu": gpu}

    def fields(self) -> Geometry | None:
        """The fields that graphs are made for; None for none.

        Raises:
            UsageError: there are none of that side.
        """
        usual = GPU_FIELD_PX if set(self.targets) - {ONNX_CPU.target} else CPU_FIELD_PX
        side_px = usual if self.field_px is None else self.field_px
        if side_px == 0:
            return None
        try:
            return field_geometry(side_px)
        except ValueError as error:
            near = sorted(_sides(), key=lambda side: abs(side - side_px))[:2]
            raise UsageError(
                f"`field` {side_px} is no side that fields may have; "
                f"choose {' or '.join(map(str, sorted(near)))}, or 0 for none"
            ) from error


def _sides() -> list[int]:
    """Sides that fields may have, in pixels."""
    found = []
    for side_px in range(BLOCK_PX, MAX_SIDE_PX + 1, BLOCK_PX):
        try:
            found.append(field_geometry(side_px).side_px)
        except ValueError:
            continue
    return found


def int8_tolerances(
    *, miou_drop: float | None = None, mask_agreement: float | None = None
) -> dict[Precision, Tolerance]:
    """The tolerances of all precisions, with this budget for INT8 where it is given."""
    usual = TOLERANCES[Precision.INT8]
    budget = Tolerance(
        mask_agreement=usual.mask_agreement if mask_agreement is None else mask_agreement,
        miou_drop=usual.miou_drop if miou_drop is None else miou_drop,
    )
    return {**TOLERANCES, Precision.INT8: budget}


def check_options(options: ExportOptions) -> None:
    """Refuse what cannot work, before anything is read.

    Raises:
        ExportError: the form `FUSED`.
        UsageError: no such target or fields, or options for engines that are no targets.
    """
    if options.form is HfrmForm.FUSED:
        raise ExportError(
            "a graph of form fused runs in TensorRT alone, so it cannot be qualified here; "
            "export form depthwise or separable"
        )
    if options.fields() is None and options.fit_rule is not None:
        raise UsageError(
            "`fit_rule` is for label maps of fields, of which `field` 0 makes none; leave one out"
        )
    if unknown := [target for target in options.targets if target not in TARGETS]:
        raise UsageError(f"no engine named {unknown[0]!r}; choose {', '.join(sorted(TARGETS))}")
    wanted = options.engine_options
    if (wanted.version_compatible or wanted.hardware_compatible) and (
        TENSORRT.target not in options.targets
    ):
        raise UsageError(
            "`version_compatible` and `hardware_compatible` are for `engine` "
            f"{TENSORRT.target}; "
            "leave them out, or add it"
        )
    if wanted.workspace_mib is not None and not set(options.targets) - {ONNX_CPU.target}:
        built = " and ".join(kind.target for kind in KINDS if kind.library is not None)
        raise UsageError(f"`workspace_mib` is for `engine` {built}; leave it out, or add one")


@dataclass(frozen=True, eq=False)
class ExportJob:
    """One export: what its artefacts are made of, and where they are written.

    The graphs are for inputs as its reference has them: patches, or fields.
    """

    model: SSHR
    profile: Profile
    reference: ReferenceSet
    folder: Path
    """Of the bundle that is being written."""
    scratch: Path
    """For files that are gone afterwards; no other export uses it."""
    state: Path
    """Of what long searches found out; it outlives an interrupted export."""
    options: ExportOptions
    on_step: OnStep

    def graph(self, ending: str = "") -> Path:
        """The graph that is called so: "" for processors, "-gpu", "-fp16" and so on."""
        stem = "model" if self.reference.geometry.is_patch else "field"
        return self.folder / f"{stem}{ending}.onnx"

    @property
    def gpu_graph(self) -> Path:
        """The FP32 graph that GPUs run."""
        return self.graph(list(self.options.fp32_graphs(self.reference.geometry))[-1])

    def tolerance(self, precision: Precision) -> Tolerance:
        """That its graphs of a precision have to keep."""
        return tolerance_on(self.options.tolerances[precision], self.reference.geometry)


def artifact(
    job: ExportJob,
    graph: Path,
    precision: Precision,
    engines: Sequence[str],
    opset: int = OPSET,
    weights: Sequence[str] = (),
) -> Artifact:
    """The artefact of a graph that is written, qualified where it can run here.

    Raises:
        ExportError: it misses the tolerance.
    """
    found, reason = None, None
    try:
        found = qualified(job, graph, precision)
    except SessionError as error:
        if precision is not Precision.BF16:  # which no processor's ONNX Runtime computes
            raise ExportError(f"the exported graph does not run: {error}") from error
        reason = str(error)
        job.on_step(f"not compared here: {reason}")
    return Artifact(
        engines=tuple(engines),
        precision=precision,
        file=graph.name,
        opset=opset,
        hfrm_form=job.options.form_for(engines).value,
        weights=tuple(weights),
        tolerance=job.tolerance(precision),
        qualification=found,
        not_qualified_because=reason,
    )


def qualified(job: ExportJob, graph: Path, precision: Precision) -> Qualification:
    """Compare a graph with the reference, by ONNX Runtime on this processor.

    Raises:
        SessionError: it cannot run here.
        UnequalGraphError: it misses the tolerance.
    """
    reference = job.reference
    inputs = f"{len(reference)} {reference.geometry.inputs}"
    job.on_step(f"comparing the {precision.upper()} graph with PyTorch on {inputs}")
    with open_graph(job, graph, precision) as session:
        if reference.geometry.is_patch:
            session.infer(np.zeros_like(reference.patches[:1].repeat(2, 0)))  # the batch is dynamic
        passes = passes_for((), reference.geometry)
        found = qualify(session, reference, job.profile, passes=passes)
    if said := misses(found, job.tolerance(precision)):
        raise UnequalGraphError(precision, said)
    return found


def open_graph(job: ExportJob, graph: Path, precision: Precision) -> OnnxRuntimeSession:
    """A graph of the job in ONNX Runtime on this processor.

    Raises:
        SessionError: it cannot run here.
    """
    classes, geometry = job.profile.num_classes, job.reference.geometry
    return OnnxRuntimeSession(graph, classes, precision=precision.value, geometry=geometry)
