"""The list of a bundle's artefacts: a graph for each precision and target that was asked for."""

from __future__ import annotations

from sshr_deploy.errors import ExportError, first_line
from sshr_deploy.export.graph.external_data import share_weights
from sshr_deploy.export.graph.onnx_from_network import write_onnx
from sshr_deploy.export.graph.typed import write_typed_graph
from sshr_deploy.export.int8.artifacts import int8_artifacts
from sshr_deploy.export.job import CPU_ENGINE, ExportJob, artifact
from sshr_deploy.manifest import Artifact
from sshr_deploy.precision import Precision


def make_artifacts(job: ExportJob) -> list[Artifact]:
    """Write the graphs for patches into the bundle's folder, each qualified if it can run here.

    Raises:
        ExportError: a graph could not be made, or misses its tolerance.
        OSError: the folder cannot be written.
    """
    artifacts = _fp32(job)
    for precision in dict.fromkeys(job.options.precisions):
        if precision in (Precision.FP16, Precision.BF16):
            artifacts.append(_typed(job, precision))
        elif precision is Precision.INT8:
            artifacts += int8_artifacts(job)
    return artifacts


def make_field_artifacts(job: ExportJob, patches: ExportJob) -> list[Artifact]:
    """Write graphs for the fields of `job`'s reference, on the weights of those for `patches`.

    Raises:
        ExportError: a graph could not be made, or misses its tolerance.
        OSError: the folder cannot be written.
    """
    return _fp32(job, patches)


def _fp32(job: ExportJob, patches: ExportJob | None = None) -> list[Artifact]:
    """The FP32 graphs of `job`, for fields on the weights of those for `patches`."""
    made = []
    geometry = job.reference.geometry
    for ending, engines in job.options.fp32_graphs().items():
        form, graph = job.options.form_for(engines), job.graph(ending)
        what = "the ONNX graph" if geometry.is_patch else f"that for {geometry.inputs}"
        job.on_step(f"writing {what}, HFRM {form}, for {', '.join(engines)}")
        try:
            write_onnx(job.model, graph, form=form, geometry=geometry)
        except OSError:
            raise
        except Exception as error:  # the exporter raises many kinds
            why = first_line(error)
            raise ExportError(f"PyTorch could not export the network: {why}") from error
        shared: tuple[str, ...] = ()
        if patches is not None:
            shared = share_weights(graph, patches.graph(ending))
        elif ending:
            shared = share_weights(graph, job.graph())
        made.append(artifact(job, graph, Precision.FP32, engines, weights=shared))
    return made


def _typed(job: ExportJob, precision: Precision) -> Artifact:
    graph = job.graph(f"-{precision}")
    job.on_step(f"writing the {precision.upper()} graph")
    opset = write_typed_graph(job.gpu_graph, graph, precision)
    engines = [
        engine
        for engine in job.options.engines()
        if precision is not Precision.BF16 or engine != CPU_ENGINE
    ]
    return artifact(job, graph, precision, engines, opset)
