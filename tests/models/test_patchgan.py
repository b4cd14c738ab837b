import pytest
import torch

from p2p.models.patchgan import PatchGAN, PixelGAN


def test_the_reference_has_2769_k_parameters_and_30x30_logits():
    network = PatchGAN()
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(2.769, abs=1e-3)
    images = torch.zeros(1, 3, 256, 256)
    assert network(images, images).shape == (1, 1, 30, 30)


@pytest.mark.parametrize(
    ("layers", "parameters", "side"),
    [  # at 256x256; weights, then 2 for each normed channel and 1 for each bias
        (1, 16 * (6 * 64 + 64 * 128 + 128) + 2 * 128 + 64 + 1, 126),
        (5, 16 * (6 * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 2 * 512 * 512 + 512) + 2 * 1920 + 64 + 1, 6),
    ],
)
def test_other_depths(layers, parameters, side):
    network = PatchGAN(layers=layers)
    assert sum(p.numel() for p in network.parameters()) == parameters
    images = torch.zeros(1, 3, 256, 256)
    assert network(images, images).shape == (1, 1, side, side)


@pytest.mark.parametrize("kind", [PatchGAN, PixelGAN])
def test_no_width(kind):
    with pytest.raises(ValueError, match=r"^discriminator\.width=0 is too small: use 1 or more$"):
        kind(width=0)


def test_the_pixel_discriminator():
    network = PixelGAN()
    assert sum(p.numel() for p in network.parameters()) == 6 * 64 + 64 + 64 * 128 + 2 * 128 + 128  # the reference's
    with_biases = PixelGAN(norm="instance")
    assert sum(p.numel() for p in with_biases.parameters()) == 6 * 64 + 64 + 64 * 128 + 128 + 128 + 1
    a, b = torch.rand(2, 2, 3, 8, 8)
    assert network(a, b).shape == (2, 1, 8, 8)
    shuffled = torch.randperm(64)
    a2, b2 = (image.flatten(2)[..., shuffled].view_as(image) for image in (a, b))
    torch.testing.assert_close(network(a2, b2), network(a, b).flatten(2)[..., shuffled].view(2, 1, 8, 8))
    unconditional = PixelGAN(target_channels=5, conditional=False)
    assert unconditional(a, torch.rand(2, 5, 8, 8)).shape == (2, 1, 8, 8)


@pytest.mark.parametrize("layers", [1, 3, 5])
def test_the_smallest_image(layers):
    network = PatchGAN(layers=layers, width=1)
    image = torch.rand(1, 3, 3 * 2**layers, 3 * 2**layers)
    assert network(image, image).shape == (1, 1, 1, 1)
    image = image[..., 1:]
    with pytest.raises(ValueError, match=rf"layers={layers} needs images of {3 * 2**layers} pixels and got"):
        network(image, image)
    with pytest.raises(ValueError, match=r"layers=0 is too small"):
        PatchGAN(layers=0)


@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
@pytest.mark.parametrize("kind", [PatchGAN, PixelGAN])
def test_norms(kind, norm):
    network = kind(width=4, norm=norm, input_channels=1, target_channels=4)
    expected = {"batch": torch.nn.BatchNorm2d, "instance": torch.nn.InstanceNorm2d}.get(norm)
    found = {type(m) for m in network if isinstance(m, (torch.nn.BatchNorm2d, torch.nn.InstanceNorm2d))}
    assert found == ({expected} if expected else set())
    assert network(torch.rand(2, 1, 32, 32), torch.rand(2, 4, 32, 32)).isfinite().all()


@pytest.mark.parametrize(("layers", "field"), [(1, 16), (2, 34), (3, 70), (4, 142), (5, 286)])
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
