"""How `hfrm_cam` is launched and which builds of it are made ahead of time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.errors import KernelArgumentError
from sshr_deploy.runtime.kernels.launch import Launch, Variant

KERNEL_PX = 15
"""Side of HFRM's depthwise kernel."""
MAX_CLASSES = 16
PLUGIN_SM = 80
"""SM 8.0: its PTX runs on every later GPU, that of 9.0 and later only on its own."""
_BUILT_CLASSES = (4, 8, MAX_CLASSES)
_SHIFTS = 16  # groups of columns in the kernel: 15 horizontal taps, and one of zeros
_EDGE_PX = 14  # columns of a tile that belong to its neighbours, both sides together
_ADD_BLOCK = 1024
_MAX_GRID = 65_535  # programs along the second axis of a grid
_INTEGERS = (
    *("B", "C", "H", "W", "N"),
    *("stride_b", "stride_c", "stride_y", "stride_x"),
    *("TILE_W", "SPLIT_C"),
)
_AOT_VECTOR = 4  # maps of 28 pixels a row
_LAYOUTS: dict[str, tuple[str, frozenset[str]]] = {
    "nchw": ("x", frozenset({"C", "SPLIT_C", "stride_b", "stride_c"})),
    "nhwc": ("c", frozenset({"C", "SPLIT_C", "stride_b", "stride_y", "stride_x"})),
    "strided": ("", frozenset()),
}

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Config:
    """Block sizes of `hfrm_cam_kernel`."""

    rows: int
    """Output rows that one lane computes: each feature is loaded (14 + rows) / rows times."""
    block_p: int
    """Lanes of a tile, 16 or more; a lane is a column of `rows` output pixels."""
    block_c: int
    """Channels a step."""
    num_warps: int
    num_stages: int
    block_g: int = 16
    """Channels a step of the gated head, 16 or more."""

    def columns(self, classes: int) -> int:
        """Width of the accumulator, of which 15/16 and classes / padded classes are used."""
        return self.rows * _SHIFTS * padded_classes(classes)


@dataclass(frozen=True)
class Packed:
    """The weights of HFRM and its head as the kernel reads them, float32."""

    head: Floats  # [C, NP]
    context: Floats  # [14 + rows, C, rows * 16 * NP]
    bias: Floats  # [N]


@dataclass(frozen=True)
class Plan:
    """One call: the first launch, and where the channels are split, the second that adds up."""

    cam: Launch
    splits: int
    add: Launch | None


def padded_classes(classes: int) -> int:
    """NP, the class count that a kernel is built for."""
    return next(padded for padded in _BUILT_CLASSES if classes <= padded)


def choose_config(sm: int, dtype: str, classes: int) -> Config:
    """Block sizes for SM `sm`, features of type "fp32", "fp16" or "bf16", and a class count.

    Chosen so that nothing spills and the shared memory fits (the resource report of
    `make kernels`); the times of other choices were not measured yet.
    """
    padded = padded_classes(classes)
    if dtype == "fp32":  # plain units: the accumulator fills the registers
        few_warps = sm >= 80 and padded < 16
        return Config(1, 32 if padded == 16 else 64, 16, 4 if few_warps else 8, 2)
    if sm < 80:  # no asynchronous copies
        return Config(1, 64 if padded < 16 else 32, 16, 8, 1)
    if sm == 100 and padded == 16:
        return Config(1, 64, 64, 16, 3)
    block_c = 64 if sm in (90, 100) else 32  # by shared memory: 227 KiB, else 99 KiB or little more
    return Config(2 if padded == 4 else 1, 128, block_c, 8, 3)


def plugin_config(dtype: str, classes: int) -> Config:
    """Block sizes of the TensorRT plugin, built once for SM 8.0 and every later one.

    At most 48 KiB of shared memory, which every launch may take without asking.
    """
    if dtype == "fp32":
        return choose_config(80, dtype, classes)
    return Config(2 if padded_classes(classes) == 4 else 1, 64, 32, 4, 2)


