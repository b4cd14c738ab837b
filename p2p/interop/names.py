"""What pytorch-CycleGAN-and-pix2pix, the reference, calls its layers, in the keys of its state dicts."""

from torch import nn

from p2p.models.patchgan import PatchGAN, PixelGAN
from p2p.models.resnet import Block, ResNet
from p2p.models.unet import UNet

OUTERMOST = "model.model"  # block of a U-Net; each block holds the next one


def names(network: nn.Module) -> list[tuple[str, str]]:
    """Convolutions and norms: their names here and in the reference.

    Raises:
        ValueError: the reference has no such network.
    """
    if isinstance(network, UNet) and network.skips:
        return _unet_names(len(network.down))
    if isinstance(network, ResNet) and network.stride == 4:
        return _resnet_names(network)
    if isinstance(network, PatchGAN):
        return _patchgan_names(sum(isinstance(module, nn.Conv2d) for module in network) - 2)
    if isinstance(network, PixelGAN):
        return [(str(index), f"net.{index}") for index in (0, 2, 3, 5)]
    raise ValueError(f"pytorch-CycleGAN-and-pix2pix has no counterpart of a {type(network).__name__}")


def _unet_names(depth: int) -> list[tuple[str, str]]:
    """Each block is down convolution, norm, next block, up convolution, norm; the first and the last are shorter."""
    pairs = [("down.0.1", f"{OUTERMOST}.0"), (f"up.{depth - 1}.1", f"{OUTERMOST}.3")]
    block = OUTERMOST + ".1.model"
    for level in range(1, depth):
        innermost, up = level == depth - 1, f"up.{depth - 1 - level}"
        pairs += [] if innermost else [(f"down.{level}.2", f"{block}.2")]
        last = 3 if innermost else 5
        pairs += [(f"down.{level}.1", f"{block}.1"), (f"{up}.1", f"{block}.{last}"), (f"{up}.2", f"{block}.{last + 1}")]
        block += ".3.model"
    return pairs


def _resnet_names(network: ResNet) -> list[tuple[str, str]]:
    pairs = []
    for index, module in enumerate(network):
        if isinstance(module, Block):
            # The reference has no module in the place of a dropout that is turned off.
            shift = 0 if any(isinstance(layer, nn.Dropout) for layer in module) else 1
            block = f"model.{index}.conv_block"
            pairs += [(f"{index}.{layer}", f"{block}.{layer}") for layer in (1, 2)]
            pairs += [(f"{index}.{layer}", f"{block}.{layer - shift}") for layer in (6, 7)]
        else:
            pairs.append((str(index), f"model.{index}"))
    return pairs


def _patchgan_names(layers: int) -> list[tuple[str, str]]:
    """Here every convolution is one of three modules; in the reference the first has no norm behind it."""
    pairs = [("0", "model.0")]
    for layer in range(1, layers + 1):
        pairs += [(f"{3 * layer}", f"model.{3 * layer - 1}"), (f"{3 * layer + 1}", f"model.{3 * layer}")]
    return [*pairs, (f"{3 * layers + 3}", f"model.{3 * layers + 2}")]
