"""Triton kernels: instance norm on the rows that `p2p.deploy.kernels.shifted_gemm` writes, and its activation."""

import triton
import triton.language as tl

from p2p.deploy.kernels.shifted_gemm import store, store_cells


@triton.jit
def _sums(raw_ptr, image, begin, end, rows, c, columns, stride, BM: tl.constexpr, BN: tl.constexpr):
    """Sums and sums of squares of channels over some rows of an image; the spare row and column are zero."""
    total = tl.zeros((BM, BN), dtype=tl.float32)
    squares = tl.zeros((BM, BN), dtype=tl.float32)
    for start in tl.range(begin, end, BM, num_stages=3):
        m = start + tl.arange(0, BM)
        inside = (m < end)[:, None] & (c < columns)[None, :]
        here = ((image * rows + m).to(tl.int64) * stride)[:, None] + c[None, :]
        value = tl.load(raw_ptr + here, mask=inside, other=0.0).to(tl.float32)
        total += value  # rows are added up once, at the end: between threads that is slow
        squares += value * value
    return tl.sum(total, axis=0), tl.sum(squares, axis=0)


@triton.jit(do_not_specialize=["rows"])
def statistics(raw_ptr, sums_ptr, rows, columns, stride, BLOCKS: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    """What `normalize` needs to know of one of BLOCKS parts of an image that is too large for one program.

    Args:
        raw_ptr: flat rows before the norm, `rows` an image, of which `columns` count, `stride` apart.
        sums_ptr: float32 (N, BLOCKS, 2, columns).
    """
    image, block = tl.program_id(0), tl.program_id(1)
    c = tl.program_id(2) * BN + tl.arange(0, BN)
    part = tl.cdiv(rows, BLOCKS)
    end = min((block + 1) * part, rows)
    total, squares = _sums(raw_ptr, image, block * part, end, rows, c, columns, stride, BM, BN)
    sums = sums_ptr + (image * BLOCKS + block) * 2 * columns + c
    tl.store(sums, total, mask=c < columns)
    tl.store(sums + columns, squares, mask=c < columns)


@triton.jit(do_not_specialize=["height", "width"])
def normalize(
    raw_ptr,
    sums_ptr,
    weight_ptr,
    bias_ptr,
    cells_ptr,
    flat_ptr,
    height,
    width,
    columns,
    raw_stride,
    flat_stride,
    eps,
    cells_times,
    flat_times,
    CELLS: tl.constexpr,
    FLAT: tl.constexpr,
    BLOCKS: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
):
    """Instance norm and activation. Arguments as in `statistics` and `down`.

    With BLOCKS = 0 a program does a whole image, sums included: where that is small, a second kernel costs more than it
    shares. The raw rows may be the flat ones, if both are of one dtype.
    """
    image = tl.program_id(0)
    c = tl.program_id(2) * BN + tl.arange(0, BN)
    rows = (height + 1) * (width + 1)
    if BLOCKS == 0:
        begin, end = 0, rows
        total, squares = _sums(raw_ptr, image, begin, end, rows, c, columns, raw_stride, BM, BN)
    else:
        begin = tl.program_id(1) * BM
        end = begin + BM
        block = tl.arange(0, BLOCKS)
        sums = sums_ptr + (image * BLOCKS + block)[:, None] * 2 * columns + c[None, :]
        known = (c < columns)[None, :] & (block >= 0)[:, None]
        total = tl.sum(tl.load(sums, mask=known, other=0.0), axis=0)
        squares = tl.sum(tl.load(sums + columns, mask=known, other=0.0), axis=0)
    mean, square = total / (height * width), squares / (height * width)
    scale = tl.rsqrt(tl.maximum(square - mean * mean, 0.0) + eps) * tl.load(weight_ptr + c, mask=c < columns, other=0.0)
    shift = tl.load(bias_ptr + c, mask=c < columns, other=0.0) - mean * scale

    for start in tl.range(begin, end, BM):
        m = start + tl.arange(0, BM)
        y, x = m // (width + 1), m % (width + 1)
        inside = ((y < height) & (x < width))[:, None] & (c < columns)[None, :]
        row = (image * rows + m).to(tl.int64)
        raw = tl.load(raw_ptr + (row * raw_stride)[:, None] + c[None, :], mask=inside, other=0.0).to(tl.float32)
        value = raw * scale[None, :] + shift[None, :]
        if CELLS:
            store_cells(cells_ptr, value, image, y, x, c, inside, height, width, columns, cells_times)
        if FLAT:
            value = tl.maximum(value, 0.0) * flat_times
            store(flat_ptr + (row * flat_stride)[:, None] + c[None, :], value, inside)
