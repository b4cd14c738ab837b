import numpy as np
import pytest
import torch
from PIL import Image

from p2p.data.transforms.torchvision import Torchvision
from tests.conftest import picture


def test_eval_is_pillows_bicubic_to_minus_one_and_one():
    frame = np.asarray(picture(90, 50))
    expected = np.asarray(Image.fromarray(frame).resize((32, 32), Image.Resampling.BICUBIC), np.float64) / 127.5 - 1
    result = Torchvision(image_size=32).eval(frame)
    assert result.dtype == torch.float32
    np.testing.assert_allclose(result.permute(1, 2, 0).numpy(), expected, atol=1e-6)


def test_train_crops_and_flips_both_sides_alike():
    """Equal frames give equal results, each a crop of the resized frame, mirrored or not."""
    frame = np.asarray(picture(64, 64))
    transform = Torchvision(image_size=32, load_size=40)
    resized = np.asarray(Image.fromarray(frame).resize((40, 40), Image.Resampling.BICUBIC), np.float32) / 127.5 - 1
    windows = np.lib.stride_tricks.sliding_window_view(resized, (32, 32), axis=(0, 1))  # 9, 9, C, 32, 32
    seen = set()
    for _ in range(100):
        a, b = transform.train(frame, frame)
        assert torch.equal(a, b)
        for mirrored in (False, True):
            crop = a.flip(2).numpy() if mirrored else a.numpy()
            where = np.argwhere(np.abs(windows - crop).max(axis=(2, 3, 4)) < 1e-6)
            seen |= {(*map(int, spot), mirrored) for spot in where}
    assert len({spot[:2] for spot in seen}) > 40  # of 81 places
    assert {spot[2] for spot in seen} == {False, True}


def test_train_keeps_the_two_sides_apart():
    transform = Torchvision(image_size=8)
    a, b = transform.train(np.zeros((16, 16, 3), np.uint8), np.full((16, 16, 1), 255, np.uint8))
    assert (a.shape, b.shape) == ((3, 8, 8), (1, 8, 8))
    assert (a == -1).all()
    assert (b == 1).all()


def test_the_papers_load_size():
    frame = np.asarray(picture(256, 256))
    fixed = Torchvision(image_size=256, load_size=286, flip=False)
    torch.manual_seed(3)
    expected = fixed.train(frame, frame)[0]
    torch.manual_seed(3)
    assert torch.equal(Torchvision(image_size=256, flip=False).train(frame, frame)[0], expected)
    with pytest.raises(ValueError, match="load_size=8 is smaller"):
        Torchvision(image_size=16, load_size=8)
