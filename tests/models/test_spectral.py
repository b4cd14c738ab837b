import copy

import pytest
import torch
from torch import nn

from p2p.models.patchgan import PatchGAN, PixelGAN
from p2p.models.spectral import SpectralConv2d


def test_it_is_torchs_spectral_norm():
    """Of several training steps: outputs, gradients and the vector; and in eval mode nothing moves."""
    torch.manual_seed(0)
    mine = SpectralConv2d(3, 6, 4, 2, padding=1).double()
    theirs = nn.Conv2d(3, 6, 4, 2, padding=1).double()
    theirs.load_state_dict({name: value for name, value in mine.state_dict().items() if name != "u"})
    theirs = nn.utils.spectral_norm(theirs)
    theirs.weight_u.copy_(mine.u)
    for _ in range(3):
        x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
        outputs = mine(x), theirs(x)
        torch.testing.assert_close(*outputs, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(mine.u, theirs.weight_u, rtol=1e-12, atol=1e-12)
        for output in outputs:
            output.square().sum().backward()
        torch.testing.assert_close(mine.weight.grad, theirs.weight_orig.grad, rtol=1e-10, atol=1e-10)
    before = mine.u.clone()
    mine.eval()(x)
    assert torch.equal(mine.u, before)


def test_after_many_steps_the_largest_singular_value_is_1():
    torch.manual_seed(0)
    layer = SpectralConv2d(4, 8, 3, bias=False).double()
    with torch.no_grad():
        for _ in range(200):
            layer(torch.zeros(1, 4, 3, 3, dtype=torch.float64))
        # The outputs of all unit inputs of one window: the matrix itself.
        matrix = layer(torch.eye(36, dtype=torch.float64).view(36, 4, 3, 3)).flatten(1)
    assert torch.linalg.matrix_norm(matrix, 2).item() == pytest.approx(1.0, rel=1e-6)


@pytest.mark.parametrize("kind", [PatchGAN, PixelGAN])
def test_of_a_discriminator_every_convolution_has_it_or_none(kind):
    for spectral_norm in (True, False):
        network = kind(width=4, norm="none", spectral_norm=spectral_norm)
        convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
        assert {isinstance(module, SpectralConv2d) for module in convolutions} == {spectral_norm}
    larger = copy.deepcopy(kind(width=4, norm="none", spectral_norm=True))
    images = torch.rand(2, 1, 3, 32, 32)
    before = larger.eval()(*images)
    with torch.no_grad():
        for module in larger.modules():
            if isinstance(module, SpectralConv2d):
                module.weight *= 10.0
                module.bias *= 1.0
    torch.testing.assert_close(larger(*images), before)
