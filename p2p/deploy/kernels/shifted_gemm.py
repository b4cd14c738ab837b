"""A U-Net's convolutions as matrix products whose rows are shifted: Triton kernels for NVIDIA GPUs from Hopper on.

A 4x4 convolution of stride 2, and its transpose, each see 2x2 of something: the first 2x2 cells of 2x2 pixels, the
second 2x2 input pixels for each of four output parities. If images lie in memory row after row with one spare,
zeroed row and column each, "one to the right" is the next row of the matrix and "one below" is `pitch` rows on, border
included. So both layers are the same loop, out = A[m] W_0 + A[m + 1] W_1 + A[m + pitch] W_2 + A[m + pitch + 1] W_3,
in which nothing is gathered: each tile is one copy by the GPU's tensor memory accelerator (TMA), which also
supplies zeros outside of the matrix.

    flat    of H x W pixels with C channels: row (n, y, x) of (H + 1)(W + 1) rows an image, C columns.
            Row H and column W are zero, and serve as the border on both sides: left of (y, 0) lies (y - 1, W).
    cells   of 2H x 2W pixels with C channels: row (n, y, x) of (H + 1)(W + 1) rows an image, 4 C columns.
            Cell (y, x) has the pixels 2y - 1, 2y of the columns 2x - 1, 2x: shifted by one, so that a window of 2x2
            cells is a window of 4x4 pixels, padding included.

What PyTorch does in kernels of its own between two convolutions happens while a tile is stored: bias, LeakyReLU for
the encoder, ReLU for the decoder, the concatenation of the two (they write side by side), and the change of layout.
"""

import triton
import triton.language as tl


