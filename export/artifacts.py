"""The list of a bundle's artefacts: a graph for each precision and target that was asked for."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from sshr_deploy.errors import ExportError, first_line
from sshr_deploy.export.graph.deploy import HfrmForm
from sshr_deploy.export.graph.external_data import share_weights
from sshr_deploy.export.graph.onnx_from_network import write_of_one_side, write_onnx
from sshr_deploy.export.graph.typed import write_typed_graph
from sshr_deploy.export.int8.artifacts import ChosenMix, choose_mixes, write_mix
from sshr_deploy.export.job import CPU_ENGINE, ExportJob, UnequalGraphError, artifact
from sshr_deploy.manifest import Artifact
from sshr_deploy.precision import Precision


class Made(NamedTuple):
    """Artefacts for patches, and what was found out about 8 bits on the way."""

    artifacts: list[Artifact]
    mixes: list[ChosenMix]


def make_artifacts(job: ExportJob) -> Made:
    """Write the graphs for patches into the bundle's folder, each qualified if it can run here.

    Raises:
        ExportError: a graph could not be made, or misses its tolerance.
        OSError: the folder cannot be written.
    """
    made = Made(_fp32(job), [])
    for precision in dict.fromkeys(job.options.precisions):
        if precision in (Precision.FP16, Precision.BF16):
            made.artifacts.append(_typed(job, precision))
        elif precision is Precision.INT8:
            made.mixes.extend(choose_mixes(job))
            made.artifacts.extend(write_mix(job, mix) for mix in made.mixes)
    return made


def make_field_artifacts(
    job: ExportJob, patches: ExportJob, mixes: Iterable[ChosenMix]
) -> list[Artifact]:
    """Write graphs for the fields of `job`'s reference, on the weights of those for `patches`.

    Those in 8 bits are of the `mixes` for patches; one that misses its tolerance is left out.

    Raises:
        ExportError: a graph could not be made, or a wider one misses its tolerance.
        OSError: the folder cannot be written.
    """
    artifacts = _fp32(job, patches)
    for precision in dict.fromkeys(job.options.precisions):
        if precision in (Precision.FP16, Precision.BF16):
            artifacts.append(_typed(job, precision, patches))
        elif precision is Precision.INT8:
            artifacts += filter(None, (_int8_of_fields(job, mix, patches) for mix in mixes))
    return artifacts


def _int8_of_fields(job: ExportJob, chosen: ChosenMix, patches: ExportJob) -> Artifact | None:
    try:
        return write_mix(job, chosen, patches)
    except UnequalGraphError as error:
        said = "; ".join(error.misses)
        job.on_step(f"no INT8 for fields with {', '.join(chosen.engines)}: {said}")
    graph = job.graph(chosen.ending)
    for path in (graph, graph.with_name(f"{graph.name}.data")):
        path.unlink(missing_ok=True)
    return None


def _fp32(job: ExportJob, patches: ExportJob | None = None) -> list[Artifact]:
    """The FP32 graphs of `job`, for fields on the weights of those for `patches`."""
    made: list[Artifact] = []
    geometry = job.reference.geometry
    for ending, engines in job.options.fp32_graphs(geometry).items():
        form, graph = job.options.form_for(engines), job.graph(ending)
        job.on_step(
            f"writing the ONNX graph for {geometry.inputs}, HFRM {form}, for {', '.join(engines)}"
        )
        if made and made[0].hfrm_form == form:
            write_of_one_side(job.graph(), graph, geometry)
            shared = made[0].weights
        else:
            _write_fp32(job, graph, form, any_side=patches is not None and not ending)
            source = job.graph() if patches is None else patches.graph(ending)
            shared = () if graph == source else share_weights(graph, source)
        made.append(artifact(job, graph, Precision.FP32, engines, weights=shared))
    return made


def _write_fp32(job: ExportJob, graph: Path, form: HfrmForm, *, any_side: bool) -> None:
    try:
        write_onnx(job.model, graph, form=form, geometry=job.reference.geometry, any_side=any_side)
    except OSError:
        raise
    except Exception as error:  # the exporter raises many kinds
        why = first_line(error)
        raise ExportError(f"PyTorch could not export the network: {why}") from error


def _typed(job: ExportJob, precision: Precision, patches: ExportJob | None = None) -> Artifact:
    ending = f"-{precision}"
    graph = job.graph(ending)
    job.on_step(f"writing the {precision.upper()} graph for {job.reference.geometry.inputs}")
    opset = write_typed_graph(job.gpu_graph, graph, precision)
    shared = () if patches is None else share_weights(graph, patches.graph(ending))
    engines = [
        engine
        for engine in job.options.engines()
        if precision is not Precision.BF16 or engine != CPU_ENGINE
    ]
    return artifact(job, graph, precision, engines, opset, shared)
