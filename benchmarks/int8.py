"""A network in FP32 and INT8 on this processor (`sshr-deploy benchmark int8`).

Four ways in turns: the plain PyTorch network, its FP32 graph, the graph with every convolution in 8
bits, and the one that keeps some wide. Beside each time stands how far it is from PyTorch.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from sshr_deploy.benchmarks.environment import describe_environment
from sshr_deploy.bundle import file_entry
from sshr_deploy.errors import UsageError
from sshr_deploy.export.graph.conv_layers import conv_layers
from sshr_deploy.export.graph.onnx_from_network import flop_per_input, write_onnx
from sshr_deploy.export.graph.timing import time_sessions
from sshr_deploy.export.int8.activation_ranges import RangeMethod, histograms, layer_ranges
from sshr_deploy.export.int8.qdq_from_onnx import QdqKind, QdqScheme, write_qdq
from sshr_deploy.export.job import MODEL_NAME
from sshr_deploy.export.reference import PatchSet, reference_from
from sshr_deploy.model import SSHR
from sshr_deploy.model.checkpoint import load_checkpoint
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.contract import Session
from sshr_deploy.runtime.engines.qualification import qualify
from sshr_deploy.runtime.engines.reference import ReferenceSet
from sshr_deploy.runtime.machine.clock import now_utc
from sshr_deploy.runtime.machine.spread import ratio_of, spread_of
from sshr_deploy.runtime.machine.threads import choose_threads, use_threads
from sshr_deploy.runtime.sessions.onnxruntime.session import OnnxRuntimeSession
from sshr_deploy.train.model_session import ModelSession


def measure_int8(
    checkpoint: Path,
    profile: Profile,
    patches: PatchSet,
    *,
    keep: Sequence[str],
    weight_bits: int,
    method: RangeMethod,
    rounds: int,
    threads: int | None = None,
) -> dict[str, Any]:
    """Time a patch (batch 1) in each of the four ways, and compare their masks.

    Args:
        checkpoint: the network.
        profile: its classes.
        patches: to calibrate on and to compare on.
        keep: layers of the last way that stay FP32, such as "b2.conv_branch2a".
        weight_bits: 8, or 7 for processors without VNNI.
        method: of the ranges.
        rounds: timed patches of each way.
        threads: CPU threads of all of them; None chooses by width and cores.

    Raises:
        CheckpointError: the checkpoint cannot be read.
        UsageError: no layer of a name in `keep`.
    """
    environment = describe_environment()
    model = load_checkpoint(checkpoint)
    chosen = choose_threads(model.config.width, threads)
    use_threads(chosen)
    reference = reference_from(model, patches)
    scheme = QdqScheme(QdqKind.U8S8, weight_bits)
    with tempfile.TemporaryDirectory() as folder:
        fp32 = Path(folder) / MODEL_NAME
        write_onnx(model, fp32)
        graphs = {"fp32": fp32, **_quantised(fp32, reference.patches, keep, scheme, method)}
        rows = _measure(model, graphs, reference, profile, rounds)
    return {
        "benchmark": "int8",
        "measured_utc": now_utc(),
        "environment": environment,
        "cpu_threads": chosen.count,
        "checkpoint_sha256": file_entry(checkpoint).sha256,
        "width": model.config.width,
        "gflop_per_patch": flop_per_input(model) / 1e9,
        "scheme": str(scheme),
        "range_method": method.value,
        "kept": list(keep),
        "patches": len(reference),
        "source": patches.source,
        "rows": rows,
    }


def times_over(base: str, name: str, samples: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """How many times as fast as `base` the network `name` is."""
    if name == base:
        return {f"times_{base}": 1.0}
    return ratio_of((base, samples[base]), (name, samples[name])).fields(f"times_{base}")


def _measure(
    model: SSHR,
    graphs: Mapping[str, Path],
    reference: ReferenceSet,
    profile: Profile,
    rounds: int,
) -> list[dict[str, Any]]:
    """A row for "pytorch" and each of the graphs."""
    with ExitStack() as stack:
        sessions: dict[str, Session] = {"pytorch": stack.enter_context(ModelSession(model))}
        for name, graph in graphs.items():
            session = OnnxRuntimeSession(graph, profile.num_classes)
            sessions[name] = stack.enter_context(session)
        found = {name: qualify(session, reference, profile) for name, session in sessions.items()}
        samples = dict(zip(sessions, time_sessions(list(sessions.values()), rounds), strict=True))
    return [
        {
            "name": name,
            **spread_of(samples[name]).figures(),
            **times_over("fp32", name, samples),
            **times_over("pytorch", name, samples),
            "samples_ms": samples[name],
            "qualification": found[name].model_dump(mode="json"),
        }
        for name in sessions
    ]


def _quantised(
    fp32: Path,
    patches: NDArray[np.uint8],
    keep: Sequence[str],
    scheme: QdqScheme,
    method: RangeMethod,
) -> dict[str, Path]:
    layers = conv_layers(onnx.load(fp32, load_external_data=False).graph)
    names = [layer.name for layer in layers]
    if unknown := sorted(set(keep) - set(names)):
        raise UsageError(f"`keep` {unknown[0]}: no such layer; there are {', '.join(names)}")
    tensors = [tensor for layer in layers for tensor in (layer.input, layer.output)]
    found = histograms(fp32, tensors, patches, lambda *_: None)
    ranges = layer_ranges(found, layers, method, levels=scheme.levels, symmetric=scheme.symmetric)
    choices = {"int8 everywhere": names}
    if keep:
        choices["int8 mix"] = [name for name in names if name not in keep]
    graphs = {}
    for choice, chosen in choices.items():
        graphs[choice] = fp32.with_name(f"{choice.replace(' ', '-')}.onnx")
        write_qdq(fp32, graphs[choice], chosen, ranges, scheme)
    return graphs
