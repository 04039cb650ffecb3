"""Arguments and grids of the five launches; no torch, no Triton.

Training compiles the kernels when it first calls them, with the block sizes below. The builds ahead
of time, for the shapes of the network, show that they compile, and with which resources.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from sshr_deploy.runtime.kernels.launch import Launch, Variant

KERNEL_PX = 15
"""Side of HFRM's depthwise kernel."""
MAX_MAP_ELEMENTS = 2**31 - 1
"""Of one image's features: places inside a map count in int32."""
MAX_IMAGES = 65_535
"""CUDA's limit of a grid's second axis."""
MAX_SIDE_PX = 2047
"""Of a map: its pixels, in blocks of at least 64, are such an axis too."""

_BYTES = {"fp16": 2, "bf16": 2, "fp32": 4, "fp64": 8}
_LAYOUTS = {False: "nchw", True: "nhwc"}


class Shape(NamedTuple):
    """Sizes of the features."""

    batch: int
    channels: int
    height: int
    width: int


def variants(sm: int) -> list[Variant]:
    """The ahead-of-time builds for one SM: each type of feature in each layout.

    BF16 needs SM 80. FP64 is for tests and is not built.
    """
    builds = []
    for channels_last in _LAYOUTS:
        builds += [tap_sums("fp32", channels_last), tap_gradient("fp32", channels_last)]
        for element in ("fp32", "fp16") + (("bf16",) if sm >= 80 else ()):
            builds += [
                forward(element, channels_last),
                feature_gradient(element, channels_last),
                sums_gradient(element, channels_last),
            ]
    return builds


def tap_sums(element: str, channels_last: bool) -> Variant:
    """K -> S, where `element` is the type of both."""
    return _variant(
        "tap_sums_kernel",
        element,
        channels_last,
        {"p_kernel": f"*{element}", "C": "i32", "H": "i32", "W": "i32", "p_sums": f"*{element}"},
        {"BC": 8, "BX": 64},
    )


def forward(element: str, channels_last: bool) -> Variant:
    """F of `element` and S -> both means."""
    total = _total(element)
    return _variant(
        "hfrm_pool_forward_kernel",
        element,
        channels_last,
        {"p_feature": f"*{element}", "p_sums": total, "C": "i32", "HW": "i32"}
        | {"p_mean": total, "p_weighted": total},
        _tile(element, channels_last) | {"STAGES": 3},
    )


def feature_gradient(element: str, channels_last: bool) -> Variant:
    """S and the gradients of both means -> that of F, of `element`."""
    total = _total(element)
    return _variant(
        "feature_gradient_kernel",
        element,
        channels_last,
        {"p_grad_mean": total, "p_grad_weighted": total, "p_sums": total}
        | {"B": "i32", "C": "i32", "HW": "i32", "p_grad_feature": f"*{element}"},
        _tile(element, channels_last),
    )


def sums_gradient(element: str, channels_last: bool) -> Variant:
    """F of `element` and the gradient of the weighted mean -> that of S."""
    total = _total(element)
    return _variant(
        "sums_gradient_kernel",
        element,
        channels_last,
        {"p_feature": f"*{element}", "p_grad_weighted": total}
        | {"B": "i32", "C": "i32", "HW": "i32", "p_grad_sums": total},
        _tile(element, channels_last) | {"STAGES": 3},
    )


def tap_gradient(element: str, channels_last: bool) -> Variant:
    """The gradient of S -> that of K, where `element` is the type of both."""
    return _variant(
        "tap_gradient_kernel",
        element,
        channels_last,
        {"p_grad_sums": f"*{element}", "C": "i32", "H": "i32", "W": "i32"}
        | {"p_grad_kernel": f"*{element}"},
        {"BC": 8, "BY": 4, "BX": 32, "STAGES": 3},
    )


def plan_launch(variant: Variant, shape: Shape) -> Launch:
    """The launch of any of the five for features of `shape`."""
    sizes = {"B": shape.batch, "C": shape.channels, "H": shape.height, "W": shape.width}
    sizes["HW"] = shape.height * shape.width
    if variant.function == "hfrm_pool_forward_kernel":
        second = shape.batch
    elif variant.function == "tap_gradient_kernel":
        second = KERNEL_PX
    elif variant.function == "tap_sums_kernel":
        second = shape.height
    else:
        second = -(-sizes["HW"] // int(variant.constants["BP"]))
    return Launch(
        grid=(-(-shape.channels // int(variant.constants["BC"])), second, 1),
        scalars=tuple(sizes[name] for name in variant.signature if name in sizes),
    )


def _total(element: str) -> str:
    return "*fp64" if element == "fp64" else "*fp32"


def _tile(element: str, channels_last: bool) -> dict[str, int]:
    """16 elements for each of 128 threads, at least 64 bytes of them contiguous."""
    if not channels_last:
        return {"BC": 8, "BP": 256}
    return {"BC": 32, "BP": 64} if _BYTES[element] == 2 else {"BC": 16, "BP": 128}


def _variant(
    function: str,
    element: str,
    channels_last: bool,
    signature: Mapping[str, str],
    constants: Mapping[str, int],
) -> Variant:
    aligned = "C" if channels_last else "HW"
    return Variant(
        op="hfrm_pool",
        name=f"{function.removesuffix('_kernel')}-{element}-{_LAYOUTS[channels_last]}",
        function=function,
        signature=signature,
        constants={**constants, "CHANNELS_LAST": channels_last},
        num_warps=4,
        multiples_of_16=frozenset({aligned} & signature.keys()),
    )
