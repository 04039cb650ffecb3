"""The two kernels. Same operations in the same order as `naive.py`, none of them fused.

Each output pixel's interpolation is computed twice, once in each kernel, instead of being stored;
both call `_upsampled`, so they agree to the bit and no score is below zero.

Sizes that are 1 must stay run-time arguments, as they are in the ahead-of-time build: hence
`do_not_specialize`.
"""

from __future__ import annotations

import triton
import triton.language as tl

from sshr_deploy.runtime.kernels.cam_to_mask import plan

MIN_MAX_EPSILON = tl.constexpr(plan.MIN_MAX_EPSILON)
_SIZES = ("N", "h", "w", "H", "W")


@triton.jit
def _neighbours(o_out, size_in, size_out):
    """Positions along one output axis -> lower and upper neighbour, and the way between them."""
    scale = tl.div_rn(size_in.to(tl.float32), size_out.to(tl.float32))
    b_source = tl.maximum(scale * (o_out.to(tl.float32) + 0.5) - 0.5, 0.0)
    o_lower = b_source.to(tl.int32)  # at most size_in - 1, as b_source is below size_in
    o_upper = tl.minimum(o_lower + 1, size_in - 1)
    return o_lower, o_upper, b_source - o_lower.to(tl.float32)


@triton.jit
def _between(b_lower, b_upper, b_share):
    return b_lower + b_share * (b_upper - b_lower)


@triton.jit
def _upsampled(p_plane, w, rows, columns):
    """One class of one level [h, w] at the tile's pixels, [BH, BW]."""
    o_top, o_bottom, b_down = rows  # [BH, 1]
    o_left, o_right, b_across = columns  # [1, BW]
    p_top = p_plane + o_top * w
    p_bottom = p_plane + o_bottom * w
    b_top = _between(tl.load(p_top + o_left), tl.load(p_top + o_right), b_across)
    b_bottom = _between(tl.load(p_bottom + o_left), tl.load(p_bottom + o_right), b_across)
    return _between(b_top, b_bottom, b_down)


@triton.jit
def _best_class(p_prob, N, BN: tl.constexpr):
    """The most probable class, the first of equals; `p_prob` is one patch's [N]."""
    o_n = tl.arange(0, BN)
    b_prob = tl.load(p_prob + o_n, mask=o_n < N, other=float("-inf"))
    return tl.argmax(b_prob, 0, tie_break_left=True)


@triton.jit
def _level_score(p_plane, w, p_range, rows, columns):
    """One level's share of one class's score, [BH, BW]."""
    return (_upsampled(p_plane, w, rows, columns) - tl.load(p_range)) * tl.load(p_range + 1)


@triton.jit(do_not_specialize=_SIZES)
def cam_ranges_kernel(
    p_cam_28_1,  # [B, N, h, w]
    p_cam_28_2,
    p_cam_deep,
    p_prob,  # [B, N]
    N,
    h,
    w,
    H,
    W,
    weight_28_1,
    weight_28_2,
    weight_deep,
    threshold,
    p_ranges,  # [B, 3, N, 2]
    BN: tl.constexpr,
    BH: tl.constexpr,
    BW: tl.constexpr,
):
    """Minimum of one upsampled map, and weight / (maximum - minimum + epsilon).

    A class that is off leaves its range unwritten.

    Grid: 3N maps, B patches.
    """
    i_level = tl.program_id(0) // N
    i_n = tl.program_id(0) % N
    i_b = tl.program_id(1).to(tl.int64)
    p_prob += i_b * N
    is_on = (tl.load(p_prob + i_n) > threshold) | (_best_class(p_prob, N, BN) == i_n)
    if is_on:
        p_plane, weight = p_cam_28_1, weight_28_1
        if i_level == 1:
            p_plane, weight = p_cam_28_2, weight_28_2
        if i_level == 2:
            p_plane, weight = p_cam_deep, weight_deep
        p_plane += (i_b * N + i_n) * h * w

        b_low = tl.full((BH, BW), float("inf"), tl.float32)
        b_high = tl.full((BH, BW), float("-inf"), tl.float32)
        for i_y in range(0, H, BH):
            # The last pixel stands in for those outside: it counts more than once, unharmed.
            rows = _neighbours(tl.minimum(i_y + tl.arange(0, BH), H - 1)[:, None], h, H)
            for i_x in range(0, W, BW):
                o_x = tl.minimum(i_x + tl.arange(0, BW), W - 1)[None, :]
                b_up = _upsampled(p_plane, w, rows, _neighbours(o_x, w, W))
                b_low = tl.minimum(b_low, b_up)
                b_high = tl.maximum(b_high, b_up)
        p_range = p_ranges + ((i_b * 3 + i_level) * N + i_n) * 2
        low, high = tl.min(tl.min(b_low, 1), 0), tl.max(tl.max(b_high, 1), 0)
        tl.store(p_range, low)
        tl.store(p_range + 1, tl.div_rn(weight, high - low + MIN_MAX_EPSILON))


@triton.jit(do_not_specialize=_SIZES)
def cam_to_mask_kernel(
    p_cam_28_1,  # [B, N, h, w]
    p_cam_28_2,
    p_cam_deep,
    p_prob,  # [B, N]
    p_ranges,  # [B, 3, N, 2]
    N,
    h,
    w,
    H,
    W,
    threshold,
    p_labels,  # [B, H, W]
    BN: tl.constexpr,
    BH: tl.constexpr,
    BW: tl.constexpr,
):
    """Labels of one tile of [BH, BW] pixels.

    Grid: tiles along the width, tiles along the height, B patches.
    """
    i_b = tl.program_id(2).to(tl.int64)
    p_prob += i_b * N
    p_ranges += i_b * 3 * N * 2
    o_y = (tl.program_id(1) * BH + tl.arange(0, BH))[:, None]
    o_x = (tl.program_id(0) * BW + tl.arange(0, BW))[None, :]
    rows = _neighbours(tl.minimum(o_y, H - 1), h, H)
    columns = _neighbours(tl.minimum(o_x, W - 1), w, W)

    i_best = _best_class(p_prob, N, BN)
    b_best = tl.zeros((BH, BW), tl.float32)
    b_label = tl.zeros((BH, BW), tl.int32)
    for i_n in range(0, N):
        is_on = (tl.load(p_prob + i_n) > threshold) | (i_best == i_n)
        if is_on:
            o_plane = (i_b * N + i_n) * h * w
            p_range = p_ranges + i_n * 2
            b_score = _level_score(p_cam_28_1 + o_plane, w, p_range, rows, columns)
            p_range += N * 2
            b_score += _level_score(p_cam_28_2 + o_plane, w, p_range, rows, columns)
            p_range += N * 2
            b_score += _level_score(p_cam_deep + o_plane, w, p_range, rows, columns)
            # Only a better class takes the pixel: the lowest one stays at ties, class 0 at zero.
            b_label = tl.where(b_score > b_best, i_n, b_label)
            b_best = tl.maximum(b_best, b_score)
    p_label = p_labels + i_b * H * W + o_y * W + o_x
    tl.store(p_label, b_label.to(tl.uint8), mask=(o_y < H) & (o_x < W))