def pack(
    head_weight: Floats,  # [N, C]
    head_bias: Floats,  # [N]
    kernel: Floats,  # [C, 15, 15]
    gamma_context: float,
    rows: int,
) -> Packed:
    """Fold head, depthwise kernel and gamma_c into the kernel's matrices, once a model.

    context[r + dy, c, r, dx, n] = gamma_c W[n, c] K[c, dy, dx] for each of a lane's `rows` outputs
    r; zero elsewhere, as in the columns that pad 15 taps to 16 and N classes to NP.
    """
    classes, channels = head_weight.shape
    padded = padded_classes(classes)
    taps = np.zeros((KERNEL_PX, channels, _SHIFTS, padded), np.float32)
    products = np.einsum("nc,cyx->ycxn", head_weight, np.float32(gamma_context) * kernel)
    taps[:, :, :KERNEL_PX, :classes] = products
    context = np.zeros((KERNEL_PX - 1 + rows, channels, rows, _SHIFTS, padded), np.float32)
    for r in range(rows):
        context[r : r + KERNEL_PX, :, r] = taps
    head = np.zeros((channels, padded), np.float32)
    head[:, :classes] = head_weight.T
    flat = context.reshape(KERNEL_PX - 1 + rows, channels, -1)
    return Packed(head, flat, np.asarray(head_bias, np.float32))


def layout_of(strides: Sequence[int], shape: Sequence[int]) -> str:
    """Which axis of [B, C, H, W] allows wide loads: "nhwc" for C, "nchw" for W, else "strided"."""
    if strides[1] == 1 and shape[1] > 1:
        return "nhwc"
    return "nchw" if strides[3] == 1 else "strided"


def vector_width(layout: str, strides: Sequence[int], width: int, block_p: int, start: int) -> int:
    """Features that one load may take side by side along W: 8, 4, 2 or 1.

    `start` is the address of the first feature, in elements.
    """
    if layout != "nchw" or width > block_p:
        return 1
    return math.gcd(8, width, *strides[:3], start)


