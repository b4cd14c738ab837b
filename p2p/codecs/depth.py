"""Bits of a channel in the files that are written, and the numbers that they hold."""

from __future__ import annotations

from typing import Literal

import numpy as np

from p2p.levels import WHITE, to_values

Bits = Literal[8, 16, 32]
BITS = {"png": (8, 16), "jpg": (8,), "webp": (8,), "tiff": (8, 16, 32), "npy": (8, 16, 32)}  # 32: floats
DTYPES: dict[int, np.dtype] = {8: np.dtype(np.uint8), 16: np.dtype(np.uint16), 32: np.dtype(np.float32)}
ALPHA = ("png", "webp", "tiff")  # formats that have it
LEAST = 255  # steps that 16 bits should have of a range; of fewer, such as [0, 1], 8 bits have more


def check_bits(format: str, bits: int | None) -> None:
    """Raise a ValueError if files of a format have no channels of so many bits."""
    if bits is None or bits in BITS[format]:
        return
    able = ", ".join(each for each, known in BITS.items() if bits in known)
    raise ValueError(
        f"codec.bits={bits} is not of codec.format={format}: use {' or '.join(map(str, BITS[format]))}"
        + (f", or a format that has it: {able}" if able else "")
    )


def fits_in_16(range: tuple[float, float]) -> bool:
    """Whether whole numbers of 16 bits hold such a range in enough steps."""
    low, high = range
    return low >= 0 and high <= 65535 and high - low >= LEAST


def bits_of(format: str, bits: int | None, range: tuple[float, float] | None) -> int:
    """The bits of a channel that outputs get: what is asked for, or, of None, 8; with a range what holds it.

    Args:
        format: of the files, "png" for example.
        bits: as asked for.
        range: that black and white stand for in the targets' files; None: that of their dtype.

    Raises:
        ValueError: 16 bits, asked for or the most that the format has, do not hold the range.
    """
    known = BITS.get(format, (8,))
    if bits is None:
        bits = 8 if range is None or max(known) == 8 else 16 if fits_in_16(range) or 32 not in known else 32
    if bits == 16 and range is not None and not fits_in_16(range):
        raise ValueError(
            f"16 bits hold no values from {range[0]:g} to {range[1]:g}, which are the range of the run's targets: use"
            " codec.bits=8, in which they are black and white, or codec.format=tiff codec.bits=32"
        )
    return bits


def to_depth(levels_HWC: np.ndarray, bits: int, range: tuple[float, float] | None) -> np.ndarray:
    """float32 in [-1, 1] -> uint16 or float32 in `range`; without one in [0, 65535] or [0, 1]."""
    dtype = DTYPES[bits]
    low, high = range or (0.0, WHITE[dtype])
    return to_values(levels_HWC, low, high, dtype)


def with_alpha(frame_HWC: np.ndarray, alpha_HWC: np.ndarray) -> np.ndarray:
    """A frame of a file's dtype and uint8 alpha of its size -> one more channel, in which white is opaque."""
    scaled = alpha_HWC.astype(np.float32) * (WHITE[frame_HWC.dtype] / 255)
    scaled = scaled if frame_HWC.dtype.kind == "f" else np.rint(scaled)
    return np.concatenate([frame_HWC, scaled.astype(frame_HWC.dtype)], axis=2)
