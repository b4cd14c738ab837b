"""transform=cvcuda against transform=torchvision, which is Pillow's bicubic."""

import numpy as np
import pytest
import torch

from p2p.data.transforms.cvcuda import CvCuda
from p2p.data.transforms.torchvision import Torchvision
from tests.conftest import picture

pytestmark = pytest.mark.gpu

STEP = 2 / 255  # one level of 255, in [-1, 1]
MODES = ("resize_and_crop", "crop", "scale_width", "scale_width_and_crop", "none")


def batch(*size, channels=3):
    frames = np.stack([np.asarray(picture(*size, seed=seed))[..., :channels] for seed in range(3)])
    return frames, torch.from_numpy(frames).cuda()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(64, 64), (100, 80), (65, 200), (640, 480)])
@pytest.mark.parametrize("preprocess", MODES)
def test_it_is_torchvision_within_one_level(preprocess, size, channels):
    frames, on_gpu = batch(*size, channels=channels)
    options = {"image_size": 64, "preprocess": preprocess}
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    result = CvCuda(**options).eval_batch(on_gpu, stream=stream)
    stream.synchronize()
    expected = torch.stack([Torchvision(**options).eval(frame) for frame in frames])
    assert result.dtype == torch.float32 and result.is_contiguous()
    torch.testing.assert_close(result.cpu(), expected, rtol=0, atol=STEP * 1.01)


def test_without_a_resize_it_is_exact():
    frames, on_gpu = batch(64, 64)
    result = CvCuda(image_size=64).eval_batch(on_gpu, stream=torch.cuda.current_stream())
    expected = torch.stack([Torchvision(image_size=64).eval(frame) for frame in frames])
    torch.testing.assert_close(result.cpu(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("half", ["left", "right"])
def test_the_half_of_a_pair(half):
    frames, on_gpu = batch(128, 64)
    result = CvCuda(image_size=64).eval_batch(on_gpu, stream=torch.cuda.current_stream(), half=half)
    cut = frames[:, :, :64] if half == "left" else frames[:, :, 64:]
    expected = torch.stack([Torchvision(image_size=64).eval(frame) for frame in np.ascontiguousarray(cut)])
    torch.testing.assert_close(result.cpu(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(64, 64), (100, 80)])
def test_it_does_not_wait_for_other_streams(size):
    """While one is busy for a second, a batch on another is done. With a resize CV-CUDA waits for its own."""
    _, on_gpu = batch(*size)
    transform = CvCuda(image_size=64)
    stream, other = torch.cuda.Stream(), torch.cuda.Stream()
    transform.eval_batch(on_gpu, stream=stream)  # what is made once
    torch.cuda.synchronize()
    with torch.cuda.stream(other):
        torch.cuda._sleep(2_000_000_000)  # clock cycles: a second
        busy = torch.cuda.Event()
        busy.record()
    transform.eval_batch(on_gpu, stream=stream)
    stream.synchronize()
    assert not busy.query()
    torch.cuda.synchronize()


def test_without_a_resize_it_waits_for_nothing():
    _, on_gpu = batch(64, 64)
    transform, stream = CvCuda(image_size=64), torch.cuda.Stream()
    transform.eval_batch(on_gpu, stream=stream)
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(2_000_000_000)
        busy = torch.cuda.Event()
        busy.record()
    transform.eval_batch(on_gpu, stream=stream)
    assert not busy.query()
    torch.cuda.synchronize()


def test_a_resize_is_the_same_alone_and_in_a_batch():
    _, on_gpu = batch(100, 80)
    transform, stream = CvCuda(image_size=64), torch.cuda.current_stream()
    together = transform.eval_batch(on_gpu, stream=stream)
    for index in range(3):
        assert torch.equal(transform.eval_batch(on_gpu[index : index + 1], stream=stream)[0], together[index])


def test_a_stream_in_order_sees_what_was_written_before():
    frames, _ = batch(100, 80)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(200_000_000)
        on_gpu = torch.from_numpy(frames).pin_memory().cuda(non_blocking=True)
    result = CvCuda(image_size=64).eval_batch(on_gpu, stream=stream)
    stream.synchronize()
    expected = torch.stack([Torchvision(image_size=64).eval(frame) for frame in frames])
    torch.testing.assert_close(result.cpu(), expected, rtol=0, atol=STEP * 1.01)


def test_frames_below_the_crop():
    with pytest.raises(ValueError, match="it is 40x31 pixels, smaller than the crop of 64x64"):
        CvCuda(image_size=64, preprocess="crop").eval_batch(batch(40, 31)[1], stream=torch.cuda.current_stream())
