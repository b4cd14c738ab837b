import pytest
import torch
from torch import nn
from torch.nn import functional as F

from p2p.models.resize import ResizeConv2d
from p2p.models.unet import UNet


@pytest.mark.parametrize("bias", [True, False])
def test_it_is_torchs_nearest_neighbour_and_convolution(bias):
    torch.manual_seed(0)
    layer = ResizeConv2d(3, 5, bias=bias).double()
    x = torch.randn(2, 3, 6, 3, dtype=torch.float64, requires_grad=True)
    expected = F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), layer.weight, layer.bias, padding=1)
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-12)
    weights = torch.randn_like(expected)
    for mine, theirs in zip(
        torch.autograd.grad((layer(x) * weights).sum(), [x, *layer.parameters()]),
        torch.autograd.grad((expected * weights).sum(), [x, *layer.parameters()]),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)


def test_a_flat_area_has_no_grid():
    """Of a transposed convolution it has one."""
    torch.manual_seed(0)
    flat = torch.ones(1, 4, 8, 8)
    for layer, most in ((ResizeConv2d(4, 2, bias=True), 1e-6), (nn.ConvTranspose2d(4, 2, 4, 2, 1), None)):
        inner = layer(flat)[..., 2:-2, 2:-2]
        grid = (inner[..., ::2, :] - inner[..., 1::2, :]).abs().max()
        assert grid <= most if most else grid > 0.01


def test_the_last_layers_of_a_unet_resize():
    network = UNet(image_size=64, width=4, resize_last=2)
    assert [isinstance(up[1], ResizeConv2d) for up in network.up] == [False] * 4 + [True] * 2
    assert network(torch.rand(1, 3, 64, 64)).shape == (1, 3, 64, 64)
    assert [up[1].bias is not None for up in network.up[-2:]] == [False, True]  # behind no norm
    plain = UNet(image_size=64, width=4)
    assert not any(isinstance(module, ResizeConv2d) for module in plain.modules())
    for count in (-1, 7):
        with pytest.raises(ValueError, match=rf"^generator\.resize_last={count} is out of range: use 0 to 6"):
            UNet(image_size=64, width=4, resize_last=count)
