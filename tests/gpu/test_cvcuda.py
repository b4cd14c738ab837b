"""Frames that CV-CUDA resizes on the GPU against Pillow's bicubic."""

import numpy as np
import pytest
import torch

from p2p.data.transforms import cvcuda
from p2p.data.transforms.sizing import resize
from tests.conftest import picture

pytestmark = pytest.mark.gpu


def batch(*size, channels=3):
    frames = np.stack([np.asarray(picture(*size, seed=seed))[..., :channels] for seed in range(3)])
    return frames, torch.from_numpy(frames).cuda()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(64, 64), (100, 80), (65, 200), (640, 480)])
def test_it_is_pillow_within_one_level(size, channels):
    frames, on_gpu = batch(*size, channels=channels)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    sized = cvcuda.resize(on_gpu, 64, 96, stream=stream)
    stream.synchronize()
    expected = np.stack([resize(frame, 64, 96) for frame in frames])
    assert sized.dtype == torch.uint8 and sized.is_contiguous()
    assert np.abs(sized.cpu().numpy().astype(int) - expected).max() <= 1


def test_it_does_not_wait_for_other_streams():
    """While one is busy for a second, a batch on another is done."""
    _, on_gpu = batch(100, 80)
    stream, other = torch.cuda.Stream(), torch.cuda.Stream()
    cvcuda.resize(on_gpu, 64, 64, stream=stream)  # what is made once
    torch.cuda.synchronize()
    with torch.cuda.stream(other):
        torch.cuda._sleep(2_000_000_000)  # clock cycles: a second
        busy = torch.cuda.Event()
        busy.record()
    cvcuda.resize(on_gpu, 64, 64, stream=stream)
    stream.synchronize()
    assert not busy.query()
    torch.cuda.synchronize()


def test_an_image_is_the_same_alone_and_in_a_batch():
    _, on_gpu = batch(100, 80)
    stream = torch.cuda.current_stream()
    together = cvcuda.resize(on_gpu, 64, 64, stream=stream)
    for index in range(3):
        assert torch.equal(cvcuda.resize(on_gpu[index : index + 1], 64, 64, stream=stream)[0], together[index])


def test_it_sees_what_its_stream_wrote_before():
    frames, _ = batch(100, 80)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(200_000_000)
        on_gpu = torch.from_numpy(frames).pin_memory().cuda(non_blocking=True)
    sized = cvcuda.resize(on_gpu, 64, 64, stream=stream)
    stream.synchronize()
    expected = np.stack([resize(frame, 64, 64) for frame in frames])
    assert np.abs(sized.cpu().numpy().astype(int) - expected).max() <= 1
