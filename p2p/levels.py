"""Levels of a file's pixels, and what networks see of them: [-1, 1]."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    import torch

Levels = TypeVar("Levels", np.ndarray, "torch.Tensor")

WHITE = {np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65535.0, np.dtype(np.float32): 1.0}  # of a frame's dtype


def normalize(levels: Levels, white: float = 255.0) -> Levels:
    """float32 levels in [0, white] -> [-1, 1], in place: the same bits by NumPy and by torch, on any device."""
    half = white / 2
    if not isinstance(levels, np.ndarray):
        import torch

        # On a GPU, torch divides by a number as a product with its inverse, one bit off; by a tensor it divides.
        half = torch.full((), half, device=levels.device)
    levels /= half
    levels -= 1.0
    return levels


def to_shares(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Numbers of a file -> float32 in [0, 1]: `low` is 0, `high` is 1, and what is beyond is clipped."""
    exact = np.float32 if values.dtype.itemsize <= 2 or values.dtype == np.float32 else np.float64
    shares = np.subtract(values, low, dtype=exact)
    shares /= high - low
    return np.clip(shares, 0.0, 1.0, out=shares).astype(np.float32, copy=False)


def to_values(levels: np.ndarray, low: float, high: float, dtype: np.dtype) -> np.ndarray:
    """float32 in [-1, 1] -> numbers in [low, high] of that dtype; whole ones are rounded to the nearest."""
    values = (levels.astype(np.float64) + 1.0) * ((high - low) / 2) + low
    return (np.rint(values) if dtype.kind == "u" else values).astype(dtype)
