"""The 8-bit graphs of a bundle: one for processors, one for the TensorRT libraries."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from sshr_deploy.export.graph.conv_layers import conv_layers
from sshr_deploy.export.graph.external_data import share_weights
from sshr_deploy.export.graph.timing import time_graphs
from sshr_deploy.export.graph.typed import write_typed_graph
from sshr_deploy.export.int8.qdq_from_onnx import QdqKind, QdqScheme
from sshr_deploy.export.int8.search import (
    CPU_SCHEMES,
    TENSORRT_SCHEMES,
    Int8Mix,
    Judge,
    SearchProgress,
    SearchTask,
    expected_steps,
    search_int8,
)
from sshr_deploy.export.int8.verdicts import (
    Budget,
    Int8RejectedError,
    Verdict,
    change_text,
    format_table,
)
from sshr_deploy.export.job import (
    CPU_ENGINE,
    ExportJob,
    artifact,
)
from sshr_deploy.manifest import Artifact, Quantisation
from sshr_deploy.precision import Precision
from sshr_deploy.runtime.contract import OUTPUT_NAMES
from sshr_deploy.runtime.engines.kinds import ONNX_CPU, TARGETS
from sshr_deploy.runtime.engines.qualification import qualify
from sshr_deploy.runtime.machine.processor import processor_text
from sshr_deploy.runtime.masks import mask_rule
from sshr_deploy.runtime.pipeline.tissue_patches import tissue_patches
from sshr_deploy.runtime.progress import OnStep, Sparse
from sshr_deploy.runtime.sessions.onnxruntime.session import OnnxRuntimeSession
from sshr_deploy.version import __version__

_CPU_ENDING, _TENSORRT_ENDING = "-int8", "-int8-tensorrt"


@dataclass(frozen=True, eq=False)
class ChosenMix:
    """A mix that was found, and what its graph is for."""

    mix: Int8Mix
    calibration: str
    """See `Quantisation.calibration`."""
    ending: str
    """Of the graph's name, see `ExportJob.graph`."""
    engines: tuple[str, ...]


def choose_mixes(job: ExportJob) -> list[ChosenMix]:
    """Search the 8-bit mixes of the graphs for patches, for the engines that were asked for.

    That for processors keeps what must be wide in FP32, and has to be faster than FP32 here. That
    for the TensorRT libraries keeps it in FP16, and is searched so; it is judged by ONNX Runtime on
    this processor, and again by the engine on the machine that builds it, where its speed is not
    known before. Where it is asked for, the bundle is made without the one for processors if that
    is rejected.

    Raises:
        Int8RejectedError: no mix meets the budget, or it is not faster; its table says why.
        ExportError: a graph cannot be made.
        InputError, UsageError: the calibration cannot be read.
        OSError: a folder cannot be written.
    """
    calibration = _calibration(job)
    engines = [
        e for target in job.options.targets if target != ONNX_CPU.target for e in TARGETS[target]
    ]
    progress = _Progress(job.on_step)
    if engines:
        layers = conv_layers(onnx.load(job.gpu_graph, load_external_data=False).graph)
        progress.later = expected_steps(len(layers), len(TENSORRT_SCHEMES))
    chosen = []
    try:
        mix = _search(job, calibration, CPU_SCHEMES, job.graph(), progress)
        chosen.append(ChosenMix(mix, calibration.source, _CPU_ENDING, (CPU_ENGINE,)))
    except Int8RejectedError as error:
        if not engines:
            raise
        job.on_step(error.table)
        job.on_step(f"no INT8 for {CPU_ENGINE}: {error}")
    if engines:
        progress.next_search()
        mix = _search(job, calibration, TENSORRT_SCHEMES, job.gpu_graph, progress)
        chosen.append(ChosenMix(mix, calibration.source, _TENSORRT_ENDING, tuple(engines)))
    return chosen


def write_mix(job: ExportJob, chosen: ChosenMix, patches: ExportJob | None = None) -> Artifact:
    """Write and qualify the 8-bit graph of a mix; for fields, on the weights of that for `patches`.

    Layers have the names of their weights in the checkpoint, so that a mix and its ranges fit the
    graphs for fields as well: their convolutions compute the same, cell by cell, on more of them.

    Raises:
        UnequalGraphError: it misses its tolerance.
        ExportError: it cannot be made.
        OSError: the folder cannot be written.
    """
    graph, mix = job.graph(chosen.ending), chosen.mix
    if patches is not None:
        mix = replace(mix, graph=_wide_graph(job, mix.setting.scheme.kind))
    wide_nodes = mix.write(graph)
    shared = () if patches is None else share_weights(graph, patches.graph(chosen.ending))
    made = artifact(job, graph, Precision.INT8, chosen.engines, weights=shared)
    return made.model_copy(
        update={
            "quantisation": Quantisation(
                kind=mix.setting.scheme.kind.value,
                weight_bits=mix.setting.scheme.weight_bits,
                range_method=mix.setting.method.value,
                calibration=chosen.calibration,
                quantised=mix.quantised,
                kept=mix.kept,
                wide_nodes=wide_nodes,
            )
        }
    )


