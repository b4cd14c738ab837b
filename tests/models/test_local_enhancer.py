"""pix2pixHD's enhancer against one that is written down by functions, and against its formula of parameters."""

import pytest
import torch
from torch.nn import functional as F

from p2p.models.init import initialize
from p2p.models.local_enhancer import LocalEnhancer
from tests.models.test_multi_scale import mean_of_neighbours
from tests.models.test_resnet import of_pix2pixhd


def test_parameters():
    """ngf=32: a GlobalGenerator of 64 without its last convolution, which ends in 64 channels as `enter` does."""
    with torch.device("meta"):
        network = LocalEnhancer()
    enter = 49 * 3 * 32 + 32 + 9 * 32 * 64 + 64
    leave = 3 * 2 * (9 * 64 * 64 + 64) + 9 * 64 * 32 + 32 + 49 * 32 * 3 + 3
    coarse = of_pix2pixhd(3) - (49 * 64 * 3 + 3)
    assert sum(p.numel() for p in network.parameters()) == coarse + enter + leave == 182_701_827
    assert sum(p.numel() for p in network.coarse.parameters()) == coarse


def functional(weights, x):
    """One downsampling and one block in the coarse part, one block in the fine one; weights in their order."""

    def layer(y, side, stride=1, transposed=False, last=False):
        weight, bias = next(weights), next(weights)
        if transposed:
            y = F.conv_transpose2d(y, weight, bias, 2, padding=1, output_padding=1)
        elif stride == 2:
            y = F.conv2d(y, weight, bias, 2, padding=1)
        else:
            y = F.conv2d(F.pad(y, [side // 2] * 4, mode="reflect"), weight, bias)
        return y if last else (y - y.mean((2, 3), True)) / (y.var((2, 3), correction=0, keepdim=True) + 1e-5).sqrt()

    def block(y):
        return y + layer(layer(y, 3).relu(), 3)

    coarse = layer(layer(mean_of_neighbours(x), 7).relu(), 3, 2).relu()
    coarse = layer(block(coarse), 3, transposed=True).relu()
    fine = layer(layer(x, 7).relu(), 3, 2).relu()
    return layer(layer(block(coarse + fine), 3, transposed=True).relu(), 7, last=True).tanh()


def test_forward_equals_the_functional_form():
    torch.manual_seed(0)
    network = LocalEnhancer(in_channels=2, image_size=16, width=2, downsamplings=1, blocks=1, local_blocks=1).double()
    initialize(network, gain=0.3)
    weights, x = iter(network.parameters()), torch.rand(2, 2, 16, 24, dtype=torch.float64)
    torch.testing.assert_close(network(x), functional(weights, x), rtol=1e-9, atol=1e-12)
    assert next(weights, None) is None
    assert network.stride == 4


def test_sides_that_do_not_suit():
    with pytest.raises(
        ValueError, match=r"image_size=1000 does not suit a LocalEnhancer.*multiple of 32, 64 at least: use 992 or"
    ):
        LocalEnhancer(image_size=1000)
