"""The engines: one table with a row each, which holds all that is particular to an engine.

Choosing, opening, keys, the store, `doctor`, the export and the help texts derive from it. A new
engine is a row here and a session in `sshr_deploy.runtime.sessions`. Nothing heavy is imported
before an engine is opened, as the command line lists the names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sshr_deploy.geometry import PATCH, Geometry
from sshr_deploy.precision import Precision
from sshr_deploy.runtime.engines.kind import EngineKind, Opening, Package, inputs_for
from sshr_deploy.runtime.machine.threads import choose_streams
from sshr_deploy.runtime.sessions.onnxruntime.providers import CPU, Provider
from sshr_deploy.runtime.sessions.tensorrt.library import Library, rtx_refusal
from sshr_deploy.runtime.settings import CPU_BATCH, GPU_BATCH

if TYPE_CHECKING:
    from sshr_deploy.runtime.contract import Session

AUTO = "auto"
"""Stands for the first engine that works."""
NVIDIA_INDEX = "--extra-index-url https://pypi.nvidia.com"
"""For pip: where TensorRT's libraries are."""


def _plan_text(kind: EngineKind) -> str:
    from sshr_deploy.runtime.sessions.tensorrt.library import import_tensorrt, library_text

    assert kind.library is not None
    return library_text(kind.library, import_tensorrt(kind.library))


def _plan_session(kind: EngineKind, opening: Opening) -> Session:
    from sshr_deploy.runtime.engines.entry import PLAN_NAME
    from sshr_deploy.runtime.sessions.tensorrt.session import TensorRtSession

    assert kind.library is not None and opening.folder is not None
    return TensorRtSession(
        opening.folder / PLAN_NAME,
        opening.classes,
        engine=kind.name,
        made_by=kind.library,
        precision=opening.precision,
        batches=opening.batches,
        host_code=opening.host_code and kind.library.version_compatible,
        runtime_cache=opening.runtime_cache if kind.library.compiles_on_gpu else None,
        geometry=opening.geometry,
    )


def _onnx_text(kind: EngineKind) -> str:
    from sshr_deploy.runtime.sessions.onnxruntime.session import import_onnxruntime, library_text

    assert kind.provider is not None
    return library_text(import_onnxruntime(), kind.provider)


def _onnx_session(kind: EngineKind, opening: Opening) -> Session:
    from sshr_deploy.runtime.sessions.onnxruntime.session import OnnxRuntimeSession

    assert kind.provider is not None
    streams, patches = 1, opening.geometry.is_patch
    if not kind.needs_gpu:
        streams = choose_streams(opening.streams, opening.width, patches=patches)
    return OnnxRuntimeSession(
        opening.graph,
        opening.classes,
        engine=kind.name,
        provider=kind.provider,
        precision=opening.precision,
        batch=opening.batch,
        cache=opening.folder if kind.keeps_files else None,
        more_options=opening.options,
        geometry=opening.geometry,
        streams=streams,
    )


def _cuda_session(kind: EngineKind, opening: Opening) -> Session:
    from sshr_deploy.runtime.sessions.onnxruntime.cuda import OnnxRuntimeCudaSession

    assert kind.provider is not None
    return OnnxRuntimeCudaSession(
        opening.graph,
        opening.classes,
        engine=kind.name,
        provider=kind.provider,
        precision=opening.precision,
        batch=opening.batch,
        more_options=opening.options,
        geometry=opening.geometry,
    )


def _openvino_text(kind: EngineKind) -> str:
    from sshr_deploy.runtime.sessions.openvino import library_text

    del kind
    return library_text()


def _openvino_computes(precision: Precision) -> bool:
    from sshr_deploy.runtime.sessions.openvino import computes

    return computes(precision)


def _openvino_device() -> str:
    from sshr_deploy.runtime.sessions.openvino import device_text

    return device_text()


def _openvino_session(kind: EngineKind, opening: Opening) -> Session:
    from sshr_deploy.runtime.engines.entry import PLAN_NAME
    from sshr_deploy.runtime.sessions.openvino import OpenVinoSession

    return OpenVinoSession(
        opening.graph,
        opening.classes,
        engine=kind.name,
        precision=opening.precision,
        compiled=None if opening.folder is None else opening.folder / PLAN_NAME,
        geometry=opening.geometry,
    )


# Whether 8 bits are faster there shows on the card alone; `export` compares where it has one.
_PLAN_PRECISIONS = (Precision.FP16, Precision.INT8, Precision.BF16, Precision.FP32)
_CUDNN = ("nvidia-cudnn-cu12", "nvidia-cudnn-cu13")
_RTX_PLUGIN = "onnxruntime-ep-nv-tensorrt-rtx"

