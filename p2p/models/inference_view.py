"""What BatchNorm means in a network that is deployed.

It has two meanings at test time. The paper tests each image with the statistics of that image alone
(Isola et al. 2017, sec. 3.4), the rest of the world with running averages over the training set. Which one a
model needs depends on how it was trained, and validation, export and inference must agree on it.
"""

from __future__ import annotations

import copy
from typing import Literal

from torch import nn

NormStats = Literal["auto", "instance", "running"]


def resolve_norm_stats(norm_stats: NormStats, *, batch_size: int) -> Literal["instance", "running"]:
    """What "auto" stands for: per-image statistics if training saw one image at a time, else running averages."""
    if norm_stats not in ("auto", "instance", "running"):
        raise ValueError(f"norm_stats={norm_stats} is not known: use auto, instance or running")
    if norm_stats == "auto":
        return "instance" if batch_size == 1 else "running"
    return norm_stats


def inference_view(network: nn.Module, *, norm_stats: Literal["instance", "running"]) -> nn.Module:
    """The network as it is deployed: in eval mode, and with its parameters shared, not copied.

    With "instance", every BatchNorm2d (or SyncBatchNorm) becomes an InstanceNorm2d of the same affine weights. At
    batch 1 that is exactly what a BatchNorm in training mode computes, and at any batch size no image sees another.

    `network` itself is left as it is; training it goes on to move the view's weights.
    """
    shared = [*network.parameters(), *network.buffers()]
    view = copy.deepcopy(network, memo={id(tensor): tensor for tensor in shared})
    if norm_stats == "instance":
        for parent in list(view.modules()):
            for name, child in parent.named_children():
                if isinstance(child, (nn.BatchNorm2d, nn.SyncBatchNorm)):
                    setattr(parent, name, _per_image(child))
    return view.eval()


def _per_image(batch_norm: nn.BatchNorm2d | nn.SyncBatchNorm) -> nn.InstanceNorm2d:
    norm = nn.InstanceNorm2d(batch_norm.num_features, eps=batch_norm.eps, affine=batch_norm.affine)
    norm.weight, norm.bias = batch_norm.weight, batch_norm.bias
    return norm
