"""What the discriminator sees of a small data set: every pair changed at random, real and generated alike.

Differentiable augmentation (Zhao et al. 2020, arXiv 2006.10738): the discriminator cannot learn the few real images by
heart, and the generator, which is trained through the changes, does not learn to make them. An input and the image that
is judged with it are changed in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from p2p.losses.feature_matching import FeatureMatching

CHANGES = ("color", "translation", "cutout")
SHIFT, HOLE = 1 / 8, 1 / 2  # of the side, at most and always; the paper's, as are the ranges of the colors


def check_changes(names: Sequence[str], losses: Mapping[str, object]) -> None:
    """Raise a ValueError for a change that is not known, or that one of the generator's `losses` cannot stand."""
    for name in [names] if isinstance(names, str) else names:
        if name not in CHANGES or isinstance(names, str):
            raise ValueError(
                f"model.augment={names} is not valid: use a list of some of {', '.join(CHANGES)}, such as [translation]"
            )
    for name, loss in losses.items():
        if names and isinstance(loss, FeatureMatching):
            raise ValueError(
                f"losses.{name} compares what the discriminator sees of output and target, and model.augment changes"
                " these differently: leave one of them out"
            )


def augmented(
    input_NCHW: torch.Tensor, image_NCHW: torch.Tensor, names: Sequence[str]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both with the same changes, which are drawn for each pair of a batch; nothing waits for a GPU.

    Args:
        input_NCHW, image_NCHW: floats in [-1, 1], of equal height and width; outputs may leave that range.
        names: "color" changes brightness, saturation and contrast, "translation" moves by an eighth of the side at the
            most, "cutout" greys a square of half the side. What has moved out or is cut becomes 0.
    """
    images = [input_NCHW, image_NCHW]
    count, (height, width), device = len(image_NCHW), image_NCHW.shape[2:], image_NCHW.device
    if "color" in names:
        factors = torch.rand(3, count, 1, 1, 1, device=device)
        images = [_recolored(each, *factors) for each in images]
    if "translation" in names:
        rows, columns = (_window(side, 1 + 2 * round(SHIFT * side), count, device) for side in (height, width))
        images = [_moved(_moved(each, rows, 2), columns, 3) for each in images]
    if "cutout" in names:
        down, across = (_hole(side, count, device) for side in (height, width))
        kept = ~(down[:, None, :, None] & across[:, None, None, :])
        images = [each * kept for each in images]
    return images[0], images[1]


def _recolored(
    image_NCHW: torch.Tensor, brightness: torch.Tensor, saturation: torch.Tensor, contrast: torch.Tensor
) -> torch.Tensor:
    """Draws in [0, 1) -> brightness + [-0.5, 0.5), saturation * [0, 2), contrast * [0.5, 1.5)."""
    image_NCHW = image_NCHW.float() + (brightness - 0.5)
    grey = image_NCHW.mean(dim=1, keepdim=True)
    image_NCHW = torch.lerp(grey, image_NCHW, 2.0 * saturation)
    mean = image_NCHW.mean(dim=(1, 2, 3), keepdim=True)
    return torch.lerp(mean, image_NCHW, contrast + 0.5)


def _window(side: int, shifts: int, count: int, device: torch.device) -> torch.Tensor:
    """For each image where its rows, or columns, come from: (N, side), one of `shifts` shifts around 0."""
    shift = torch.randint(shifts, (count, 1), device=device) - shifts // 2
    return torch.arange(side, device=device) + shift


def _moved(image_NCHW: torch.Tensor, source: torch.Tensor, dim: int) -> torch.Tensor:
    """Lines in another order; those from outside are 0. No line is taken twice, so that no gradients meet."""
    side = image_NCHW.shape[dim]
    shape = [len(source), 1, 1, 1]
    shape[dim] = side
    lines = image_NCHW.gather(dim, (source % side).view(shape).expand_as(image_NCHW))
    return lines * ((source >= 0) & (source < side)).view(shape)


def _hole(side: int, count: int, device: torch.device) -> torch.Tensor:
    """For each image which rows, or columns, are cut: (N, side). The middle is anywhere in the image."""
    length = round(HOLE * side)
    first = torch.randint(side + 1 - length % 2, (count, 1), device=device) - length // 2
    place = torch.arange(side, device=device)
    return (place >= first) & (place < first + length)
