"""The parts of `gpu.check`, in the order in which they run; each function is a process of its own.

What is wanted most comes first: what shows a defect, then a bundle as it ships, or without one
sessions of a random network, the network itself, the kernels; what takes torch.compile minutes
comes last. All before the network fits the deadline at its limits. What can crash runs alone.
Libraries are imported inside the functions.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from sshr_deploy.benchmarks.environment import describe_environment
from sshr_deploy.benchmarks.gpu.process import CheckPart
from sshr_deploy.errors import SshrDeployError
from sshr_deploy.runtime.machine.gpus import find_gpus

if TYPE_CHECKING:
    from sshr_deploy.benchmarks.gpu.child import PartOutput

_ROOM = "sshr_deploy.benchmarks.gpu"
_HERE = f"{_ROOM}.parts"
_FIELDS_PX = (1344, 896)
DEVICE = CheckPart("device", f"{_HERE}:describe_device", limit_s=90.0)
"""Names the report; nothing else runs without it."""
PARTS = (
    CheckPart("streams", f"{_ROOM}.mask_streams:check_streams", limit_s=40.0),
    CheckPart("cubins", f"{_ROOM}.cubin_loading:load_cubins", limit_s=60.0),
    CheckPart("tests", f"{_ROOM}.own_tests:run_tests", limit_s=120.0, least_s=30.0),
    CheckPart(
        "latency", f"{_ROOM}.bundle_parts:latency", limit_s=150.0, least_s=60.0, needs_bundle=True
    ),
    CheckPart("throughput", f"{_ROOM}.bundle_parts:throughput", limit_s=60.0, needs_bundle=True),
    CheckPart("sessions", f"{_HERE}:sessions", limit_s=150.0, least_s=60.0, stands_in=True),
    CheckPart("network-eager", f"{_HERE}:network_eager", limit_s=100.0),
    CheckPart("network-fused", f"{_HERE}:network_fused", limit_s=80.0),
    CheckPart("kernels", f"{_HERE}:kernels", limit_s=110.0, least_s=30.0),
    CheckPart("masks", f"{_HERE}:masks", limit_s=30.0),
    CheckPart("training", f"{_HERE}:training", limit_s=90.0),
    CheckPart("recipes", f"{_HERE}:recipes", limit_s=100.0, least_s=40.0),
    CheckPart("network-compiled", f"{_HERE}:network_compiled", limit_s=120.0, least_s=40.0),
    CheckPart("fields", f"{_HERE}:fields", limit_s=120.0, least_s=40.0),
    CheckPart("configs", f"{_HERE}:configs", limit_s=70.0, least_s=30.0),
)


def describe_device(output: PartOutput) -> dict[str, Any]:
    """The GPU, its driver and the libraries.

    Raises:
        SshrDeployError: PyTorch has no GPU here; says what mends that.
    """
    import torch

    if torch.version.cuda is None:
        raise SshrDeployError(
            "this Python's PyTorch is built without CUDA; "
            "name a Python that has it: make gpu-check PYTHON=/path/to/python3"
        )
    if not torch.cuda.is_available():
        raise SshrDeployError(
            "PyTorch finds no NVIDIA GPU here; see what nvidia-smi says, or use a machine with one"
        )
    properties = torch.cuda.get_device_properties(0)
    gpus = find_gpus()
    output.on_step(f"gpu-check on {torch.cuda.get_device_name()}")
    return {
        **describe_environment(),
        "device": torch.cuda.get_device_name(),
        "sm": 10 * properties.major + properties.minor,
        "multiprocessors": properties.multi_processor_count,
        "memory_bytes": properties.total_memory,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "driver": gpus[0].driver if gpus else None,
    }


def network_eager(output: PartOutput) -> None:
    """The authors' way, and the exact forms of HFRM by PyTorch's operations."""
    _network(output, "authors", "plain", "depthwise", "separable")


def network_fused(output: PartOutput) -> None:
    """Our kernel and the form that it competes with, in turns."""
    _network(output, "separable", "fused")


def network_compiled(output: PartOutput) -> None:
    """The whole network under torch.compile and the same form without it, in turns."""
    _network(output, "separable", "compiled")


def fields(output: PartOutput) -> None:
    """The network on fields, whose windows share the backbone, and on patches that cover one."""
    from sshr_deploy.benchmarks.gpu.network import measure_inference
    from sshr_deploy.geometry import PATCH, Geometry, field_geometry

    shapes: list[tuple[Geometry, tuple[int, ...]]] = [
        (field_geometry(side_px), (1, 2)) for side_px in _FIELDS_PX
    ]
    shapes.insert(1, (PATCH, ((_FIELDS_PX[0] // PATCH.side_px) ** 2,)))
    for form in ("separable", "compiled"):  # what takes longest comes last
        for geometry, batches in shapes:
            measure_inference(
                device=_cuda(),
                geometry=geometry,
                batches=batches,
                forms=(form,),
                on_step=output.on_step,
                on_row=output.row,
            )


def _network(output: PartOutput, *forms: str) -> None:
    from sshr_deploy.benchmarks.gpu.network import measure_inference

    measure_inference(device=_cuda(), forms=forms, on_step=output.on_step, on_row=output.row)


def kernels(output: PartOutput) -> dict[str, Any]:
    """`sshr-deploy benchmark kernels`; what does not fit the time is listed."""
    from sshr_deploy.benchmarks.kernels import measure_kernels

    report = measure_kernels(
        device=_cuda(),
        deadline_s=0.8 * output.left_s,
        on_step=output.on_step,
        on_row=output.row,
    )
    kept = ("ceilings", "settings", "rates", "not_measured")
    return {name: report[name] for name in kept}


def masks(output: PartOutput) -> None:
    """`cam_to_mask` and the same by PyTorch's operations."""
    from sshr_deploy.benchmarks.gpu.mask_kernel import measure_mask_kernel

    measure_mask_kernel(device=_cuda(), on_step=output.on_step, on_row=output.row)


