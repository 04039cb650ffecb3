"""Time of each layer of a graph on the processor, by the profilers of the engines' libraries.

An engine fuses nodes and inserts others, such as changes of layout. Its kernels are given the work
of the graph's convolutions and products that they compute, and the bytes of their own tensors.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.benchmarks.roofline.ceilings import Ceilings
from sshr_deploy.benchmarks.roofline.work import GraphWork
from sshr_deploy.errors import SessionError, SshrDeployError, first_line
from sshr_deploy.precision import Precision
from sshr_deploy.runtime.contract import INPUT_NAME
from sshr_deploy.runtime.sessions.onnxruntime.providers import CPU_PROVIDER
from sshr_deploy.runtime.sessions.onnxruntime.session import import_onnxruntime
from sshr_deploy.runtime.sessions.openvino import compile_options, openvino_core

_WARM_UP = 2
_FATAL = 4  # of ONNX Runtime's log levels
_ENDING = "_kernel_time"
_ADDED = re.compile(r"^fused |(_token_\d+|_nchwc|_bn)+$")
"""What ONNX Runtime adds to the names of nodes and tensors."""
_WITHOUT_BIAS = "/WithoutBiases"
"""What OpenVINO adds to them."""


@dataclass
class Layer:
    """A kernel of an engine, in calls of some inputs."""

    kernel: str
    """Its name in the engine."""
    layer: str
    """In the checkpoint, such as "b2.conv_branch2a"; the kernel's name where it has no weights."""
    operator: str
    precision: Precision
    """Of what it computes in."""
    flop: int
    """Of convolutions and products."""
    moved_bytes: int
    samples_ms: list[float] = field(default_factory=list)

    @property
    def median_ms(self) -> float:
        """Of the calls."""
        return float(np.median(self.samples_ms))

    def floor_ms(self, ceilings: Ceilings) -> float:
        """The least time it could take; that of its bytes alone where no product was measured."""
        by_bytes = ceilings.floor_ms(0, self.moved_bytes, self.precision) or 0.0
        return ceilings.floor_ms(self.flop, self.moved_bytes, self.precision) or by_bytes

    def lost_ms(self, ceilings: Ceilings) -> float:
        """Time above that."""
        return max(0.0, self.median_ms - self.floor_ms(ceilings))


Profiler = Callable[[Path, Precision, GraphWork, NDArray[np.uint8], int, int], list[Layer]]


def profile_layers(
    engine: str,
    graph: Path,
    precision: Precision,
    work: GraphWork,
    patches: NDArray[np.uint8],
    *,
    calls: int,
    threads: int,
) -> list[Layer]:
    """The kernels of an engine, in the order in which they run.

    Args:
        engine: a name of `PROFILERS`.
        graph: the .onnx file.
        precision: to compute in; of an FP32 graph perhaps another.
        work: of the graph.
        patches: of a call, uint8 [B, 224, 224, 3].
        calls: that count.
        threads: of the CPU.

    Raises:
        SessionError: the engine has no profiler here, or fails.
        MissingExtraError: its library is not installed.
    """
    if engine not in PROFILERS:
        raise SessionError(f"{engine}: layers are profiled of {', '.join(PROFILERS)} alone")
    try:
        return PROFILERS[engine](graph, precision, work, patches, calls, threads)
    except SshrDeployError:
        raise
    except Exception as error:  # ONNX Runtime and OpenVINO have no common base of their errors
        raise SessionError(f"{engine} {precision} was not profiled: {first_line(error)}") from error


