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
