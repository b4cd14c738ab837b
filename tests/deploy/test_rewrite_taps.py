"""Taps of a kernel that meet nothing but padding are cut away, and none else."""

import pytest
import torch
from torch import nn

from p2p.deploy.rewrite import (
    drop_dead_taps,
)
from p2p.models.unet import UNet


def kernels(network: nn.Module) -> list[int]:
    layers = [module for module in network.modules() if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d))]
    return [layer.kernel_size[0] for layer in layers]


def test_dead_taps_are_those_of_the_single_pixel():
    unet = UNet(image_size=32, width=4).eval()
    at_32 = drop_dead_taps(unet, torch.zeros(1, 3, 32, 32))
    assert kernels(at_32) == [4, 4, 4, 4, 2, 2, 4, 4, 4, 4]
    assert at_32.down[4][1].weight.shape == (32, 32, 2, 2)
    assert kernels(drop_dead_taps(unet, torch.zeros(1, 3, 64, 64))) == [4] * 10
    assert at_32.down[4][1].padding == at_32.up[0][1].padding == (0, 0)


# Kernel, stride, padding and the size of the input, then the kernel that is left: only taps that meet a pixel count.
CROPPED = [
    (nn.Conv2d, 4, 2, 1, (2, 2), (2, 2)),
    (nn.Conv2d, 4, 2, 1, (2, 6), (2, 4)),
    (nn.Conv2d, 3, 1, 1, (1, 5), (1, 3)),
    (nn.Conv2d, 5, 1, 2, (2, 1), (3, 1)),
    (nn.Conv2d, 4, 2, 1, (3, 3), (3, 3)),  # taps 1 to 3 are used: a padding of 0 gives the same single pixel
    (nn.Conv2d, 1, 5, 1, (1, 1), (1, 1)),  # sees nothing but padding
    (nn.ConvTranspose2d, 4, 2, 1, (1, 1), (2, 2)),
    (nn.ConvTranspose2d, 4, 2, 1, (1, 3), (2, 4)),
    (nn.ConvTranspose2d, 3, 1, 1, (1, 4), (1, 3)),
    (nn.ConvTranspose2d, 3, 2, 1, (1, 1), (1, 1)),
]


@pytest.mark.parametrize(("kind", "side", "stride", "padding", "size", "left"), CROPPED)
def test_a_cropped_kernel_gives_the_same(kind, side, stride, padding, size, left):
    torch.manual_seed(0)
    network = nn.Sequential(kind(5, 3, side, stride, padding)).double().eval()
    x = torch.randn(2, 5, *size, dtype=torch.float64)
    cropped = drop_dead_taps(network, x)
    assert cropped[0].kernel_size == tuple(cropped[0].weight.shape[2:]) == left
    assert torch.allclose(cropped(x), network(x), rtol=0, atol=1e-10)
    assert cropped(x).shape == network(x).shape


def test_a_layer_with_output_padding_keeps_its_taps():
    network = nn.Sequential(nn.ConvTranspose2d(2, 2, 3, stride=2, padding=1, output_padding=1)).eval()
    assert kernels(drop_dead_taps(network, torch.zeros(1, 2, 1, 1))) == [3]


def test_a_layer_that_sees_two_sizes_keeps_its_taps():
    layer = nn.Conv2d(2, 2, 4, stride=2, padding=1)
    network = nn.Sequential(layer, layer).eval()
    assert kernels(drop_dead_taps(network, torch.zeros(1, 2, 4, 4))) == [4]


def test_dead_taps_of_a_network_in_training_are_refused():
    with pytest.raises(AssertionError, match="eval mode"):
        drop_dead_taps(UNet(image_size=32, width=4), torch.zeros(1, 3, 32, 32))
