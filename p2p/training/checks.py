"""Checks of the arguments of `Pix2Pix`, each with one sentence."""

from __future__ import annotations

from collections.abc import Mapping

from torchmetrics import Metric

from p2p.losses.adversarial import Adversarial
from p2p.losses.feature_matching import FeatureMatching
from p2p.losses.loss import Loss

MODES_THAT_RECORD = ("reduce-overhead", "max-autotune")  # of torch.compile


def check_parts(
    *,
    adversarial: Adversarial | None,
    losses: Mapping[str, Loss | FeatureMatching],
    weights: Mapping[str, float],
    metrics: Mapping[str, object],
) -> None:
    """Raise a ValueError if they leave nothing to learn from, or one of them is not what it should be."""
    if adversarial is None and not losses:
        raise ValueError("adversarial=none and losses=none leave nothing to learn from: choose one of them")
    for name, loss in losses.items():
        if adversarial is None and isinstance(loss, FeatureMatching):
            raise ValueError(
                f"losses.{name} compares what the discriminator sees, and adversarial=none trains none: leave one of"
                " them out"
            )
    if adversarial is None and not any(weights.values()):
        zero = " and ".join(f"losses.{name}" for name in losses)
        raise ValueError(
            f"adversarial=none and {zero} of weight 0 leave nothing to learn from: use a larger model.lambda_l1, or"
            " weight of its own"
        )
    for name, metric in metrics.items():
        if not isinstance(metric, Metric):
            raise ValueError(f"metrics.{name} is a {type(metric).__name__}: use a torchmetrics.Metric")


def check_step(
    adversarial: Adversarial | None,
    *,
    accumulate: int,
    clip_norm: float | None,
    capture: bool | str,
    compile: bool | str,
) -> None:
    """Raise a ValueError if a number is out of range, or these exclude each other."""
    if accumulate < 1:
        raise ValueError(f"model.accumulate={accumulate} is too small: use 1 or more")
    if clip_norm is not None and clip_norm <= 0:
        raise ValueError(f"model.clip_norm={clip_norm} is too small: use more than 0, or null")
    if capture not in (True, False, "auto"):
        raise ValueError(f"model.capture={capture} is not known: use auto, true or false")
    if compile and adversarial is not None and adversarial.differentiates_twice:
        raise ValueError(
            f"model.compile cannot differentiate twice, as the penalty of {type(adversarial).__name__} does: use"
            " model.compile=false"
        )
    if compile in MODES_THAT_RECORD and capture is not False:
        raise ValueError(
            f"model.compile={compile} records CUDA graphs of its own: use model.compile=true, or model.capture=false"
        )
