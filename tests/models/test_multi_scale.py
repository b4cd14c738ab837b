"""The discriminator of pix2pixHD against one that is written down by functions, from its weights in their order."""

import pytest
import torch
from torch.nn import functional as F

from p2p.models.init import initialize
from p2p.models.multi_scale import MultiScale
from p2p.models.patchgan import PatchGAN, PixelGAN
from p2p.models.spectral import SpectralConv2d


def mean_of_neighbours(x):
    """3x3 means at every other pixel, by division by the number of pixels that there are."""
    ones = torch.ones(x.shape[1], 1, 3, 3, dtype=x.dtype)
    sums, counts = (F.conv2d(y, ones, stride=2, padding=1, groups=x.shape[1]) for y in (x, torch.ones_like(x)))
    return sums / counts


def judged(weights, x):
    """Activations and logits of a PatchGAN of 3 layers with instance norm."""
    seen = []
    for layer, stride in enumerate((2, 2, 2, 1)):
        x = F.conv2d(x, next(weights), next(weights), stride, padding=1)
        if layer:
            mean, variance = x.mean((2, 3), keepdim=True), x.var((2, 3), correction=0, keepdim=True)
            x = (x - mean) / (variance + 1e-5).sqrt()
        x = torch.where(x > 0, x, 0.2 * x)
        seen.append(x)
    return [*seen, F.conv2d(x, next(weights), next(weights), padding=1)]


def test_every_scale_is_a_patchgan_on_the_pyramid():
    torch.manual_seed(0)
    network = MultiScale(input_channels=1, scales=3, width=4).double()
    initialize(network, gain=0.2)
    a, b = torch.rand(2, 1, 100, 120, dtype=torch.float64), torch.rand(2, 3, 100, 120, dtype=torch.float64)
    pairs = [torch.cat([a, b], 1)]
    pairs += [mean_of_neighbours(pairs[0])]
    pairs += [mean_of_neighbours(pairs[1])]
    weights = iter(network.parameters())
    expected = [judged(weights, pair) for pair in reversed(pairs)][::-1]  # the coarsest has the first weights
    seen = network(a, b, activations=True)
    assert [len(scale) for scale in seen] == [5, 5, 5]
    for ours, theirs in zip(seen, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(network(a, b), [scale[-1] for scale in expected], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("scales", [1, 3])
def test_parameters(scales):
    weights = 16 * (6 * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 512)
    biases = 64 + 128 + 256 + 512 + 1
    assert sum(p.numel() for p in MultiScale(scales=scales).parameters()) == scales * (weights + biases)


def test_more_scales_leave_the_coarse_ones_their_names():
    fewer, more = (MultiScale(scales=scales, width=2).state_dict() for scales in (2, 3))
    assert list(fewer) == list(more)[: len(fewer)]


def test_the_smallest_image():
    network, image = MultiScale(scales=2, layers=1, width=1), torch.rand(1, 3, 12, 12)
    assert [logits.shape for logits in network(image, image)] == [(1, 1, 4, 4), (1, 1, 1, 1)]
    with pytest.raises(
        ValueError, match=r"^discriminator\.scales=2 of 1 layers need images of 12 pixels and got 11: use"
    ):
        network(image, image[..., 1:])
    with pytest.raises(ValueError, match=r"scales=0 is too small"):
        MultiScale(scales=0)


@pytest.mark.parametrize(("kind", "layers"), [(PatchGAN, 4), (PixelGAN, 2)])
def test_activations_of_the_others_end_with_their_logits(kind, layers):
    torch.manual_seed(0)
    network, (a, b) = kind(width=2, norm="instance"), torch.rand(2, 1, 3, 32, 32)
    (seen,) = network(a, b, activations=True)
    assert len(seen) == layers + 1
    assert torch.equal(seen[-1], network(a, b))
    first = F.leaky_relu(network[0](torch.cat([a, b], 1)), 0.2)
    torch.testing.assert_close(seen[0], first)


def test_settings_reach_every_scale():
    network = MultiScale(scales=2, layers=1, width=2, norm="none", conditional=False, spectral_norm=True)
    for judge in network.scales:
        assert not judge.conditional and judge[0].in_channels == 3
        assert isinstance(judge[0], SpectralConv2d) and isinstance(judge[1], torch.nn.Identity)
