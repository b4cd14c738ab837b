"""nvImageCodec on a real GPU, against Pillow."""

import numpy as np
import pytest
import torch

from p2p.codecs import pillow
from p2p.codecs.nvimgcodec import NvImgCodec
from tests.codecs.test_fast import JPEGS, saved
from tests.conftest import picture

pytestmark = pytest.mark.gpu

CUDA = torch.device("cuda", 0)


@pytest.fixture(scope="module")
def codec():
    return NvImgCodec().batches(CUDA)


def test_batches_are_pillows_pixels_up_to_rounding(codec):
    files = [saved(picture(512, 256, seed), quality=95, subsampling=s) for seed, s in enumerate(["4:4:4", "4:2:0"] * 4)]
    files += [JPEGS["progressive"], JPEGS["grey"]]
    stream = torch.cuda.Stream()
    decoded = codec.decode(files, stream=stream)
    stream.synchronize()
    assert decoded.failures == {} and decoded.frames == {}
    assert sorted(index for indices, _ in decoded.groups for index in indices) == list(range(10))
    for indices, frames in decoded.groups:
        assert frames.device.type == "cuda" and frames.dtype == torch.uint8
        for index, frame in zip(indices, frames.cpu().numpy(), strict=True):
            difference = np.abs(frame.astype(int) - pillow.decode(files[index]))
            assert difference.max() <= 4 and difference.mean() < 0.5


def test_damaged_and_other_files_are_the_cpus(codec, capfd):
    files = [JPEGS["4:4:4"], saved(picture(8, 8), "PNG"), JPEGS["4:2:0"][:300], b"", JPEGS["4:4:4"]]
    decoded = codec.decode(files, stream=torch.cuda.Stream())
    torch.cuda.synchronize()
    assert [indices for indices, _ in decoded.groups] == [[0, 4]]
    assert set(decoded.frames) == {1} and set(decoded.failures) == {2, 3}
    assert capfd.readouterr().err == ""


def test_batches_in_flight_keep_their_pixels(codec):
    """More batches than sets, on a stream that is busy first: whoever does not wait overwrites an older batch."""
    batches = [[saved(picture(512, 256, seed=8 * b + i), quality=95) for i in range(8)] for b in range(6)]
    stream, slow = torch.cuda.Stream(), torch.randn(4096, 4096, device=CUDA)
    results = []
    for batch in batches:
        with torch.cuda.stream(stream):
            for _ in range(4):
                torch.mm(slow, slow)
        ((indices, frames),) = codec.decode(batch, stream=stream).groups
        assert indices == list(range(8))
        results.append(frames)
    stream.synchronize()
    for batch, frames in zip(batches, results, strict=True):
        for data, frame in zip(batch, frames.cpu().numpy(), strict=True):
            assert np.abs(frame.astype(int) - pillow.decode(data)).mean() < 0.5
