import numpy as np
import pytest
import torch
from PIL import Image

from p2p.data.transforms.torchvision import Torchvision
from p2p.models.unet import UNet
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


def resized(frame, width, height):
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC), np.float32) / 127.5 - 1


def hwc(image_CHW):
    return image_CHW.permute(1, 2, 0).numpy()


def test_none_brings_the_sides_to_multiples():
    frame = np.asarray(picture(90, 60))
    # None: the nearest multiples of 64. 4: the reference's rule; 90 / 4 = 22.5 goes to the even 22, as Python rounds.
    for multiple, size in ((None, (64, 64)), (4, (88, 60))):
        transform = Torchvision(image_size=64, preprocess="none", multiple=multiple, flip=False)
        for image in (transform.eval(frame), *transform.train(frame, frame)):
            np.testing.assert_allclose(hwc(image), resized(frame, *size), atol=1e-6)


def scale_width_of_the_reference(width, height, *, load_size, crop_size):
    """Width and height after its --preprocess scale_width, as its data/base_dataset.py computes them."""
    if width == load_size and height >= crop_size:
        return width, height
    return load_size, int(max(load_size * height / width, crop_size))


@pytest.mark.parametrize("frame", [(90, 60), (60, 90), (50, 77), (72, 80), (33, 200)], ids=str)
def test_scale_width_goes_to_load_size_in_training_and_to_the_crop_in_test(frame):
    """multiple=1 is the reference's; its test.py sets load_size to crop_size."""
    image = np.asarray(picture(*frame))
    for load_size in (None, 64, 100, 40):
        transform = Torchvision(image_size=64, preprocess="scale_width", load_size=load_size, multiple=1, flip=False)
        expected = scale_width_of_the_reference(*frame, load_size=load_size or 72, crop_size=64)  # 64 * 286 / 256
        for trained in transform.train(image, image):
            np.testing.assert_allclose(hwc(trained), resized(image, *expected), atol=1e-6)
        expected = scale_width_of_the_reference(*frame, load_size=64, crop_size=64)
        np.testing.assert_allclose(hwc(transform.eval(image)), resized(image, *expected), atol=1e-6)


def test_scale_width_then_goes_to_multiples():
    frame = np.asarray(picture(60, 90))
    transform = Torchvision(image_size=64, preprocess="scale_width", multiple=32, load_size=100, flip=False)
    assert transform.train(frame, frame)[0].shape == (3, 160, 96)  # 100x150
    assert transform.eval(frame).shape == (3, 96, 64)  # 64x96
    assert Torchvision(image_size=64, preprocess="scale_width").eval(frame).shape == (3, 128, 64)


def test_the_multiple_is_the_unets_stride():
    for size in (32, 96, 256, 512):
        side = max(Torchvision(image_size=size, preprocess="none").eval(np.zeros((9, 9, 1), np.uint8)).shape)
        assert side == UNet(image_size=size, width=1).stride


def test_crop_takes_windows_of_the_frame_as_it_is():
    frame = np.asarray(picture(40, 36))
    transform = Torchvision(image_size=32, preprocess="crop", flip=False)
    plain = frame.astype(np.float32) / 127.5 - 1
    np.testing.assert_allclose(hwc(transform.eval(frame)), plain[2:34, 4:36], atol=1e-6)
    windows = np.lib.stride_tricks.sliding_window_view(plain, (32, 32), axis=(0, 1))
    a, b = transform.train(frame, frame)
    assert torch.equal(a, b)
    assert np.abs(windows - a.numpy()).max(axis=(2, 3, 4)).min() < 1e-6


def test_scale_width_and_crop():
    frame, wide = np.asarray(picture(64, 96)), np.asarray(picture(100, 20))
    transform = Torchvision(image_size=32, load_size=40, preprocess="scale_width_and_crop", flip=False)
    np.testing.assert_allclose(hwc(transform.eval(frame)), resized(frame, 32, 48)[8:40], atol=1e-6)
    windows = np.lib.stride_tricks.sliding_window_view(resized(frame, 40, 60), (32, 32), axis=(0, 1))
    assert np.abs(windows - transform.train(frame, frame)[0].numpy()).max(axis=(2, 3, 4)).min() < 1e-6
    np.testing.assert_allclose(hwc(transform.eval(wide)), resized(wide, 32, 32), atol=1e-6)  # stretched, not refused


