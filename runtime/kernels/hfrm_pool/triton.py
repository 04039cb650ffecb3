"""The five kernels. Sums have a fixed order, nothing is atomic: results repeat to the bit.

A tile is [BC channels, BP pixels] in either memory layout: CHANNELS_LAST says which of the two axes
is contiguous, and the compiler arranges threads along it. Sums are FP32, for FP64 features FP64:
the type of the sums' memory decides.
"""

from __future__ import annotations

import triton
import triton.language as tl

from sshr_deploy.runtime.kernels.hfrm_pool import plan

KERNEL_PX = tl.constexpr(plan.KERNEL_PX)
RADIUS = tl.constexpr(plan.KERNEL_PX // 2)


@triton.jit
def _offsets(o_c, o_p, C, HW, CHANNELS_LAST: tl.constexpr):
    """Channels [BC] and pixels [BP] -> places inside one dense map, [BC, BP]."""
    if CHANNELS_LAST:
        o_map = o_p[None, :] * C + o_c[:, None]
    else:
        o_map = o_c[:, None] * HW + o_p[None, :]
    return o_map


@triton.jit
def _stays_inside(o_x, o_t, size):
    """Whether tap t takes input pixel x to an output pixel, x - t + 7, inside the map."""
    o_to = o_x - o_t + RADIUS
    return (o_to >= 0) & (o_to < size)


@triton.jit
def tap_sums_kernel(
    p_kernel,  # [C, 15, 15]
    C,
    H,
    W,
    p_sums,  # [C, H, W]
    BC: tl.constexpr,
    BX: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
):
    """One row of S: at each pixel the sum of the taps that stay inside from it.

    They form a rectangle: first its rows are added up, which pixels of one row share.
    Grid: blocks of channels, rows of the map.
    """
    o_c = tl.program_id(0) * BC + tl.arange(0, BC)
    i_y = tl.program_id(1)
    o_t = tl.arange(0, 16)
    o_tap = o_t[:, None] * KERNEL_PX + o_t[None, :]  # [16, 16]
    m_tap = _stays_inside(i_y, o_t, H)[:, None] & (o_t[:, None] < KERNEL_PX)
    m_tap = m_tap & (o_t[None, :] < KERNEL_PX)
    p_taps = p_kernel + o_c[:, None, None] * (KERNEL_PX * KERNEL_PX) + o_tap[None, :, :]
    m_taps = (o_c[:, None, None] < C) & m_tap[None, :, :]
    b_taps = tl.sum(tl.load(p_taps, mask=m_taps, other=0.0), 1)  # [BC, 16]
    for i_x in range(0, W, BX):
        o_x = i_x + tl.arange(0, BX)
        m_x = _stays_inside(o_x[None, :], o_t[:, None], W)  # [16, BX]
        b_sums = tl.sum(tl.where(m_x[None, :, :], b_taps[:, :, None], 0.0), 1)
        o_map = _offsets(o_c, i_y * W + o_x, C, H * W, CHANNELS_LAST)
        tl.store(p_sums + o_map, b_sums, mask=(o_c[:, None] < C) & (o_x[None, :] < W))


@triton.jit
def hfrm_pool_forward_kernel(
    p_feature,  # [B, C, H, W]
    p_sums,  # [C, H, W]
    C,
    HW,
    p_mean,  # [B, C]
    p_weighted,  # [B, C]
    BC: tl.constexpr,
    BP: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Both means of one block of channels of one image.

    Grid: blocks of channels, images.
    """
    i_b = tl.program_id(1).to(tl.int64)
    o_c = tl.program_id(0) * BC + tl.arange(0, BC)
    p_feature += i_b * C * HW
    b_mean = tl.zeros((BC, BP), p_mean.dtype.element_ty)
    b_weighted = tl.zeros((BC, BP), p_mean.dtype.element_ty)
    for i_p in tl.range(0, HW, BP, num_stages=STAGES):
        o_p = i_p + tl.arange(0, BP)
        o_map = _offsets(o_c, o_p, C, HW, CHANNELS_LAST)
        m_map = (o_c[:, None] < C) & (o_p[None, :] < HW)
        b_feature = tl.load(p_feature + o_map, mask=m_map, other=0.0).to(b_mean.dtype)
        b_mean += b_feature
        b_weighted += b_feature * tl.load(p_sums + o_map, mask=m_map, other=0.0)
    o_out = i_b * C + o_c
    tl.store(p_mean + o_out, tl.sum(b_mean, 1) / HW, mask=o_c < C)
    tl.store(p_weighted + o_out, tl.sum(b_weighted, 1) / HW, mask=o_c < C)


@triton.jit
def feature_gradient_kernel(
    p_grad_mean,  # [B, C]
    p_grad_weighted,  # [B, C]
    p_sums,  # [C, H, W]
    B,
    C,
    HW,
    p_grad_feature,  # [B, C, H, W]
    BC: tl.constexpr,
    BP: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
):
    """dF = (dmean + dweighted S) / HW at one tile of every image.

    Grid: blocks of channels, blocks of pixels.
    """
    o_c = tl.program_id(0) * BC + tl.arange(0, BC)
    o_p = tl.program_id(1) * BP + tl.arange(0, BP)
    o_map = _offsets(o_c, o_p, C, HW, CHANNELS_LAST)
    m_map = (o_c[:, None] < C) & (o_p[None, :] < HW)
    b_sums = tl.load(p_sums + o_map, mask=m_map, other=0.0)
    for _ in range(0, B):
        b_mean = tl.load(p_grad_mean + o_c, mask=o_c < C, other=0.0) / HW
        b_weighted = tl.load(p_grad_weighted + o_c, mask=o_c < C, other=0.0) / HW
        b_grad = b_mean[:, None] + b_weighted[:, None] * b_sums
        tl.store(p_grad_feature + o_map, b_grad.to(p_grad_feature.dtype.element_ty), mask=m_map)
        p_grad_mean += C
        p_grad_weighted += C
        p_grad_feature += C * HW


@triton.jit
def sums_gradient_kernel(
    p_feature,  # [B, C, H, W]
    p_grad_weighted,  # [B, C]
    B,
    C,
    HW,
    p_grad_sums,  # [C, H, W]
    BC: tl.constexpr,
    BP: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    STAGES: tl.constexpr,
):
    """dS = sum over the images of dweighted F / HW, at one tile.

    Grid: blocks of channels, blocks of pixels.
    """
    o_c = tl.program_id(0) * BC + tl.arange(0, BC)
    o_p = tl.program_id(1) * BP + tl.arange(0, BP)
    o_map = _offsets(o_c, o_p, C, HW, CHANNELS_LAST)
    m_map = (o_c[:, None] < C) & (o_p[None, :] < HW)
    b_grad = tl.zeros((BC, BP), p_grad_sums.dtype.element_ty)
    for _ in tl.range(0, B, num_stages=STAGES):
        b_weighted = tl.load(p_grad_weighted + o_c, mask=o_c < C, other=0.0)
        b_feature = tl.load(p_feature + o_map, mask=m_map, other=0.0).to(b_grad.dtype)
        b_grad += b_weighted[:, None] * b_feature
        p_grad_weighted += C
        p_feature += C * HW
    tl.store(p_grad_sums + o_map, b_grad / HW, mask=m_map)


@triton.jit
def tap_gradient_kernel(
    p_grad_sums,  # [C, H, W]
    C,
    H,
    W,
    p_grad_kernel,  # [C, 15, 15]
    BC: tl.constexpr,
    BY: tl.constexpr,
    BX: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    STAGES: tl.constexpr,
):
    """One row of dK: a tap's gradient is the sum of dS over the pixels from which it stays inside.

    They form a rectangle: first its rows are added up, which taps of one row share.
    Grid: blocks of channels, 15 rows of taps.
    """
    o_c = tl.program_id(0) * BC + tl.arange(0, BC)
    i_ty = tl.program_id(1)
    i_first = tl.maximum(i_ty - RADIUS, 0)
    i_end = tl.minimum(i_ty - RADIUS + H, H)
    o_tile = tl.arange(0, BY * BX)
    o_y = i_first + o_tile // BX
    o_tx = tl.arange(0, 16)
    b_taps = tl.zeros((BC, 16), p_grad_kernel.dtype.element_ty)
    for i_x in range(0, W, BX):
        o_x = i_x + o_tile % BX
        o_map = _offsets(o_c, o_y * W + o_x, C, H * W, CHANNELS_LAST)
        b_columns = tl.zeros((BC, BY * BX), b_taps.dtype)
        for i_y in tl.range(0, i_end - i_first, BY, num_stages=STAGES):
            m_map = (o_c[:, None] < C) & ((o_x < W) & (i_y + o_y < i_end))[None, :]
            o_rows = i_y * W * C if CHANNELS_LAST else i_y * W
            b_columns += tl.load(p_grad_sums + o_rows + o_map, mask=m_map, other=0.0)
        b_columns = tl.sum(tl.reshape(b_columns, (BC, BY, BX)), 1)  # [BC, BX]
        m_x = _stays_inside(i_x + tl.arange(0, BX)[:, None], o_tx[None, :], W)  # [BX, 16]
        b_taps += tl.sum(tl.where(m_x[None, :, :], b_columns[:, :, None], 0.0), 1)
    o_out = o_c[:, None] * (KERNEL_PX * KERNEL_PX) + i_ty * KERNEL_PX + o_tx[None, :]
    m_out = (o_c[:, None] < C) & (o_tx[None, :] < KERNEL_PX)
    tl.store(p_grad_kernel + o_out, b_taps, mask=m_out)
