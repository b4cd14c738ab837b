"""All losses of the generator in one step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from p2p.batch import Batch
from p2p.losses.adversarial import Adversarial
from p2p.losses.feature_matching import FeatureMatching
from p2p.losses.loss import Loss
from p2p.losses.scales import over_scales


def generator_losses(
    fake_NCHW: torch.Tensor,
    batch: Batch,
    *,
    losses: Mapping[str, Loss | FeatureMatching],
    adversarial: Adversarial | None,
    discriminator: Callable[..., Any],
) -> dict[str, torch.Tensor]:
    """Scalars by name, before their weights: "gan", if there is a game, and each of `losses`.

    The discriminator judges the output once, for all of them. The target it judges only where activations are compared:
    what it thought of it in its own step is out of date by now, as that step has changed it.
    """
    input_NCHW, target_NCHW = batch.input_NCHW, batch.target_NCHW
    found, seen, wanted = {}, [], []
    if adversarial is not None and any(isinstance(loss, FeatureMatching) for loss in losses.values()):
        seen = discriminator(input_NCHW, fake_NCHW, activations=True)
        with torch.no_grad():
            wanted = discriminator(input_NCHW, target_NCHW, activations=True)
        found["gan"] = over_scales(adversarial.generator_loss, [scale[-1] for scale in seen])
    elif adversarial is not None:
        found["gan"] = over_scales(adversarial.generator_loss, discriminator(input_NCHW, fake_NCHW))
    for name, loss in losses.items():
        if isinstance(loss, FeatureMatching):
            found[name] = loss(seen, wanted)
        else:
            found[name] = loss(fake_NCHW, target_NCHW, input_NCHW)
    return found
