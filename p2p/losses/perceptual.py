"""Perceptual loss: the difference between VGG19's features of output and target."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from p2p.system.folders import from_home

# Widths of VGG19's convolutions up to relu5_1 (Simonyan and Zisserman 2015, E); between the lists the side is halved.
LAYERS = [[64, 64], [128, 128], [256, 256, 256, 256], [512, 512, 512, 512], [512]]
WEIGHTS = [1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0]  # of relu1_1, relu2_1, relu3_1, relu4_1, relu5_1


class Perceptual(nn.Module):
    """The mean absolute difference of VGG19's activations (`VGGLoss` in the code of pix2pixHD, Wang et al. 2018).

    As there, images go in as they are, in [-1, 1]; grey ones as three equal channels. VGG19 was trained on ImageNet,
    and its weights, 548 MB, are fetched when they are used first.

    Args:
        weight: against the adversarial loss; 10 in pix2pixHD; None stands for model.lambda_l1.
        weights: a file with torchvision's state dict of VGG19, for a machine without network; None fetches it.

    Raises:
        ValueError: the weights cannot be fetched, or the file is another.
    """

    def __init__(self, *, weight: float | None = 10.0, weights: str | None = None):
        super().__init__()
        self.weight = weight
        layers: list[nn.Module] = []
        for stage, widths in enumerate(LAYERS):
            into = LAYERS[stage - 1][-1] if stage else 3
            layers += [nn.MaxPool2d(2)] if stage else []
            for before, width in pairwise([into, *widths]):
                layers += [nn.Conv2d(before, width, 3, padding=1, device="meta"), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        found = _fetched() if weights is None else _read(from_home(weights))
        try:
            own = {name: found[f"features.{name}"].float() for name in self.features.state_dict()}
            self.features.load_state_dict(own, assign=True)
        except (KeyError, AttributeError, RuntimeError) as error:
            raise ValueError(
                f"losses.perceptual.weights={weights} holds no VGG19 of torchvision: use its file"
            ) from error
        self.requires_grad_(False).to(memory_format=torch.channels_last)  # as images are on a GPU

    def forward(self, fake_NCHW: torch.Tensor, target_NCHW: torch.Tensor, input_NCHW: torch.Tensor) -> torch.Tensor:
        """Their distance, a scalar, float32.

        Raises:
            ValueError: images of neither 1 nor 3 channels.
        """
        fake = self._activations(rgb(fake_NCHW, group="losses"))
        with torch.no_grad():
            target = self._activations(rgb(target_NCHW, group="losses"))
        pairs = zip(WEIGHTS, fake, target, strict=True)
        return torch.stack([share * F.l1_loss(seen.float(), wanted.float()) for share, seen, wanted in pairs]).sum()

    def _activations(self, x_NCHW: torch.Tensor) -> list[torch.Tensor]:
        """What the first ReLU of each stage gives."""
        found, first = [], True
        for layer in self.features:
            x_NCHW = layer(x_NCHW)
            if isinstance(layer, nn.MaxPool2d):
                first = True
            elif first and isinstance(layer, nn.ReLU):
                found.append(x_NCHW)
                first = False
        return found


def _fetched() -> dict[str, torch.Tensor]:
    from torchvision.models import VGG19_Weights

    try:
        return VGG19_Weights.IMAGENET1K_V1.get_state_dict(progress=True, check_hash=True)
    except OSError as error:  # what urllib raises without network
        raise ValueError(
            f"the pretrained network of losses.perceptual cannot be fetched ({error}): connect this machine once, name"
            " its file by losses.perceptual.weights, or leave perceptual out of losses"
        ) from error


def _read(path: Path) -> dict[str, torch.Tensor]:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # whatever a foreign file, such as a .safetensors, makes torch say
        raise ValueError(
            f"losses.perceptual.weights={path} cannot be read: use the file of torchvision's VGG19, such as"
            " vgg19-dcbb9e9d.pth"
        ) from error


def rgb(images_NCHW: torch.Tensor, *, group: str) -> torch.Tensor:
    """Grey to three equal channels, for the perceptual option of a group.

    Raises:
        ValueError: it is neither grey nor RGB.
    """
    if images_NCHW.shape[1] not in (1, 3):
        raise ValueError(
            f"{group}.perceptual looks at images of 1 or 3 channels, and these have {images_NCHW.shape[1]}: leave"
            f" perceptual out of {group}"
        )
    return images_NCHW.expand(-1, 3, -1, -1)
