import pytest
import torch
from torch import nn
from torch.nn import functional as F

from p2p.models.init import initialize
from p2p.models.unet import UNet, depth_for


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(("size", "millions", "dropouts"), [(256, 54.414, 3), (128, 41.829, 2)])
def test_parameter_counts_and_dropout_of_the_reference(size, millions, dropouts):
    network = UNet(image_size=size)
    assert parameters(network) / 1e6 == pytest.approx(millions, abs=1e-3)
    placed = [index for index, up in enumerate(network.up) if any(isinstance(m, nn.Dropout) for m in up)]
    assert placed == list(range(1, dropouts + 1))


def test_depth_follows_the_image_size():
    assert [depth_for(size) for size in (32, 64, 96, 128, 256, 512, 768)] == [5, 6, 5, 7, 8, 8, 8]
    for size, near in ((100, "96 or 128"), (16, "32 or 64"), (0, "32 or 64")):
        with pytest.raises(ValueError, match=f"image_size={size} .* use {near}"):
            depth_for(size)


def nested(network: UNet, x: torch.Tensor, level: int = 0) -> torch.Tensor:
    """The same weights in the reference's recursive form: skip and inner block, concatenated."""
    down, up = network.down[level], network.up[len(network.up) - 1 - level]
    conv, norm = down[1], down[2]
    inner = conv(x if level == 0 else F.leaky_relu(x, 0.2))
    if isinstance(norm, nn.BatchNorm2d):
        inner = F.batch_norm(inner, None, None, norm.weight, norm.bias, training=True)
    if level + 1 < len(network.down):
        inner = nested(network, inner, level + 1)
    conv, norm = up[1], up[2]
    out = F.conv_transpose2d(F.relu(inner), conv.weight, conv.bias, stride=2, padding=1)
    if level == 0:
        return torch.tanh(out)
    out = F.batch_norm(out, None, None, norm.weight, norm.bias, training=True)
    # The reference's skip carries the activated tensor, since its LeakyReLU works in place.
    return torch.cat([F.leaky_relu(x, 0.2), out], dim=1)


@pytest.mark.parametrize("size", [32, 128])
def test_forward_equals_the_nested_form(size):
    torch.manual_seed(0)
    network = UNet(image_size=size, width=4, in_channels=2, out_channels=5, dropout=0.0).double()
    initialize(network, std=0.2)
    x = torch.rand(3, 2, size, 2 * size, dtype=torch.float64) * 2 - 1
    out = network(x)
    assert out.shape == (3, 5, size, 2 * size)
    torch.testing.assert_close(out, nested(network, x), rtol=1e-9, atol=1e-12)


def test_biases_stand_where_the_reference_has_them():
    """Under batch norm in the last layer alone: neither the first nor the innermost convolution has one."""
    network = UNet(image_size=64, width=4)
    with_bias = [block for block in [*network.down, *network.up] if block[1].bias is not None]
    assert with_bias == [network.up[-1]]
    for norm in ("instance", "none"):
        assert all(block[1].bias is not None for block in UNet(image_size=64, width=4, norm=norm).down)
    with pytest.raises(ValueError, match="norm=group"):
        UNet(image_size=64, norm="group")


def test_initialization():
    torch.manual_seed(0)
    network = UNet(image_size=32, width=32)
    initialize(network)
    conv, norm = network.down[2][1], network.down[2][2]
    assert conv.weight.mean().item() == pytest.approx(0, abs=1e-3)
    assert conv.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert norm.weight.mean().item() == pytest.approx(1, abs=0.01)
    assert norm.weight.std().item() == pytest.approx(0.02, rel=0.2)
    assert not norm.bias.any()
    assert not network.up[-1][1].bias.any()