def training(output: PartOutput) -> None:
    """`hfrm_pool` in training."""
    from sshr_deploy.benchmarks.gpu.training_kernels import measure_training_kernels

    measure_training_kernels(device=_cuda(), on_step=output.on_step, on_row=output.row)


def sessions(output: PartOutput) -> None:
    """`onnx-cuda` at full width; needs pydantic, ONNX and onnxruntime-gpu.

    Raises:
        MissingExtraError: this onnxruntime has no CUDA.
    """
    from sshr_deploy.benchmarks.gpu.sessions import check_provider, measure_sessions, write_graphs
    from sshr_deploy.runtime.engines.kinds import ONNX_CUDA

    provider = ONNX_CUDA.provider
    assert provider is not None
    check_provider(provider)
    with TemporaryDirectory() as folder:
        graphs = write_graphs(Path(folder), output.on_step)
        measure_sessions(graphs, provider=provider, on_step=output.on_step, on_row=output.row)


def configs(output: PartOutput) -> None:
    """`hfrm_cam` with other block sizes."""
    from sshr_deploy.benchmarks.gpu.kernel_configs import measure_configs

    measure_configs(device=_cuda(), on_step=output.on_step, on_row=output.row)


def recipes(output: PartOutput) -> None:
    """`sshr-deploy benchmark training`; needs pydantic and psutil."""
    from sshr_deploy.benchmarks.report.recorder import Recorder
    from sshr_deploy.benchmarks.training import TrainingSettings, measure_training, usual_batch

    settings = TrainingSettings(64, usual_batch(), rounds=5, classes=4)
    recorder = Recorder("training", None, asdict(settings), output.document)
    with recorder:
        measure_training(settings, recorder, output.on_step)
    for row in recorder.document.rows:
        output.row(row.model_dump(mode="json"))


def _cuda() -> Any:
    import torch

    return torch.device("cuda")
