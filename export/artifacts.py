"""The list of a bundle's artefacts: a graph for each precision and target that was asked for."""

from __future__ import annotations

from sshr_deploy.errors import ExportError, first_line
from sshr_deploy.export.graph.external_data import share_weights
from sshr_deploy.export.graph.onnx_from_network import write_onnx
from sshr_deploy.export.graph.typed import write_typed_graph
from sshr_deploy.export.int8.artifacts import int8_artifacts
from sshr_deploy.export.job import CPU_ENGINE, MODEL_NAME, ExportJob, artifact
from sshr_deploy.manifest import Artifact
from sshr_deploy.precision import Precision


def make_artifacts(job: ExportJob) -> list[Artifact]:
    """Write the graphs into the bundle's folder, each qualified if it can run here.

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


def _fp32(job: ExportJob) -> list[Artifact]:
    made = []
    for name, engines in job.options.fp32_graphs().items():
        form = job.options.form_for(engines)
        job.on_step(f"writing the ONNX graph, HFRM {form}, for {', '.join(engines)}")
        try:
            write_onnx(job.model, job.folder / name, form=form)
        except OSError:
            raise
        except Exception as error:  # the exporter raises many kinds
            why = first_line(error)
            raise ExportError(f"PyTorch could not export the network: {why}") from error
        shared: tuple[str, ...] = ()
        if name != MODEL_NAME:
            shared = share_weights(job.folder / name, job.folder / MODEL_NAME)
        made.append(artifact(job, name, Precision.FP32, engines, weights=shared))
    return made


def _typed(job: ExportJob, precision: Precision) -> Artifact:
    file = f"model-{precision}.onnx"
    job.on_step(f"writing the {precision.upper()} graph")
    opset = write_typed_graph(job.gpu_graph, job.folder / file, precision)
    engines = [
        engine
        for engine in job.options.engines()
        if precision is not Precision.BF16 or engine != CPU_ENGINE
    ]
    return artifact(job, file, precision, engines, opset)
