"""The scores of validation: how near outputs in [-1, 1] are to their targets.

A metric is a `torchmetrics.Metric` whose `update` takes the outputs and their targets, float32 (N, C, H, W) in [-1, 1],
and whose `compute` gives a scalar. torchmetrics adds it up over batches and processes, which is why this project has no
Protocol of its own for it.
"""

from __future__ import annotations

from torchmetrics import MeanAbsoluteError
from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure

RANGE = (-1.0, 1.0)


def l1() -> MeanAbsoluteError:
    """Mean absolute error, of a range of 2."""
    return MeanAbsoluteError()


def psnr() -> PeakSignalNoiseRatio:
    """Peak signal-to-noise ratio in dB, per image, then averaged: the usual figure."""
    return PeakSignalNoiseRatio(data_range=RANGE, dim=(1, 2, 3), reduction="elementwise_mean")


def ssim() -> StructuralSimilarityIndexMeasure:
    """Structural similarity (Wang et al. 2004), at most 1."""
    return StructuralSimilarityIndexMeasure(data_range=RANGE)
