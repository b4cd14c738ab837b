import itertools

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


@pytest.mark.parametrize(("size", "depth"), [(16, 4), (36, 2), (2, 1), (512, 9), (64, 3)])
@pytest.mark.parametrize("skips", [True, False])
def test_a_chosen_depth(size, depth, skips):
    network = UNet(image_size=size, depth=depth, width=1, in_channels=1, out_channels=7, skips=skips)
    assert (len(network.down), len(network.up), network.stride) == (depth, depth, 2**depth)
    bottleneck = torch.rand(1, 1, size, size)
    for down in network.down:
        bottleneck = down(bottleneck)
    assert bottleneck.shape[-2:] == (size >> depth, size >> depth)
    assert network(torch.rand(1, 1, size, size)).shape == (1, 7, size, size)


def test_a_depth_that_the_side_does_not_allow():
    for size, depth in ((36, 3), (33, 1), (0, 1)):
        with pytest.raises(ValueError, match=f"image_size={size} does not allow: use a multiple of {2**depth} "):
            UNet(image_size=size, depth=depth)
    with pytest.raises(ValueError, match=r"generator\.depth=0 is too small"):
        UNet(image_size=64, depth=0)


def test_the_encoder_decoder_has_the_layers_of_the_papers_appendix():
    """C64-C128-C256-C512-C512-C512-C512-C512, then CD512-CD512-CD512-C512-C256-C128-C64 (6.1.1), then 3 channels."""
    encoder = [3, 64, 128, 256, 512, 512, 512, 512, 512]
    decoder = [512, 512, 512, 512, 512, 256, 128, 64, 3]
    weights = sum(16 * a * b for row in (encoder, decoder) for a, b in itertools.pairwise(row))
    norms = 2 * sum(encoder[2:-1]) + 2 * sum(decoder[1:-1])
    biases = decoder[-1]  # of the last layer alone, as in the reference
    network = UNet(image_size=256, skips=False)
    assert parameters(network) == weights + norms + biases
    assert [m.p for m in network.modules() if isinstance(m, nn.Dropout)] == [0.5] * 3


def test_the_encoder_decoder_is_a_chain():
    torch.manual_seed(0)
    network = UNet(image_size=32, width=4, skips=False, dropout=0.0, norm="none").double()
    x = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    expected = network.down[0][1](x)
    for down in network.down[1:]:
        expected = down[1](F.leaky_relu(expected, 0.2))
    for up in network.up:
        expected = up[1](F.relu(expected))
    torch.testing.assert_close(network(x), torch.tanh(expected))


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
    initialize(network, gain=0.2)
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


def test_dropout_can_be_turned_off():
    x = torch.rand(1, 3, 128, 128)
    for dropout, same in ((0.0, True), (0.5, False)):
        network = UNet(image_size=128, width=4, dropout=dropout)
        assert torch.equal(network(x), network(x)) == same


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


def test_no_width():
    with pytest.raises(ValueError, match=r"^generator\.width=-4 is too small: use 1 or more$"):
        UNet(image_size=64, width=-4)