def _wide_graph(job: ExportJob, kind: QdqKind) -> Path:
    """The graph whose convolutions become 8-bit; the others stay as they are there."""
    if kind is QdqKind.U8S8:
        return job.graph()
    fp16 = job.scratch / f"{job.gpu_graph.stem}-typed.onnx"
    write_typed_graph(job.gpu_graph, fp16, Precision.FP16)
    return fp16


class _Progress:
    """Tells how far one or two searches are, as steps of all of them together."""

    def __init__(self, on_step: OnStep) -> None:
        self._on_step = Sparse(on_step)
        self._before = self._done = 0
        self.later = 0
        """Steps expected of the search that comes after this one."""

    def next_search(self) -> None:
        """The one before has ended."""
        self._before, self.later = self._before + self._done, 0
        self._done = 0

    def of(self, kind: str) -> SearchProgress:
        """The callback of a search for the mix of `kind`."""

        def on_progress(done: int, total: int, text: str) -> None:
            self._done = done
            of_all = self._before + total + self.later
            self._on_step(f"{self._before + done}/{of_all} steps: {kind}, {text}")

        return on_progress


def judge_of(job: ExportJob) -> Judge:
    """Compares a graph with the reference, by ONNX Runtime on this processor."""

    def judge(graph: Path) -> Verdict:
        classes = job.profile.num_classes
        with OnnxRuntimeSession(graph, classes, precision=Precision.INT8.value) as session:
            found = qualify(session, job.reference, job.profile)
        return Verdict(
            agreement=found.mask_agreement,
            miou_drop=None if found.iou is None else found.iou.drop,
            cam_error=max(found.cam_relative_error.values()),
        )

    return judge


class _Calibration(NamedTuple):
    patches: NDArray[np.uint8]  # [P, 224, 224, 3]
    source: str


def _calibration(job: ExportJob) -> _Calibration:
    if job.options.calibration is None:
        patches = job.reference.patches
        source = f"{len(patches)} patches of {job.reference.source}, the patches it is judged on"
        return _Calibration(patches, source)
    job.on_step(f"choosing calibration patches from {job.options.calibration}")
    found = tissue_patches(job.options.calibration, job.profile)
    for reason in found.skipped:
        job.on_step(f"not calibrated on: {reason}")
    return _Calibration(found.patches, found.source)


def _search(
    job: ExportJob,
    calibration: _Calibration,
    schemes: Sequence[QdqScheme],
    source: Path,
    progress: _Progress,
) -> Int8Mix:
    tolerance = job.options.tolerances[Precision.INT8]
    drop = 1.0 if tolerance.miou_drop is None else tolerance.miou_drop
    classes = job.profile.num_classes
    kind = schemes[0].kind
    task = SearchTask(
        source=source,
        patches=calibration.patches,
        schemes=schemes,
        judge=judge_of(job),
        judge_name=_judge_name(job),
        time_ms=(lambda graphs: time_graphs(graphs, classes)) if kind is QdqKind.U8S8 else None,
        work=job.state,
        scratch=job.scratch,
        budget=Budget(tolerance.mask_agreement, drop),
        graph=_wide_graph(job, kind),
    )
    job.on_step(f"searching the {kind} mix; what is found out is kept in {job.state}")
    mix = search_int8(task, progress.of(kind))
    if timed_rows := [row for row in mix.rows if row.ms is not None]:
        job.on_step(format_table(timed_rows))
    job.on_step(_choice(mix))
    return mix


def _choice(mix: Int8Mix) -> str:
    scheme, verdict = mix.setting.scheme, mix.verdict
    total = len(mix.quantised) + len(mix.kept)
    wide = "FP32" if scheme.kind is QdqKind.U8S8 else "FP16"
    kept = f"{', '.join(mix.kept)} in {wide}" if mix.kept else f"none in {wide}"
    change = change_text(verdict.miou_drop)
    iou = f", mean IoU changes by {change}" if change else ""
    return (
        f"chosen: {scheme}, ranges by {mix.setting.method}; {len(mix.quantised)} of {total} "
        f"convolutions in 8 bits, {kept}; masks agree on {verdict.agreement:.2%} of pixels{iou}"
    )


def _judge_name(job: ExportJob) -> str:
    """Verdicts of another processor, library, reference or release of this code do not count."""
    reference = job.reference
    arrays: list[NDArray[Any]] = [reference.patches, reference.sizes_px]
    arrays += [getattr(reference.cams, name) for name in OUTPUT_NAMES]
    digest = hashlib.sha256(reference.made_by.encode())
    for array in (*arrays, *(reference.truth or ())):
        digest.update(array.tobytes())
    rule = mask_rule(job.profile)
    versions = f"{__version__} {onnxruntime.__version__}"
    return f"{digest.hexdigest()} {rule} {versions} {processor_text()}"
