"""Weights of the authors' PyTorch implementation, pytorch-CycleGAN-and-pix2pix, in and out.

Its `<epoch>_net_G.pth` and `<epoch>_net_D.pth` are state dicts without a word on the network. Keys and shapes say
enough: U-Net or ResNet, depth, width, norm, channels; of dropout, which has no weights, only a ResNet's shows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from p2p.image_size import ImageSize, height_and_width, shown, suggestion
from p2p.interop.names import OUTERMOST, names
from p2p.models.lab import LabUNet
from p2p.models.patchgan import PatchGAN, PixelGAN
from p2p.models.resnet import ResNet
from p2p.models.spectral import SpectralConv2d
from p2p.models.unet import MAX_DEPTH, MIN_DEPTH, UNet

Weights = dict[str, torch.Tensor]
LEAVES = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


class Architecture(NamedTuple):
    """A network of this project that takes a file's weights.

    Attributes:
        network: its class.
        arguments: its keyword arguments, without dropout unless the file tells it.
        name: as the reference calls it.
        stride: the side of its images in pixels is a multiple of it; 1 for a discriminator.
    """

    network: type[nn.Module]
    arguments: dict[str, Any]
    name: str
    stride: int = 1

    @property
    def config(self) -> dict[str, object]:
        """The node that Hydra makes the network from."""
        return {"_target_": f"{self.network.__module__}.{self.network.__name__}", **self.arguments}

    def check_image_size(self, image_size: ImageSize, path: Path) -> None:
        """Raise a ValueError if images of that side, or [height, width], do not suit the network of the file."""
        if any(side % self.stride for side in height_and_width(image_size)):
            raise ValueError(
                f"{path} is a {self}, whose images have a side that is a multiple of {self.stride}:"
                f" image_size={shown(image_size)} is none, use"
                f" {suggestion(image_size, multiple=self.stride, least=self.stride)}"
            )

    def __str__(self) -> str:
        """For the user's eyes."""
        into, out, width, norm = (self.arguments.get(key) for key in ("in_channels", "out_channels", "width", "norm"))
        what = ", grey to RGB by CIE Lab" if self.network is LabUNet else f", {into} to {out} channels" if into else ""
        return f"{self.name}, width {width}, norm {norm}{what}"