def make_plan(
    config: Config,
    shape: Sequence[int],  # B, C, H, W
    strides: Sequence[int],  # in elements
    classes: int,
    processors: int,
    *,
    splits: int | None = None,
) -> Plan:
    """Grids and scalars for one call.

    Args:
        config: the block sizes that the kernel is built with.
        shape: of the feature.
        strides: of the feature, in elements.
        classes: N.
        processors: multiprocessors of the GPU; where the tiles are fewer, channels are split.
        splits: parts of the channels; None to choose, 1 for a single launch.

    Raises:
        KernelArgumentError: the map is too large for 32-bit offsets, or too wide.
    """
    batch, channels, height, width = shape
    if max(s * (n - 1) for s, n in zip(strides[1:], shape[1:], strict=True)) >= 2**31:
        raise KernelArgumentError(
            f"feature is {list(shape)}; one image must be smaller than 2**31 elements"
        )
    tile_w = min(width, config.block_p)
    across = 1 if tile_w == width else math.ceil(width / (tile_w - _EDGE_PX))
    if across > _MAX_GRID:
        raise KernelArgumentError(f"feature is {width} wide; split it, the kernel takes less")
    strips = batch * math.ceil(height / config.rows)
    down = math.ceil(strips / (config.block_p // tile_w))
    steps = math.ceil(channels / config.block_c)
    wanted = processors // (across * down) if splits is None else splits
    split_c = math.ceil(steps / min(max(wanted, 1), steps)) * config.block_c
    splits = math.ceil(channels / split_c)
    sizes = (batch, channels, height, width, classes)
    cam = Launch((down, across, splits), (*sizes, *strides, tile_w, split_c))
    size = batch * classes * height * width
    add = Launch((math.ceil(size / _ADD_BLOCK), 1, 1), (size, splits)) if splits > 1 else None
    return Plan(cam, splits, add)


def check_fit(build: Variant, scalars: Sequence[int | float]) -> None:
    """Check that what an ahead-of-time build takes for granted holds for a launch.

    Its loads are of several features that lie side by side; where they do not, they would fault.

    Args:
        build: of `hfrm_cam_kernel`.
        scalars: of `Plan.cam`.

    Raises:
        KernelArgumentError: names the size and what it has to be.
    """
    sizes = dict(zip(_INTEGERS, scalars, strict=True))
    divisors = dict.fromkeys(sorted(build.multiples_of_16), 16)
    if build.constants["UNIT"] == "x":
        divisors["W"] = int(build.constants["VECTOR"])
        if sizes["W"] > sizes["TILE_W"]:
            raise KernelArgumentError(
                f"W is {sizes['W']}; {build.name} takes at most {sizes['TILE_W']}"
            )
    for name, divisor in divisors.items():
        if sizes[name] % divisor:
            raise KernelArgumentError(
                f"{name} is {sizes[name]}; {build.name} needs a multiple of {divisor}"
            )


def variant_name(dtype: str, layout: str, classes: int) -> str:
    """Name of a build: dtype "fp32", "fp16" or "bf16", layout "nchw" or "nhwc"."""
    return f"{dtype}-{layout}-n{padded_classes(classes)}"


def cam_variant(
    config: Config, dtype: str, layout: str, classes: int, vector: int, *, upcast: bool = False
) -> Variant:
    """A build of `hfrm_cam_kernel`.

    Args:
        config: block sizes.
        dtype: "fp32", "fp16" or "bf16".
        layout: "nchw" or "nhwc", or "strided" for any other (not built ahead of time).
        classes: N.
        vector: see `vector_width`.
        upcast: multiply in FP32, for the interpreter.
    """
    unit, multiples = _LAYOUTS[layout]
    typed = {"feature": f"*{dtype}", "gate": "*fp32", "head": f"*{dtype}", "context": f"*{dtype}"}
    integers = dict.fromkeys(_INTEGERS, "i32")
    return Variant(
        op="hfrm_cam",
        name=variant_name(dtype, layout, classes),
        function="hfrm_cam_kernel",
        signature={**typed, "bias": "*fp32", **integers, "cam": "*fp32"},
        constants={
            "NP": padded_classes(classes),
            "ROWS": config.rows,
            "BLOCK_P": config.block_p,
            "BLOCK_C": config.block_c,
            "BLOCK_G": config.block_g,
            "VECTOR": vector,
            "UNIT": unit,
            "UPCAST": upcast,
        },
        num_warps=config.num_warps,
        num_stages=config.num_stages,
        multiples_of_16=multiples,
    )


ADD_VARIANT = Variant(
    op="hfrm_cam",
    name="add-splits",
    function="add_splits_kernel",
    signature={"parts": "*fp32", "size": "i32", "splits": "i32", "total": "*fp32"},
    constants={"BLOCK": _ADD_BLOCK},
    num_warps=4,
)


def variants(sm: int) -> list[Variant]:
    """Every ahead-of-time build for SM `sm`; there is no BF16 before SM 8.0."""
    dtypes = ("fp32", "fp16", "bf16") if sm >= 80 else ("fp32", "fp16")
    builds = [
        cam_variant(choose_config(sm, dtype, classes), dtype, layout, classes, _AOT_VECTOR)
        for dtype in dtypes
        for layout in ("nchw", "nhwc")
        for classes in _BUILT_CLASSES
    ]
    return [*builds, ADD_VARIANT, *(plugin_variants() if sm == PLUGIN_SM else [])]


def plugin_variants() -> list[Variant]:
    """The builds of the TensorRT plugin, as PTX."""
    builds = [
        cam_variant(plugin_config(dtype, classes), dtype, layout, classes, _AOT_VECTOR)
        for dtype, layout in (("fp32", "nchw"), ("fp16", "nchw"), ("fp16", "nhwc"))
        for classes in _BUILT_CLASSES
    ]
    return [replace(build, name=f"plugin-{build.name}", as_ptx=True) for build in builds]
