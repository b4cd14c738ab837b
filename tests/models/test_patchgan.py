import pytest
import torch

from p2p.models.patchgan import PatchGAN


def test_the_reference_has_2769_k_parameters_and_30x30_logits():
    network = PatchGAN()
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(2.769, abs=1e-3)
    images = torch.zeros(1, 3, 256, 256)
    assert network(images, images).shape == (1, 1, 30, 30)


@pytest.mark.parametrize(("layers", "field"), [(1, 16), (2, 34), (3, 70), (5, 286)])
def test_a_logit_sees_as_many_pixels_as_the_paper_says(layers, field):
    """By gradient: which pixels does the middle logit depend on?"""
    torch.manual_seed(0)
    network = PatchGAN(input_channels=1, target_channels=1, layers=layers, width=2, norm="none").double()
    side = 2 * field + 2
    image = torch.rand(1, 1, side, side, dtype=torch.float64, requires_grad=True)
    logits = network(torch.zeros_like(image), image)
    middle = logits.shape[-1] // 2
    logits[0, 0, middle, middle].backward()
    rows = image.grad[0, 0].abs().sum(dim=1).nonzero()
    assert rows.max() - rows.min() + 1 == field


def test_conditional_or_not():
    a, b = torch.rand(2, 1, 3, 64, 64)
    conditional, unconditional = PatchGAN(width=4), PatchGAN(width=4, conditional=False)
    assert conditional[0].in_channels == 6
    assert unconditional[0].in_channels == 3
    assert not torch.equal(conditional.eval()(a, b), conditional(b, b))
    assert torch.equal(unconditional.eval()(a, b), unconditional(b, b))
