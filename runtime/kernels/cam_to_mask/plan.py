"""Arguments and grids of the two launches; no torch, no Triton: the edge launches cubins."""

from __future__ import annotations

from sshr_deploy.runtime.kernels.launch import Launch, Variant

MIN_MAX_EPSILON = 1e-8
"""Added to each CAM's range before the division, as published."""
MAX_CLASSES = 16
MAX_SIDE_PX = 32_767
"""Of a CAM and of a label map: a plane's elements count in int32, positions are exact in FP32."""
MAX_PATCHES = 65_535
"""CUDA's limit of a grid's second and third axis."""

_CAMS_AND_PROB = dict.fromkeys(("p_cam_28_1", "p_cam_28_2", "p_cam_deep", "p_prob"), "*fp32")
_SIZES = dict.fromkeys(("N", "h", "w", "H", "W"), "i32")
_WEIGHTS = dict.fromkeys(("weight_28_1", "weight_28_2", "weight_deep"), "fp32")

RANGES = Variant(
    op="cam_to_mask",
    name="ranges",
    function="cam_ranges_kernel",
    signature=_CAMS_AND_PROB | _SIZES | _WEIGHTS | {"threshold": "fp32", "p_ranges": "*fp32"},
    # One program reads a whole map, and at batch 1 there are only 3N of them: make each wide.
    constants={"BN": MAX_CLASSES, "BH": 32, "BW": 64},
    num_warps=16,
    fuse_multiply_add=False,
)
MASK = Variant(
    op="cam_to_mask",
    name="mask",
    function="cam_to_mask_kernel",
    signature=_CAMS_AND_PROB
    | {"p_ranges": "*fp32"}
    | _SIZES
    | {"threshold": "fp32", "p_labels": "*u8"},
    # 196 programs for a patch of 224 pixels: two pixels a thread keep registers under 80.
    constants={"BN": MAX_CLASSES, "BH": 8, "BW": 32},
    num_warps=4,
    fuse_multiply_add=False,
)


def variants(sm: int) -> list[Variant]:
    """The ahead-of-time builds for one SM: the same two everywhere, for any size and N <= 16."""
    del sm
    return [RANGES, MASK]


def ranges_shape(batch: int, classes: int) -> tuple[int, int, int, int]:
    """Shape of the FP32 buffer between the launches: minimum and factor by level and class."""
    return batch, 3, classes, 2


def plan_ranges(
    cam_shape: tuple[int, int, int, int],  # B, N, h, w
    *,
    weights: tuple[float, float, float],
    threshold: float,
    height_px: int,
    width_px: int,
) -> Launch:
    """The launch of `RANGES`; it has to end before that of `MASK` begins."""
    batch, classes, height, width = cam_shape
    return Launch(
        grid=(3 * classes, batch, 1),
        scalars=(
            *(classes, height, width, height_px, width_px),
            *(float(weight) for weight in weights),
            float(threshold),
        ),
    )


def plan_mask(
    cam_shape: tuple[int, int, int, int],  # B, N, h, w
    *,
    threshold: float,
    height_px: int,
    width_px: int,
) -> Launch:
    """The launch of `MASK`."""
    batch, classes, height, width = cam_shape
    tile_height, tile_width = int(MASK.constants["BH"]), int(MASK.constants["BW"])
    return Launch(
        grid=(-(-width_px // tile_width), -(-height_px // tile_height), batch),
        scalars=(classes, height, width, height_px, width_px, float(threshold)),
    )
