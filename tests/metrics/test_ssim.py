import pytest
import torch

from p2p.metrics import image
from p2p.metrics.ssim import ssim


@pytest.mark.parametrize(("height", "width", "channels"), [(64, 64, 3), (17, 40, 1), (6, 6, 2)])
def test_it_is_the_score_of_training(height, width, channels):
    generator = torch.Generator().manual_seed(0)
    expected = torch.rand(3, channels, height, width, generator=generator) * 2 - 1
    noise = torch.randn(expected.shape, generator=generator) * torch.tensor([0, 0.1, 1.0]).view(3, 1, 1, 1)
    images = (expected + noise).clamp(-1, 1)
    ours = ssim(images, expected)
    assert ours[0] == pytest.approx(1, abs=1e-5)
    for mine, a, b in zip(ours, images, expected, strict=True):
        assert mine.item() == pytest.approx(image.ssim()(a[None], b[None]).item(), abs=2e-5)


def test_images_smaller_than_half_a_window_have_none():
    assert ssim(torch.zeros(2, 3, 5, 64), torch.zeros(2, 3, 5, 64)).isnan().all()
