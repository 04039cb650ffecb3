"""What a user would run instead of this project, on the same weights and the same pixels."""

from __future__ import annotations

import shutil
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from sshr_deploy.benchmarks.contenders.contender import Contender
from sshr_deploy.benchmarks.contenders.plain_sessions import PlainOnnxSession, PlainOpenVinoSession
from sshr_deploy.benchmarks.contenders.trtexec import PROGRAM
from sshr_deploy.bundle import Bundle, file_entry
from sshr_deploy.errors import CheckpointError, MissingExtraError, UsageError
from sshr_deploy.manifest import Artifact
from sshr_deploy.precision import Precision
from sshr_deploy.runtime.engines.kinds import ONNX_CPU, ONNX_CUDA, TENSORRT
from sshr_deploy.runtime.engines.qualification import TOLERANCES
from sshr_deploy.runtime.machine.gpus import find_gpus
from sshr_deploy.runtime.sessions.openvino import computes

_DEFAULTS = "the bundle's graph, default options"
_CUDA_PROVIDER = "CUDAExecutionProvider"


def peers(bundle: Bundle, checkpoint: Path | None) -> list[Contender]:
    """Peers of a bundle's engines; `trtexec_peers` has one that gives no session.

    Args:
        bundle: its graphs are run by plain ONNX Runtime and OpenVINO.
        checkpoint: it was exported from, for PyTorch; None leaves PyTorch out.

    Raises:
        CheckpointError: the checkpoint cannot be read.
        UsageError: it is another than the bundle's.
        MissingExtraError: a checkpoint is given and PyTorch is not installed.
    """
    found = [] if checkpoint is None else _of_checkpoint(bundle, checkpoint)
    for artifact in bundle.artifacts(ONNX_CPU.name):
        if artifact.precision in ONNX_CPU.precisions:
            found.append(_plain_onnx(bundle, artifact))
            if find_spec("openvino") is not None:
                found.append(_plain_openvino(bundle, artifact))
    if find_gpus():
        for artifact in bundle.artifacts(ONNX_CUDA.name):
            if artifact.precision in ONNX_CUDA.precisions:
                found.append(_plain_cuda(bundle, artifact))
    return found


def peers_left_out(bundle: Bundle, checkpoint: Path | None) -> str | None:
    """Says which peers of `bundle` are not there, and what they need; None where all are."""
    told = []
    if checkpoint is None:
        told.append("PyTorch: it needs the checkpoint that the bundle was exported from")
    if bundle.artifacts(ONNX_CPU.name) and find_spec("openvino") is None:
        told.append(f"plain OpenVINO: {MissingExtraError('openvino', 'openvino')}")
    if find_gpus() and bundle.artifacts(TENSORRT.name) and shutil.which(PROGRAM) is None:
        told.append(f"{PROGRAM}: it is not on the PATH")
    return f"not measured: {'; '.join(told)}" if told else None


def _of_checkpoint(bundle: Bundle, checkpoint: Path) -> list[Contender]:
    try:
        entry = file_entry(checkpoint)
    except OSError as error:
        raise CheckpointError(f"{checkpoint} cannot be read: {error.strerror}") from error
    model = bundle.manifest.model
    if entry.sha256 != model.checkpoint_sha256:
        raise UsageError(
            f"{checkpoint} is not the checkpoint that {bundle.path} was exported from, which was "
            f"{model.checkpoint_name} with SHA-256 {model.checkpoint_sha256[:12]}...; give that one"
        )
    if find_spec("torch") is None:
        raise MissingExtraError("torch", "export")
    from sshr_deploy.benchmarks.contenders.torch_peers import torch_peers

    return torch_peers(checkpoint, bundle.geometry)


def _plain_onnx(bundle: Bundle, artifact: Artifact) -> Contender:
    graph, precision = bundle.file(artifact.file), artifact.precision
    return Contender(
        f"plain ONNX Runtime {precision}",
        precision,
        artifact.tolerance,
        lambda _: PlainOnnxSession(graph, precision, bundle.geometry),
        _DEFAULTS,
        is_peer=True,
    )


def _plain_openvino(bundle: Bundle, artifact: Artifact) -> Contender:
    """Where the processor has BF16, OpenVINO computes an FP32 graph in that unless it is told."""
    graph, precision = bundle.file(artifact.file), artifact.precision
    narrowed = precision is Precision.FP32 and computes(Precision.BF16)
    computed = Precision.BF16 if narrowed else precision
    return Contender(
        f"plain OpenVINO {computed}",
        computed,
        TOLERANCES[Precision.BF16] if narrowed else artifact.tolerance,
        lambda _: PlainOpenVinoSession(graph, precision, bundle.geometry),
        f"{_DEFAULTS}{', which take BF16 here' if narrowed else ''}",
        is_peer=True,
    )


def _plain_cuda(bundle: Bundle, artifact: Artifact) -> Contender:
    """TF32, the provider's default, has FP16's bits of mantissa and so its bounds."""
    graph, precision = bundle.file(artifact.file), artifact.precision
    tf32 = precision is Precision.FP32
    opened = partial(PlainOnnxSession, graph, precision, bundle.geometry, _CUDA_PROVIDER)
    return Contender(
        f"plain ONNX Runtime CUDA {precision}",
        precision,
        TOLERANCES[Precision.FP16] if tf32 else artifact.tolerance,
        lambda _: opened(),
        f"{_DEFAULTS}{', which take TF32' if tf32 else ''}",
        is_peer=True,
        on_gpu=True,
    )
