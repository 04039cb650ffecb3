"""The fused kernel `hfrm_cam` as a TensorRT plugin. Experimental: no engine with it has run yet.

TensorRT copies the PTX that it gets here into the engine, so running the engine takes no Python,
no Triton and nothing of this package. Building one takes `register_plugins` in the same process
before the ONNX file is parsed. Every TensorRT name used here is in 10.16 and in 11.4
(tests/export/plugin/test_tensorrt_names.py).

The bindings have traps that shape this file. They compare annotations as objects, so these are set
by hand. Plugin attributes do not survive TensorRT 10.16 beside NumPy 2.4, so all sizes come from
the inputs' shapes. A scalar that is no SymInt32 is refused, and an `int` of NumPy becomes nothing.
TensorRT prints the errors raised here and goes on to say that the engine could not be built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import GenericAlias
from typing import Any

from sshr_deploy.errors import KernelArgumentError, MissingExtraError
from sshr_deploy.export.plugin.aot_kernel import (
    KernelFinder,
    batch_launch,
    check_kernel,
    plugin_variant,
    precompiled_kernels,
)
from sshr_deploy.runtime.kernels.hfrm_cam.plan import (
    MAX_CLASSES,
    Config,
    check_fit,
    padded_classes,
    plugin_config,
    variant_name,
)

NAMESPACE, NAME = "sshr_deploy", "hfrm_cam"
"""ONNX domain and operator; TensorRT's namespace and name of the plugin."""
INPUTS = ("feature", "gate", "head", "context", "bias")
NODE_ATTRIBUTES = {"plugin_namespace": NAMESPACE, "plugin_version": "1", "aot": 1}
"""By these TensorRT's parser finds the plugin of an ONNX node; it does not read the domain."""


def register_plugins(kernels: KernelFinder | None = None) -> None:
    """Make `sshr_deploy::hfrm_cam` known to TensorRT in this process; a second call does nothing.

    Args:
        kernels: finds the build of a variant, while TensorRT builds an engine; by default among
            those of `make kernels`.

    Raises:
        MissingExtraError: TensorRT is not installed.
        KernelError: there are no precompiled kernels.
    """
    trt, trtp = _bindings()
    if hasattr(getattr(trtp.op, NAMESPACE, None), NAME):
        return
    plugin = _HfrmCam(trt, trtp, kernels or precompiled_kernels())

    # The bindings tell a plugin's inputs by the names of these functions' parameters.
    def describe(feature: Any, gate: Any, head: Any, context: Any, bias: Any) -> Any:
        return plugin.describe(feature, gate, head, context, bias)

    def tune(feature: Any, gate: Any, head: Any, context: Any, bias: Any, outputs: Any) -> Any:
        return plugin.tune((feature, gate, head, context, bias, *outputs))

    def build(
        feature: Any, gate: Any, head: Any, context: Any, bias: Any, outputs: Any, tactic: Any
    ) -> Any:
        del outputs, tactic  # the inputs say it all, and there is one way to compute it
        return plugin.build(feature, gate, head, context, bias)

    text = str | bytes
    result = GenericAlias(tuple, (text, text, trtp.KernelLaunchParams, trtp.SymIntExprs))
    combinations = GenericAlias(list, (trtp.AutoTuneCombination,))
    inputs = dict.fromkeys(INPUTS, trtp.TensorDesc)
    outputs = {**inputs, "outputs": GenericAlias(tuple, (trtp.TensorDesc,))}
    _register(trtp.register, describe, {**inputs, "return": trtp.TensorDesc})
    _register(trtp.autotune, tune, {**outputs, "return": combinations})
    _register(trtp.aot_impl, build, {**outputs, "tactic": int, "return": result})


def _register(decorator: Any, function: Callable[..., Any], annotations: dict[str, Any]) -> None:
    function.__annotations__ = annotations
    decorator(f"{NAMESPACE}::{NAME}")(function)


def _bindings() -> tuple[Any, Any]:
    try:
        import tensorrt as trt
        import tensorrt.plugin as trtp
    except ImportError as error:
        raise MissingExtraError("tensorrt", "tensorrt") from error
    return trt, trtp


