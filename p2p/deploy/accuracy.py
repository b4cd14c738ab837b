"""Compare a program with the network that it was made from, and refuse it if they differ too much."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

PSNR_CEILING = 120.0  # dB, for images that do not differ at all


@torch.inference_mode()
def reference_outputs(network: nn.Module, images_NCHW: torch.Tensor) -> torch.Tensor:
    """What the network makes of each image, one at a time: float32 (N, C', H', W') in [-1, 1].

    Call it with a float32 network on the CPU, before a backend gets it: on GPUs "fp32" convolutions round to TF32.
    """
    return torch.cat([network(image[None]) for image in images_NCHW])


def psnr_db(images_NCHW: torch.Tensor, expected_NCHW: torch.Tensor) -> torch.Tensor:
    """PSNR of each image in dB for values in [-1, 1], at most 120: float32 (N,); NaN where an image has a NaN."""
    error = (images_NCHW.double() - expected_NCHW.double()).square().mean(dim=(1, 2, 3))
    return (10 * torch.log10(4.0 / error)).clamp(max=PSNR_CEILING).float()


def summary(psnr: torch.Tensor, names: list[str]) -> dict[str, Any]:
    """{"mean", "worst", "worst_image", "images"} of the PSNR of each named image; a NaN is worse than any number."""
    worst = int(psnr.nan_to_num(nan=-torch.inf).argmin())
    return {
        "mean": psnr.mean().item(),
        "worst": psnr[worst].item(),
        "worst_image": names[worst],
        "images": len(psnr),
    }


def check(figures: dict[str, Any], *, min_psnr: float) -> None:
    """The gate: raise a ValueError with the figures of `summary` if the worst image is below `min_psnr` dB."""
    if not figures["worst"] >= min_psnr:  # also catches NaN
        raise ValueError(
            f"the exported program is too far from fp32: {figures['worst']:.1f} dB PSNR on its worst validation image"
            f" ({figures['worst_image']}), {figures['mean']:.1f} dB on average over {figures['images']}, where"
            f" min_psnr={min_psnr:g} is asked for: choose another backend or backend.precision"
        )
