"""The Triton kernels of `hfrm_cam`; README.md has the maths and the reasons for the shape."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _load_feature(feature, p_p, m_p, c, last, stride_c, VECTOR: tl.constexpr, UNIT: tl.constexpr):
    """Features [BLOCK_P, BLOCK_C] at the pixel offsets `p_p` and channels `c`, zero outside."""
    m_f = m_p[:, None] & (c < last)[None, :]
    if UNIT == "c":
        p_f = p_p[:, None] + c[None, :]
    else:
        p_f = p_p[:, None] + (c * stride_c)[None, :]
    if UNIT == "x":
        # The compiler cannot see through lane -> (strip, column) that neighbours are contiguous.
        p_f = tl.max_contiguous(tl.multiple_of(p_f, (VECTOR, 1)), (VECTOR, 1))
        m_f = tl.max_constancy(m_f, (VECTOR, 1))
    return tl.load(feature + p_f, mask=m_f, other=0.0)


@triton.jit
def _dot(b_a, b_b, acc, UPCAST: tl.constexpr):
    """acc + b_a @ b_b in FP32; the interpreter multiplies BF16 wrongly, so it gets FP32."""
    if UPCAST:
        b_a, b_b = b_a.to(tl.float32), b_b.to(tl.float32)
    return tl.dot(b_a, b_b, acc, input_precision="ieee")


@triton.jit
def _columns(acc, i: tl.constexpr, BLOCK_P: tl.constexpr, PARTS: tl.constexpr, WIDTH: tl.constexpr):
    """Columns i * WIDTH to (i + 1) * WIDTH of `acc` [BLOCK_P, PARTS * WIDTH]."""
    if PARTS == 1:
        return acc
    acc = tl.reshape(acc, [BLOCK_P, PARTS, WIDTH])
    return tl.sum(tl.where(tl.arange(0, PARTS)[None, :, None] == i, acc, 0.0), 1)


@triton.jit
def _shifted_sum(columns, shift, o_p, o_t, TILE_W, BLOCK_P: tl.constexpr, NP: tl.constexpr):
    """[BLOCK_P, NP]: lane p gets the sum over d of `columns`[p + shift + d, d * NP + n], d < 4."""
    o_d = shift + tl.arange(0, 4 * NP) // NP
    t = o_t[:, None] + o_d[None, :]
    m_t = (t >= 0) & (t < TILE_W)
    source = tl.where(m_t, o_p[:, None] + o_d[None, :], 0) % BLOCK_P
    shifted = tl.where(m_t, tl.gather(columns, source, 0), 0.0)
    return tl.sum(tl.reshape(shifted, [BLOCK_P, 4, NP]), 1)


@triton.jit
def hfrm_cam_kernel(
    feature,  # [B, C, H, W] by the strides
    gate,  # [B, C] float32
    head,  # [C, NP]
    context,  # [14 + ROWS, C, ROWS * 16 * NP]
    bias,  # [N] float32
    B,
    C,
    H,
    W,
    N,
    stride_b,
    stride_c,
    stride_y,
    stride_x,
    TILE_W,
    SPLIT_C,
    cam,  # [splits, B, N, H, W] float32
    NP: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_G: tl.constexpr,
    VECTOR: tl.constexpr,
    UNIT: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """CAM of one tile of rows from one part of the channels; the caller adds up the parts."""
    i_strip, i_column, i_split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    J: tl.constexpr = ROWS * 16 * NP
    TAPS_Y: tl.constexpr = 14 + ROWS
    NG: tl.constexpr = ROWS * NP if ROWS * NP > 16 else 16
    strips = tl.cdiv(H, ROWS)  # of one image
    tile_strips = BLOCK_P // TILE_W
    # Lane p is column t of strip s; a strip is ROWS rows of one image.
    o_p = tl.arange(0, BLOCK_P)
    o_t = o_p % TILE_W
    o_s = i_strip * tile_strips + o_p // TILE_W
    o_b = o_s // strips
    o_y = (o_s % strips) * ROWS
    edge = tl.where(TILE_W < W, 7, 0)  # columns on either side that belong to the neighbours
    o_x = i_column * (TILE_W - 2 * edge) + o_t - edge
    m_p = (o_p < tile_strips * TILE_W) & (o_b < B) & (o_x >= 0) & (o_x < W)
    o_j = tl.arange(0, J)
    o_c = tl.arange(0, BLOCK_C)
    if UNIT == "x":
        p_p = o_b.to(tl.int64) * stride_b + o_x
    else:
        p_p = o_b.to(tl.int64) * stride_b + o_x * stride_x

    first = i_split * SPLIT_C
    last = tl.minimum(first + SPLIT_C, C)
    # The gated 1x1 head; its result for row r of the strip is column r * NP + n.
    o_g = tl.arange(0, NG)
    o_k = tl.arange(0, BLOCK_G)
    acc_g = tl.zeros([BLOCK_P, NG], tl.float32)
    for r in tl.static_range(ROWS):
        y = o_y + r
        for c_0 in range(first, last, BLOCK_G):
            c = c_0 + o_k
            b_f = _load_feature(
                feature, p_p + y * stride_y, m_p & (y < H), c, last, stride_c, VECTOR, UNIT
            )
            m_g = m_p[:, None] & (c < last)[None, :]
            b_g = tl.load(gate + o_b[:, None] * C + c[None, :], mask=m_g, other=0.0)
            b_f = (b_f.to(tl.float32) * b_g).to(feature.dtype.element_ty)
            m_h = (c < last)[:, None] & (o_g // NP == r)[None, :]
            b_h = tl.load(head + c[:, None] * NP + (o_g % NP)[None, :], mask=m_h, other=0.0)
            acc_g = _dot(b_f, b_h, acc_g, UPCAST)  # [BLOCK_P, BLOCK_G] @ [BLOCK_G, NG]

    acc = tl.zeros([BLOCK_P, J], tl.float32)
    for k in range(tl.cdiv(last - first, BLOCK_C) * TAPS_Y):
        dy = k % TAPS_Y
        c = first + (k // TAPS_Y) * BLOCK_C + o_c
        y = o_y + dy - 7
        m_y = m_p & (y >= 0) & (y < H)
        b_f = _load_feature(feature, p_p + y * stride_y, m_y, c, last, stride_c, VECTOR, UNIT)
        p_w = context + (dy * C + c)[:, None] * J + o_j[None, :]
        b_w = tl.load(p_w, mask=(c < last)[:, None], other=0.0)
        acc = _dot(b_f, b_w, acc, UPCAST)  # [BLOCK_P, BLOCK_C] @ [BLOCK_C, J]

    o_n = tl.arange(0, NP)
    with_bias = tl.where(i_split == 0, N, 0)  # classes; the other parts add none
    b_bias = tl.load(bias + o_n, mask=o_n < with_bias, other=0.0)
    m_out = m_p & (o_t >= edge) & (o_t < TILE_W - edge)
    p_image = (i_split * B + o_b)[:, None].to(tl.int64) * N + o_n[None, :]
    for r in tl.static_range(ROWS):
        out = _columns(acc_g, r, BLOCK_P, NG // NP, NP) + b_bias[None, :]
        for i in tl.static_range(4):  # a quarter at a time: the gather's indices take registers
            quarter = _columns(acc, 4 * r + i, BLOCK_P, 4 * ROWS, 4 * NP)
            out += _shifted_sum(quarter, 4 * i - 7, o_p, o_t, TILE_W, BLOCK_P, NP)
        y = o_y + r
        p_out = cam + (p_image * H + y[:, None]) * W + o_x[:, None]
        tl.store(p_out, out, mask=(m_out & (y < H))[:, None] & (o_n < N)[None, :])


@triton.jit
def add_splits_kernel(
    parts,  # [splits, size] float32
    size,
    splits,
    total,  # [size] float32
    BLOCK: tl.constexpr,
):
    """Sum over the parts, always in the same order."""
    o = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    acc = tl.zeros([BLOCK], tl.float32)
    p_part = parts + o
    for _ in range(splits):
        acc += tl.load(p_part, mask=o < size, other=0.0)
        p_part += size
    tl.store(total + o, acc, mask=o < size)