def read(path: Path) -> Weights:
    """The tensors of a .pth file: float32, on the CPU, without the `module.` that DataParallel puts before names.

    Raises:
        ValueError: no such file, or no state dict.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {path}: give the path of a .pth file of pytorch-CycleGAN-and-pix2pix")
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)  # without mmap: old files are no archives
    except Exception as error:  # whatever a foreign or damaged file makes the unpickler say
        raise ValueError(f"{path} is not a state dict of pytorch-CycleGAN-and-pix2pix, or is damaged") from error
    if not isinstance(weights, dict) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise ValueError(
            f"{path} is not a state dict of pytorch-CycleGAN-and-pix2pix: its _net_G.pth and _net_D.pth files are"
        )
    floats = {key: value.float() if value.is_floating_point() else value for key, value in weights.items()}
    return {key.removeprefix("module."): value for key, value in floats.items()}


def recognize_generator(weights: Weights, path: Path) -> Architecture:
    """The U-Net or ResNet that the weights are of.

    Raises:
        ValueError: they are of neither.
    """
    try:
        architecture = _unet(weights, path) if f"{OUTERMOST}.0.weight" in weights else _resnet(weights)
    except (KeyError, IndexError) as error:
        raise ValueError(
            f"{path} holds no generator of pytorch-CycleGAN-and-pix2pix, as its latest_net_G.pth does"
        ) from error
    return _checked(architecture, weights, path)


def as_colorization(found: Architecture) -> Architecture:
    """Of a U-Net from 1 channel to 2, which is what `--model colorization` trains, the network from grey to RGB.

    Any other network stays as it is.
    """
    channels = (found.arguments["in_channels"], found.arguments["out_channels"])
    if found.network is not UNet or channels != (1, 2):
        return found
    return found._replace(network=LabUNet, arguments=found.arguments | {"out_channels": 3})


def recognize_discriminator(weights: Weights, path: Path, *, input_channels: int, target_channels: int) -> Architecture:
    """The PatchGAN or PixelGAN that the weights are of; unconditional if it sees only as many channels as a target has.

    Raises:
        ValueError: they are of neither, or of one for other channels.
    """
    layers = sum(tensor.ndim == 4 for tensor in weights.values()) - 2
    pixel = "net.0.weight" in weights
    first = weights.get("net.0.weight" if pixel else "model.0.weight")
    if layers < 1 or first is None or first.ndim != 4:
        raise ValueError(f"{path} holds no discriminator of pytorch-CycleGAN-and-pix2pix, as its latest_net_D.pth does")
    width, channels = first.shape[:2]
    if channels not in (target_channels, input_channels + target_channels):
        raise ValueError(
            f"{path} judges {channels} channels, which are not the {input_channels} + {target_channels} of input and"
            " target: leave it out, or give the one that belongs to the generator"
        )
    prefix = "net" if pixel else "model"
    arguments = {
        "input_channels": input_channels,
        "target_channels": target_channels,
        "width": width,
        "norm": _norm(weights, convolution=f"{prefix}.2", norm=f"{prefix}.3"),
        "conditional": channels != target_channels,
    }
    if pixel:
        return _checked(Architecture(PixelGAN, arguments, "PixelGAN"), weights, path)
    arguments["layers"] = layers
    return _checked(Architecture(PatchGAN, arguments, f"PatchGAN of {layers} layers"), weights, path)


def load(network: nn.Module, weights: Weights, path: Path) -> None:
    """Fill a network with the weights of the reference's counterpart, in place.

    The running averages that an InstanceNorm of old files has are left out, as in the reference. Without any norm
    the reference has no biases between the first layer and the last: here they become zero.

    Raises:
        ValueError: they are of another network.
    """
    own, state, left = network.state_dict(), {}, set(weights)
    absent = ("num_batches_tracked",) if _normed(network) else ("bias",)  # the former is younger than some files
    for ours, theirs in names(network):
        for leaf in LEAVES:
            mine, other = f"{ours}.{leaf}", f"{theirs}.{leaf}"
            if mine in own and (other in weights or leaf in absent):
                state[mine] = weights.get(other, torch.zeros_like(own[mine]))
            if mine in own or leaf not in ("weight", "bias"):
                left.discard(other)
    try:
        if left:
            raise RuntimeError(f"not known: {sorted(left)}")
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit the {type(network).__name__} it is loaded into") from error


def to_reference(network: nn.Module) -> Weights:
    """The state dict that the reference's counterpart loads with strict=True.

    Raises:
        ValueError: the reference has no such network.
    """
    if not _normed(network):
        raise ValueError(
            f"a {type(network).__name__} with norm=none has biases that pytorch-CycleGAN-and-pix2pix does not have"
        )
    if any(isinstance(module, SpectralConv2d) for module in network.modules()):
        raise ValueError(f"pytorch-CycleGAN-and-pix2pix has no {type(network).__name__} with spectral_norm=true")
    own = network.state_dict()
    pairs = [(f"{ours}.{leaf}", f"{theirs}.{leaf}") for ours, theirs in names(network) for leaf in LEAVES]
    weights = {theirs: own[ours] for ours, theirs in pairs if ours in own}
    assert len(weights) == len(own)
    return weights


def _unet(weights: Weights, path: Path) -> Architecture:
    depth, block = 1, OUTERMOST + ".1.model"
    while f"{block}.1.weight" in weights:
        depth, block = depth + 1, block + ".3.model"
    if not MIN_DEPTH <= depth <= MAX_DEPTH:
        raise ValueError(f"{path} holds a U-Net of {depth} downsamplings: only {MIN_DEPTH} to {MAX_DEPTH} are known")
    first, last = weights[f"{OUTERMOST}.0.weight"], weights[f"{OUTERMOST}.3.weight"]
    arguments = {
        "in_channels": first.shape[1],
        "out_channels": last.shape[1],  # of a transposed convolution
        "image_size": 2**depth,
        "width": first.shape[0],
        "norm": _norm(weights, convolution=f"{OUTERMOST}.1.model.1", norm=f"{OUTERMOST}.1.model.2"),
    }
    return Architecture(UNet, arguments, f"unet_{2**depth}", stride=2**depth)


def _resnet(weights: Weights) -> Architecture:
    first = weights["model.1.weight"]
    blocks = sum(key.endswith(".conv_block.1.weight") for key in weights)
    last = weights[f"model.{blocks + 17}.weight"]
    # With dropout the second convolution of a block is its layer 6, else 5.
    dropout = weights.get("model.10.conv_block.6.weight", first[:, 0, 0, 0]).ndim == 4
    arguments = {
        "in_channels": first.shape[1],
        "out_channels": last.shape[0],
        "image_size": 256,
        "blocks": blocks,
        "width": first.shape[0],
        "norm": _norm(weights, convolution="model.1", norm="model.2"),
        "dropout": 0.5 if dropout else 0.0,
    }
    return Architecture(ResNet, arguments, f"resnet_{blocks}blocks", stride=4)


def _norm(weights: Weights, *, convolution: str, norm: str) -> str:
    """Only a BatchNorm has weights, and only with an InstanceNorm has the convolution before it a bias."""
    if f"{norm}.weight" in weights:
        return "batch"
    return "instance" if f"{convolution}.bias" in weights else "none"


def _checked(architecture: Architecture, weights: Weights, path: Path) -> Architecture:
    """Load the weights for a trial, without their values."""
    with torch.device("meta"):
        network = architecture.network(**architecture.arguments)
    try:
        load(network, {key: tensor.to("meta") for key, tensor in weights.items()}, path)
    except ValueError as error:
        raise ValueError(f"{path} looks like a {architecture}, but not all of its weights fit") from error
    return architecture


def _normed(network: nn.Module) -> bool:
    return any(isinstance(module, (nn.BatchNorm2d, nn.InstanceNorm2d)) for module in network.modules())