TENSORRT = EngineKind(
    name="tensorrt",
    target="tensorrt",
    runs_on=Library(
        module="tensorrt",
        package="tensorrt",
        extra="tensorrt",
        timing_cache=True,
        version_compatible=True,
        hardware_level=True,
    ),
    precisions=_PLAN_PRECISIONS,
    text=_plan_text,
    session=_plan_session,
    has_static_batches=True,
    keeps_files=True,
    launches_kernels=True,
)
TENSORRT_RTX = EngineKind(
    name="tensorrt-rtx",
    target="tensorrt-rtx",
    runs_on=Library(
        module="tensorrt_rtx",
        package="tensorrt-rtx",
        extra="rtx",
        user_allocation=True,
        builds_without_gpu=True,
        compiles_on_gpu=True,
        int8_note="TensorRT-RTX documents INT8 for matrix products with 8-bit weights alone: "
        "whether its convolutions compute in INT8 shows in their speed on the card",
    ),
    precisions=_PLAN_PRECISIONS,
    text=_plan_text,
    session=_plan_session,
    refuses=rtx_refusal,
    has_static_batches=True,
    keeps_files=True,
    launches_kernels=True,
)
ONNX_TENSORRT = EngineKind(
    name="onnx-tensorrt",
    target="tensorrt",
    runs_on=Provider(
        "TensorrtExecutionProvider",
        "gpu",
        buffers="cuda",
        libraries=("tensorrt", "tensorrt-cu12", "tensorrt-cu13", *_CUDNN),
        prefix="trt",
        cache_options={
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": "{folder}",
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": "{folder}",
        },
    ),
    precisions=_PLAN_PRECISIONS,
    text=_onnx_text,
    session=_onnx_session,
    has_static_batches=True,
    keeps_files=True,
    mend=(f"pip install {NVIDIA_INDEX} 'tensorrt>=10.16,<11'",),
)
ONNX_RTX = EngineKind(
    name="onnx-rtx",
    target=TENSORRT_RTX.name,
    # It has a cache too, which it writes again whenever a session closes.
    runs_on=Provider(
        "NvTensorRTRTXExecutionProvider",
        "rtx",
        libraries=tuple(f"{_RTX_PLUGIN}{ending}" for ending in ("", "-cu12", "-cu13")),
        prefix="nv",
        plugin="onnxruntime_ep_nv_tensorrt_rtx",
    ),
    precisions=_PLAN_PRECISIONS,
    text=_onnx_text,
    session=_onnx_session,
    refuses=rtx_refusal,
    has_static_batches=True,
    mend=(f"pip install --upgrade {_RTX_PLUGIN}",),
)
ONNX_CUDA = EngineKind(
    name="onnx-cuda",
    target="onnx",
    # TF32 is this provider's default; it keeps 10 bits of mantissa, which is not FP32.
    runs_on=Provider(
        "CUDAExecutionProvider",
        "gpu",
        options={"use_tf32": "0"},
        buffers="cuda",
        libraries=(*_CUDNN, "nvidia-cublas-cu12", "nvidia-cublas"),
        # Matrix units take channels last; by default each convolution is transposed both ways.
        on_trial={"prefer_nhwc": "1"},
    ),
    # Quantised convolutions run as floating point there, slower than without quantisation.
    precisions=(Precision.FP16, Precision.BF16, Precision.FP32),
    text=_onnx_text,
    session=_cuda_session,
    launches_kernels=True,
    mend=(
        "pip install 'sshr-deploy[gpu]'",  # which keeps it and its libraries to one CUDA
        "# if nothing was installed, run it again with --force-reinstall",
    ),
)
ONNX_CPU = EngineKind(
    name="onnx-cpu",
    target="onnx",
    runs_on=CPU,
    # x86 has no FP16 arithmetic to speak of: ONNX Runtime converts back and forth.
    precisions=(Precision.INT8, Precision.FP32),
    text=_onnx_text,
    session=_onnx_session,
    needs_gpu=False,
    mend=("pip install --force-reinstall 'sshr-deploy[cpu]'",),
)
OPENVINO = EngineKind(
    name="openvino",
    target=ONNX_CPU.target,
    runs_on=Package(module="openvino", package="openvino", extra="openvino"),
    graphs_of=ONNX_CPU.name,
    precisions=(Precision.INT8, Precision.BF16, Precision.FP32),
    computed_from={Precision.BF16: Precision.FP32},
    computes=_openvino_computes,
    text=_openvino_text,
    device=_openvino_device,
    session=_openvino_session,
    needs_gpu=False,
    keeps_files=True,
)
KINDS = (TENSORRT, TENSORRT_RTX, ONNX_TENSORRT, ONNX_RTX, ONNX_CUDA, OPENVINO, ONNX_CPU)
"""The faster first; "auto" takes the first that works."""
ENGINES = tuple(kind.name for kind in KINDS)
TARGETS = {
    target: tuple(k.name for k in KINDS if k.target == target and k.graphs_of is None)
    for target in dict.fromkeys(kind.target for kind in reversed(KINDS))
}
"""Engines that the export makes graphs for, by what its `--engine` calls them."""


def find_kind(name: str) -> EngineKind | None:
    """The engine of that name; None where this release has none."""
    return next((kind for kind in KINDS if kind.name == name), None)


def default_batch(engine: str, geometry: Geometry = PATCH) -> int:
    """Inputs in a call of an engine, by its name here, or "pytorch-cpu" and the like."""
    kind = find_kind(engine)
    if kind is not None:
        return kind.batch_for(None, geometry)
    return inputs_for(CPU_BATCH if engine.endswith("-cpu") else GPU_BATCH, geometry)