@triton.jit
def _shifted_gemm(
    a_desc,  # (rows, depth)
    w_desc,  # (columns, 4 * depth)
    workspace_ptr,  # float32 (SPLITS, rows, columns)
    arrived_ptr,  # int32, one for each tile, 0 before and after
    scale_ptr,  # float32 (columns,), what 8-bit sums are multiplied by, if SCALED
    rows,
    columns,
    depth,
    pitch,
    UP: tl.constexpr,
    SCALED: tl.constexpr,
    SUM: tl.constexpr,
    SPLITS: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    """One tile of the product: its rows, columns and sums, and whether this program is the one to store it."""
    tile = tl.program_id(0)
    # Eight tiles of rows share a stripe of weights before the next stripe is read: both stay in the L2 cache.
    across = tl.cdiv(columns, BN)
    first = tile // (8 * across) * 8
    height = min(tl.cdiv(rows, BM) - first, 8)
    m0 = (first + tile % (8 * across) % height) * BM
    n0 = tile % (8 * across) // height * BN

    chunks = depth // BK
    steps = 4 * chunks // SPLITS
    start = tl.program_id(1) * steps
    acc = tl.zeros((BM, BN), dtype=SUM)
    for step in tl.range(start, start + steps):
        tap = step // chunks
        below, right = tap // 2, tap % 2
        if UP:  # windows begin above and left of their pixel
            below, right = below - 1, right - 1
        a = a_desc.load([m0 + below * pitch + right, step % chunks * BK])
        w = w_desc.load([n0, step * BK])
        acc = tl.dot(a, w.T, acc, out_dtype=SUM)
    acc = acc.to(tl.float32)

    m = m0 + tl.arange(0, BM)
    n = n0 + tl.arange(0, BN)
    last = True
    if SPLITS > 1:
        # The terms of few rows and many columns are shared among programs; the one that comes last adds them up, in
        # their order, so that the result does not depend on who it is.
        here = m[:, None].to(tl.int64) * columns + n[None, :]
        inside = (m < rows)[:, None] & (n < columns)[None, :]
        size = rows.to(tl.int64) * columns
        tl.store(workspace_ptr + tl.program_id(1) * size + here, acc, mask=inside)
        tl.debug_barrier()  # all threads have stored before one of them says so
        last = tl.atomic_add(arrived_ptr + tile, 1, sem="acq_rel") == SPLITS - 1
        if last:
            acc = tl.zeros((BM, BN), dtype=tl.float32)
            for split in range(SPLITS):
                acc += tl.load(workspace_ptr + split * size + here, mask=inside, other=0.0)
            tl.store(arrived_ptr + tile, 0)
    if SCALED:
        acc *= tl.load(scale_ptr + n, mask=n < columns, other=0.0)[None, :]
    return m, n, acc, last


@triton.jit
def store(ptr, value, mask):
    """In the pointer's dtype, cut to the range of 8 bits where it has them."""
    if ptr.dtype.element_ty == tl.int8:
        value = tl.floor(tl.clamp(value, -127.0, 127.0) + 0.5)
    elif ptr.dtype.element_ty == tl.float8e4nv:
        value = tl.clamp(value, -448.0, 448.0)
    tl.store(ptr, value.to(ptr.dtype.element_ty), mask=mask)


@triton.jit
def store_cells(ptr, value, n, y, x, c, inside, height, width, channels, times):
    """Pixels (n, y, x) after LeakyReLU(0.2) and `times` so much, into the cells of height x width pixels."""
    value *= times
    row = (n * (height // 2 + 1) + (y + 1) // 2) * (width // 2 + 1) + (x + 1) // 2
    corner = (y + 1) % 2 * 2 + (x + 1) % 2
    here = (row.to(tl.int64) * (4 * channels) + corner * channels)[:, None] + c[None, :]
    store(ptr + here, tl.where(value > 0, value, 0.2 * value), inside)


@triton.jit
def store_flat(ptr, value, n, y, x, c, inside, height, width, stride):
    """Pixels (n, y, x) as they are, into the flat rows of height x width pixels."""
    row = (n * (height + 1) + y) * (width + 1) + x
    store(ptr + (row.to(tl.int64) * stride)[:, None] + c[None, :], value, inside)


@triton.jit(do_not_specialize=["rows", "pitch", "height", "width"])
def down(
    a_desc,
    w_desc,
    workspace_ptr,
    arrived_ptr,
    scale_ptr,
    bias_ptr,
    cells_ptr,
    flat_ptr,
    rows,
    columns,
    depth,
    pitch,
    height,
    width,
    flat_stride,
    cells_times,
    flat_times,
    SCALED: tl.constexpr,
    SUM: tl.constexpr,
    RAW: tl.constexpr,
    CELLS: tl.constexpr,
    FLAT: tl.constexpr,
    SPLITS: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    """A 4x4 convolution of stride 2 and padding 1: cells -> cells of the next layer, and flat rows of the decoder.

    Args:
        a_desc: cells (rows, depth) of the input, depth = 4 C.
        w_desc: (columns = C', 4 depth), see `p2p.deploy.kernels.weights.pack_down`.
        scale_ptr: float32 (C',) for 8-bit factors, if SCALED: what a sum of their products is multiplied by.
        bias_ptr: float32 (C',).
        cells_ptr: of the output after LeakyReLU(0.2), if CELLS.
        flat_ptr: rows of the output after ReLU, `flat_stride` elements apart, if FLAT; if RAW, without ReLU.
        cells_times, flat_times: what they are multiplied by, to fill the range of 8 bits.
        height, width: of the output; pitch = width + 1.
    """
    m, c, acc, last = _shifted_gemm(
        a_desc, w_desc, workspace_ptr, arrived_ptr, scale_ptr,
        rows, columns, depth, pitch, False, SCALED, SUM, SPLITS, BM, BN, BK,
    )  # fmt: skip
    if last:
        value = acc + tl.load(bias_ptr + c, mask=c < columns, other=0.0)[None, :]
        image = pitch * (height + 1)
        n, y, x = m // image, m % image // pitch, m % pitch
        inside = ((m < rows) & (y < height) & (x < width))[:, None] & (c < columns)[None, :]
        if CELLS:
            store_cells(cells_ptr, value, n, y, x, c, inside, height, width, columns, cells_times)
        if FLAT:
            if not RAW:
                value = tl.maximum(value, 0.0) * flat_times
            store_flat(flat_ptr, value, n, y, x, c, inside, height, width, flat_stride)


@triton.jit(do_not_specialize=["rows", "pitch", "height", "width"])
def up(
    a_desc,
    w_desc,
    workspace_ptr,
    arrived_ptr,
    scale_ptr,
    bias_ptr,
    out_ptr,
    rows,
    columns,
    depth,
    pitch,
    height,
    width,
    channels,
    stride_n,
    stride_y,
    stride_x,
    stride_c,
    out_times,
    SCALED: tl.constexpr,
    SUM: tl.constexpr,
    ACTIVATION: tl.constexpr,
    SPLITS: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    """A 4x4 transposed convolution of stride 2 and padding 1: flat rows -> any layout, by its strides.

    Window (y, x) sees the input pixels y - 1, y of the columns x - 1, x, and gives the output pixels 2y - 1, 2y of
    the columns 2x - 1, 2x: `columns` = 4 C' in the order (row, column, channel), less those outside of the image.

    Args:
        a_desc: flat rows (rows, depth) of the input, depth = C.
        w_desc: (columns, 4 depth), see `p2p.deploy.kernels.weights.pack_up`.
        scale_ptr: float32 (columns,), as in `down`.
        bias_ptr: float32 (C',).
        out_ptr: the pixel (0, 0, 0); strides in elements.
        out_times: what "relu" is multiplied by, as in `down`.
        height, width: of the input; pitch = width + 1.
        ACTIVATION: "relu", "tanh" or "none".
    """
    m, corner_c, acc, last = _shifted_gemm(
        a_desc, w_desc, workspace_ptr, arrived_ptr, scale_ptr,
        rows, columns, depth, pitch, True, SCALED, SUM, SPLITS, BM, BN, BK,
    )  # fmt: skip
    if last:
        corner, c = corner_c // channels, corner_c % channels
        value = acc + tl.load(bias_ptr + c)[None, :]
        if ACTIVATION == "relu":
            value = tl.maximum(value, 0.0) * out_times
        elif ACTIVATION == "tanh":
            value = 1 - 2 / (tl.exp(2 * value) + 1)
        image = pitch * (height + 1)
        n, y, x = m // image, m % image // pitch, m % pitch
        lower, right = corner // 2, corner % 2
        # An address is the sum of a row's and a column's part: one addition an element.
        row = n.to(tl.int64) * stride_n + (2 * y - 1) * stride_y + (2 * x - 1) * stride_x
        here = row[:, None] + (lower * stride_y + right * stride_x + c * stride_c)[None, :]
        above, left = (y == 0)[:, None] & (lower == 0)[None, :], (x == 0)[:, None] & (right == 0)[None, :]
        below, beyond = (y == height)[:, None] & (lower == 1)[None, :], (x == width)[:, None] & (right == 1)[None, :]
        inside = (m < rows)[:, None] & (corner < 4)[None, :] & ~(above | left | below | beyond)
        store(out_ptr + here, value, inside)


@triton.jit(do_not_specialize=["rows", "height", "width"])
def first(
    image_ptr,
    weight_ptr,
    bias_ptr,
    cells_ptr,
    flat_ptr,
    rows,
    columns,
    height,
    width,
    flat_stride,
    cells_times,
    flat_times,
    CHANNELS: tl.constexpr,
    CELLS: tl.constexpr,
    FLAT: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
):
    """The first convolution, 4x4 of stride 2 and padding 1: an image -> cells, and flat rows of the decoder.

    Its 16 taps of a few channels are gathered by ordinary loads: they are few, and TMA copies no less than 16 bytes.

    Args:
        image_ptr: (N, C, 2 height, 2 width), contiguous.
        weight_ptr: (columns, C, 4, 4), contiguous, of the same dtype.
        rows: N height width output pixels.
        bias_ptr, cells_ptr, flat_ptr, flat_stride, cells_times, flat_times: as in `down`.
    """
    m = tl.program_id(0) * BM + tl.arange(0, BM)
    c = tl.program_id(1) * BN + tl.arange(0, BN)
    n, y, x = m // (height * width), m // width % height, m % width
    acc = tl.zeros((BM, BN), dtype=tl.float32)
    for start in tl.static_range(0, 16 * CHANNELS, 64):
        k = start + tl.arange(0, 64)  # 16 taps of 4 channels, or of as many as are left
        row, column = 2 * y[:, None] - 1 + (k % 16 // 4)[None, :], 2 * x[:, None] - 1 + (k % 4)[None, :]
        seen = (m < rows)[:, None] & (k < 16 * CHANNELS)[None, :]
        seen = seen & (row >= 0) & (row < 2 * height) & (column >= 0) & (column < 2 * width)
        plane = (n * CHANNELS).to(tl.int64)[:, None] + (k // 16)[None, :]
        a = tl.load(image_ptr + plane * (4 * height * width) + row * (2 * width) + column, mask=seen, other=0.0)
        known = (k < 16 * CHANNELS)[:, None] & (c < columns)[None, :]
        w = tl.load(weight_ptr + c[None, :] * (16 * CHANNELS) + k[:, None], mask=known, other=0.0)
        acc = tl.dot(a, w, acc)
    value = acc + tl.load(bias_ptr + c, mask=c < columns, other=0.0)[None, :]
    inside = (m < rows)[:, None] & (c < columns)[None, :]
    if CELLS:
        store_cells(cells_ptr, value, n, y, x, c, inside, height, width, columns, cells_times)
    if FLAT:
        store_flat(flat_ptr, tl.maximum(value, 0.0) * flat_times, n, y, x, c, inside, height, width, flat_stride)