@pytest.mark.parametrize(("dtype", "white"), [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1)])
def test_other_depths_and_channels_are_pillows_bicubic_of_each_channel(dtype, white):
    frame = (np.random.default_rng(0).random((21, 30, 5)) * white).astype(dtype)
    planes = [Image.fromarray(plane.astype(np.float32)) for plane in np.moveaxis(frame, 2, 0)]
    planes = [np.asarray(plane.resize((16, 16), Image.Resampling.BICUBIC), np.float64) for plane in planes]
    expected = np.clip(np.stack(planes) / white * 2 - 1, -1, 1)
    result = Torchvision(image_size=16).eval(frame)
    assert result.dtype == torch.float32
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-5)


def test_sixteen_bits_are_kept():
    frame = np.full((16, 16, 1), 32768, np.uint16)
    frame[:, 8:] = 32769
    (row,) = Torchvision(image_size=16, preprocess="crop").eval(frame)[:, 0].unique(dim=0)
    assert (row[8] - row[7]).item() == pytest.approx(2 / 65535, rel=1e-2)


def test_an_image_below_the_crop_and_wrong_options():
    transform = Torchvision(image_size=32, preprocess="crop")
    with pytest.raises(ValueError, match="it is 40x31 pixels, smaller than the crop of 32x32"):
        transform.eval(np.zeros((31, 40, 3), np.uint8))
    with pytest.raises(ValueError, match=r"transform\.preprocess=resize is not known: use one of resize_and"):
        Torchvision(image_size=32, preprocess="resize")
    with pytest.raises(ValueError, match=r"transform\.multiple=-1"):
        Torchvision(image_size=32, multiple=-1)


def test_rectangles_are_height_and_width():
    """Each mode against Pillow and a window by hand; a number of load_size is that of both sides, or of the width."""
    frame = np.asarray(picture(90, 60))
    options = {"image_size": [16, 40], "flip": False}
    np.testing.assert_allclose(hwc(Torchvision(**options).eval(frame)), resized(frame, 40, 16), atol=1e-6)
    for load_size, (height, width) in ((None, (18, 45)), ([20, 41], (20, 41)), (64, (64, 64))):  # 40 * 286 / 256
        windows = np.lib.stride_tricks.sliding_window_view(resized(frame, width, height), (16, 40), axis=(0, 1))
        crop = Torchvision(**options, load_size=load_size).train(frame, frame)[0].numpy()
        assert crop.shape == (3, 16, 40)
        assert np.abs(windows - crop).max(axis=(2, 3, 4)).min() < 1e-6
    plain = frame.astype(np.float32) / 127.5 - 1
    np.testing.assert_allclose(
        hwc(Torchvision(**options, preprocess="crop").eval(frame)), plain[22:38, 25:65], atol=1e-6
    )
    by_width = Torchvision(**options, preprocess="scale_width_and_crop")
    np.testing.assert_allclose(hwc(by_width.eval(frame)), resized(frame, 40, 26)[5:21], atol=1e-6)
    scaled = Torchvision(**options, preprocess="scale_width", multiple=1).eval(np.asarray(picture(90, 20)))
    assert scaled.shape == (3, 16, 40)  # 9 rows would be too few
    assert Torchvision(**options, preprocess="none").eval(frame).shape == (3, 64, 88)  # 8 divides both
    with pytest.raises(ValueError, match="it is 39x60 pixels, smaller than the crop of 40x16"):
        Torchvision(**options, preprocess="crop").eval(frame[:, :39])
    with pytest.raises(ValueError, match=r"load_size=\[15,64\] is smaller than image_size=\[16,40\]"):
        Torchvision(**options, load_size=[15, 64])


def test_a_square_in_two_numbers_is_one():
    """So outputs of image_size=[32,32] are not written anew after image_size=32."""
    assert vars(Torchvision(image_size=[32, 32]).sizing) == vars(Torchvision(image_size=32).sizing)