class _HfrmCam:
    """Answers to TensorRT's questions; the tensors are `tensorrt.plugin.TensorDesc`."""

    def __init__(self, trt: Any, trtp: Any, kernels: KernelFinder) -> None:
        self.trt, self.trtp, self.kernels = trt, trtp, kernels
        self.types: Mapping[Any, str] = {trt.float32: "fp32", trt.float16: "fp16"}

    def describe(self, feature: Any, gate: Any, head: Any, context: Any, bias: Any) -> Any:
        """The output, cam float32 [B, N, H, W]; sizes may be unknown here."""
        trt, trtp = self.trt, self.trtp
        if feature.dtype not in self.types:
            raise KernelArgumentError(f"feature is {feature.dtype}; it must be float32 or float16")
        for name, tensor, axes, dtype in (
            ("feature", feature, 4, feature.dtype),
            ("gate", gate, 2, trt.float32),
            ("head", head, 2, feature.dtype),
            ("context", context, 3, feature.dtype),
            ("bias", bias, 1, trt.float32),
        ):
            if (tensor.ndim, tensor.dtype) != (axes, dtype):
                raise KernelArgumentError(
                    f"{name} has {tensor.ndim} axes of {tensor.dtype}; "
                    f"it must have {axes} of {dtype}"
                )
        batch, _, height, width = feature.shape_expr
        return trtp.from_shape_expr((batch, bias.shape_expr[0], height, width), trt.float32)

    def tune(self, tensors: Sequence[Any]) -> list[Any]:
        """Types as they are; a float16 feature also with the channels last."""
        trt, trtp = self.trt, self.trtp
        feature, *others = tensors
        layouts = ["LINEAR"]
        if feature.dtype == trt.float16 and feature.shape[1] % 16 == 0:
            layouts.append("HWC8")
        types = ", ".join(self.types[tensor.dtype].upper() for tensor in tensors)
        return [
            trtp.AutoTuneCombination(types, ", ".join([layout, *["LINEAR"] * len(others)]))
            for layout in layouts
        ]

    def build(self, feature: Any, gate: Any, head: Any, context: Any, bias: Any) -> Any:
        """Entry, PTX, launch and scalars for the type and the format that TensorRT chose."""
        trt, trtp = self.trt, self.trtp
        channels, height, width = tuple(feature.shape)[1:]
        (classes,) = bias.shape
        if min(channels, height, width, classes) < 1:
            raise KernelArgumentError("feature or bias has a dynamic axis; only B may be dynamic")
        if classes > MAX_CLASSES:
            raise KernelArgumentError(f"bias is [{classes}]; it must be [N] with N from 1 to 16")
        dtype, last = self.types[feature.dtype], feature.format == trt.TensorFormat.HWC8
        config = plugin_config(dtype, classes)
        self._check_sizes(gate, head, context, config, (channels, classes))
        strides = (1, width * channels, channels) if last else (height * width, width, 1)
        launch = batch_launch(
            config, (channels, height, width), classes, (channels * height * width, *strides)
        )
        layout = "nhwc" if last else "nchw"
        variant = plugin_variant(f"plugin-{variant_name(dtype, layout, classes)}")
        check_fit(variant, (1, *launch.scalars))
        kernel = self.kernels(variant)
        check_kernel(kernel, variant)
        batch = feature.shape_expr[0]
        scalars = trtp.SymIntExprs(1 + len(launch.scalars))
        for index, scalar in enumerate((batch, *launch.scalars)):
            scalars[index] = trtp.SymInt32(scalar)
        params = trtp.KernelLaunchParams(
            grid_x=trtp.cdiv(batch * launch.strips, launch.tile_strips),
            grid_y=launch.across,
            block_x=kernel.threads,
            shared_mem=kernel.shared_bytes,
        )
        return kernel.entry, kernel.ptx, params, scalars

    def _check_sizes(
        self, gate: Any, head: Any, context: Any, config: Config, sizes: tuple[int, int]
    ) -> None:
        channels, classes = sizes
        for name, tensor, wanted in (
            ("gate", gate, (channels,)),
            ("head", head, (channels, padded_classes(classes))),
            ("context", context, (14 + config.rows, channels, config.columns(classes))),
        ):
            if tuple(tensor.shape)[-len(wanted) :] != wanted:
                raise KernelArgumentError(
                    f"{name} is {list(tensor.shape)}; "
                    f"packed for the plugin it must end in {list(wanted)}"
                )
