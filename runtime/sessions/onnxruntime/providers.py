"""Execution providers of ONNX Runtime, and what each is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sshr_deploy.runtime.contract import INPUT_NAME, PATCH_PX

CPU_PROVIDER = "CPUExecutionProvider"


@dataclass(frozen=True)
class Provider:
    """What an engine needs of ONNX Runtime."""

    name: str
    extra: str
    """Of this project, that installs it."""
    options: Mapping[str, str] = field(default_factory=dict)
    buffers: str | None = None
    """Device type of input and outputs that stay bound; None leaves them to ONNX Runtime."""
    libraries: tuple[str, ...] = ()
    """Distributions whose code computes beside onnxruntime's own, under all their names."""
    prefix: str | None = None
    """Of the options of one that builds an engine for a range of batches; None for the others."""
    cache_options: Mapping[str, str] = field(default_factory=dict)
    """With {folder} for where it keeps what it built; it may write there only while it builds."""
    plugin: str | None = None
    """Module that brings it; None where it is a part of onnxruntime."""
    on_trial: Mapping[str, str] = field(default_factory=dict)
    """Options that change only the speed; each machine tries them when it qualifies the engine."""


_CUDNN = ("nvidia-cudnn-cu12", "nvidia-cudnn-cu13")

PROVIDERS = {
    "onnx-cpu": Provider(CPU_PROVIDER, "cpu"),
    # TF32 is this provider's default; it keeps 10 bits of mantissa, which is not FP32.
    "onnx-cuda": Provider(
        "CUDAExecutionProvider",
        "gpu",
        options={"use_tf32": "0"},
        buffers="cuda",
        libraries=(*_CUDNN, "nvidia-cublas-cu12", "nvidia-cublas"),
        # Matrix units take channels last; by default each convolution is transposed both ways.
        on_trial={"prefer_nhwc": "1"},
    ),
    "onnx-tensorrt": Provider(
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
    # It has a cache too, which it writes again whenever a session closes.
    "onnx-rtx": Provider(
        "NvTensorRTRTXExecutionProvider",
        "rtx",
        libraries=tuple(
            f"onnxruntime-ep-nv-tensorrt-rtx{ending}" for ending in ("", "-cu12", "-cu13")
        ),
        prefix="nv",
        plugin="onnxruntime_ep_nv_tensorrt_rtx",
    ),
}
"""By engine. None has a precision: the graph's types are the engine's."""


def provider_options(provider: Provider, batch: int, folder: Path | None) -> dict[str, str]:
    """Options of a provider that takes 1 to `batch` patches and keeps what it builds in `folder`.

    Without explicit shapes TensorRT builds on the first call, and again for each larger batch.
    """
    options = dict(provider.options)
    if provider.prefix is not None:
        for bound, size in (("min", 1), ("opt", batch), ("max", batch)):
            shape = f"{INPUT_NAME}:{size}x{PATCH_PX}x{PATCH_PX}x3"
            options[f"{provider.prefix}_profile_{bound}_shapes"] = shape
    if folder is not None:
        options |= {k: v.format(folder=folder) for k, v in provider.cache_options.items()}
    return options
