import pytest
import torch
from torch import nn

from p2p.models.init import initialize


def layers():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(64, 128, 4), nn.BatchNorm2d(4096), nn.ConvTranspose2d(64, 128, 4), nn.PReLU())


@pytest.mark.parametrize(
    ("init", "gain", "conv_std", "deconv_std"),
    [  # the fan of torch's weights (a, b, 4, 4) is 16 * b in and 16 * a out
        ("normal", 0.02, 0.02, 0.02),
        ("normal", 0.3, 0.3, 0.3),
        ("xavier", 0.02, 0.02 * (2 / (16 * (64 + 128))) ** 0.5, 0.02 * (2 / (16 * (64 + 128))) ** 0.5),
        ("kaiming", 0.02, (2 / (16 * 64)) ** 0.5, (2 / (16 * 128)) ** 0.5),
    ],
)
def test_spread(init, gain, conv_std, deconv_std):
    network = layers()
    initialize(network, init=init, gain=gain)
    conv, norm, deconv, activation = network
    for module, std in ((conv, conv_std), (deconv, deconv_std)):
        assert module.weight.std().item() == pytest.approx(std, rel=0.02)
        assert abs(module.weight.mean().item()) < 0.02 * std
        assert not module.bias.any()
    assert norm.weight.mean().item() == pytest.approx(1, abs=gain / 10)
    assert norm.weight.std().item() == pytest.approx(gain, rel=0.1)
    assert not norm.bias.any()
    assert activation.weight.item() == 0.25  # torch's own


def test_orthogonal():
    network = layers()
    initialize(network, init="orthogonal", gain=0.5)
    for module in (network[0], network[2]):
        rows = module.weight.flatten(1)
        torch.testing.assert_close(rows @ rows.T, 0.25 * torch.eye(len(rows)), rtol=0, atol=1e-5)


def test_another_name():
    with pytest.raises(ValueError, match=r"model\.init=zeros is not known: use normal, xavier"):
        initialize(layers(), init="zeros")
