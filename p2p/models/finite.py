"""Find weights that are NaN or infinite."""

from __future__ import annotations

import torch


def first_not_finite(tensors: dict[str, torch.Tensor]) -> str | None:
    """The name of the first tensor that holds a NaN or an infinity; None if all are finite. Waits for a GPU once."""
    floats = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}
    if not floats:
        return None
    # A sum is NaN or infinite if a value is; that of finite values could overflow only beyond 1e38.
    sums = torch.stack([tensor.detach().float().sum() for tensor in floats.values()]).cpu()
    return next((name for name, value in zip(floats, sums, strict=True) if not value.isfinite()), None)