def _by_onnxruntime(
    graph: Path,
    precision: Precision,
    work: GraphWork,
    patches: NDArray[np.uint8],
    calls: int,
    threads: int,
) -> list[Layer]:
    del precision  # that of the graph
    ort = import_onnxruntime()
    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = _FATAL  # what is wrong comes as an exception
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "calls")
        session = ort.InferenceSession(str(graph), options, providers=[CPU_PROVIDER])
        for _ in range(_WARM_UP + calls):
            session.run(None, {INPUT_NAME: patches})
        events = json.loads(Path(session.end_profiling()).read_text("utf-8"))
    layers: dict[str, Layer] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_ENDING):
            kernel = event["name"].removesuffix(_ENDING)
            if kernel not in layers:
                layers[kernel] = _ort_layer(kernel, event["args"], work, len(patches))
            layers[kernel].samples_ms.append(event["dur"] / 1e3)
    for layer in layers.values():
        del layer.samples_ms[:_WARM_UP]
    return list(layers.values())


def _ort_layer(kernel: str, facts: dict[str, Any], work: GraphWork, inputs: int) -> Layer:
    known = _ADDED.sub("", kernel)
    node = known if known in work.layers else work.makers.get(known, known)
    product = work.products.get(node)
    operator = facts["op_name"]
    moved = int(facts["activation_size"]) + int(facts["output_size"])
    # Weights that were packed when the session was opened are not told as a kernel's.
    moved += int(facts["parameter_size"]) if product is None else product.weight_bytes
    is_8_bit = operator.startswith(("QLinear", "QGemm")) or operator.endswith("Integer")
    return Layer(
        kernel,
        work.layers.get(node, known),
        operator,
        Precision.INT8 if is_8_bit else Precision.FP32,
        inputs * product.flop if product is not None else 0,
        moved,
    )


def _by_openvino(
    graph: Path,
    precision: Precision,
    work: GraphWork,
    patches: NDArray[np.uint8],
    calls: int,
    threads: int,
) -> list[Layer]:
    core = openvino_core()
    options = {**compile_options(precision, threads), "PERF_COUNT": "YES"}
    network = core.compile_model(core.read_model(graph), "CPU", options)
    request = network.create_infer_request()
    means: dict[str, list[float]] = defaultdict(list)
    for _ in range(_WARM_UP + calls):
        request.infer({INPUT_NAME: patches}, share_inputs=True)
        for found in request.get_profiling_info():
            means[found.node_name].append(found.real_time.total_seconds() * 1e3)
    layers = []
    for node in network.get_runtime_model().get_ordered_ops():
        if any(told := means[node.get_friendly_name()]):  # not so what was fused
            layers.append(_ov_layer(node, work, len(patches), _of_calls(told)[_WARM_UP:]))
    return layers


def _of_calls(means: Sequence[float]) -> list[float]:
    """What each call took, of OpenVINO's means over all calls up to each.

    These are whole microseconds, so the time of the n-th call may be off by n of them.
    """
    sums = [mean * calls for calls, mean in enumerate(means, start=1)]
    return [max(0.0, after - before) for before, after in pairwise([0.0, *sums])]


def _ov_layer(node: Any, work: GraphWork, inputs: int, samples_ms: list[float]) -> Layer:
    facts = node.get_rt_info()
    names = facts["originalLayersNames"].astype(str).replace(_WITHOUT_BIAS, "").split(",")
    made_of = dict.fromkeys(names)
    products = [work.products[name] for name in made_of if name in work.products]
    layers = [work.layers[name] for name in made_of if name in work.layers]
    kernel = node.get_friendly_name()
    return Layer(
        kernel,
        layers[0] if layers else kernel,
        facts["layerType"].astype(str),
        _OV_PRECISIONS.get(facts["runtimePrecision"].astype(str), Precision.FP32),
        inputs * sum(product.flop for product in products),
        sum(_tensor_bytes(tensor) for tensor in (*node.inputs(), *node.outputs())),
        samples_ms,
    )


def _tensor_bytes(tensor: Any) -> int:
    shape = tensor.get_partial_shape()
    if not shape.is_static:
        return 0
    return int(np.prod(shape.to_shape())) * int(tensor.get_element_type().size)


_OV_PRECISIONS = {"u8": Precision.INT8, "i8": Precision.INT8, "bf16": Precision.BF16}
PROFILERS: dict[str, Profiler] = {"onnx-cpu": _by_onnxruntime, "openvino": _by_openvino}
