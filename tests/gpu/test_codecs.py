"""nvJPEG on a real GPU, against Pillow."""

import faulthandler

import numpy as np
import pytest
import torch
from PIL import Image

from p2p.codecs import pillow
from p2p.codecs.nvjpeg import NvJpeg
from tests.codecs.test_fast import JPEGS, saved
from tests.codecs.test_nvjpeg import coded
from tests.conftest import ROOT, picture

pytestmark = pytest.mark.gpu

CUDA = torch.device("cuda", 0)


@pytest.fixture(scope="module")
def codec():
    return NvJpeg().gpu_decoder(CUDA)


def test_batches_are_pillows_pixels_up_to_rounding(codec):
    files = [saved(picture(512, 256, seed), quality=95, subsampling=s) for seed, s in enumerate(["4:4:4", "4:2:0"] * 4)]
    files += [saved(picture(201, 101), quality=95, subsampling="4:2:2")]
    stream = torch.cuda.Stream()
    groups, missed = codec.decode(coded(files), stream=stream)
    stream.synchronize()
    assert missed == [] and sorted(place for places, _ in groups for place in places) == list(range(9))
    for places, frames in groups:
        assert frames.device.type == "cuda" and frames.dtype == torch.uint8
        for place, frame in zip(places, frames.cpu().numpy(), strict=True):
            difference = np.abs(frame.astype(int) - pillow.decode(files[place]))
            assert difference.max() <= 1 and difference.mean() < 0.01


def test_a_damaged_file_is_missed_and_the_others_are_not(codec, capfd):
    files = [JPEGS["4:4:4"], JPEGS["progressive"], JPEGS["4:4:4"][:150] + JPEGS["4:4:4"][-2:], JPEGS["4:4:4"]]
    groups, missed = codec.decode(coded(files), stream=torch.cuda.Stream())
    torch.cuda.synchronize()
    assert missed == [1, 2] and [places for places, _ in groups] == [[0], [3]]
    expected = pillow.decode(JPEGS["4:4:4"]).astype(int)
    assert all(np.abs(frames[0].cpu().numpy() - expected).max() <= 1 for _, frames in groups)
    assert capfd.readouterr().err == ""


def test_an_image_is_the_same_alone_and_in_any_batch(codec):
    data = [saved(picture(512, 256, seed), quality=95) for seed in range(64)]
    files, stream = coded(data), torch.cuda.Stream()
    alone = [codec.decode(files.some(slice(i, i + 1)), stream=stream)[0][0][1][0] for i in range(64)]
    for batch in (8, 64):
        for start in range(0, 64, batch):
            ((places, frames),) = codec.decode(files.some(slice(start, start + batch)), stream=stream)[0]
            stream.synchronize()
            assert all(torch.equal(frame, alone[start + place]) for place, frame in zip(places, frames, strict=True))


def test_batches_in_flight_keep_their_pixels(codec):
    """On a stream that is busy first: whoever does not wait overwrites an older batch.

    A version that did not wait for the stream never came back from here.
    """
    faulthandler.dump_traceback_later(60, exit=True)
    batches = [[saved(picture(512, 256, seed=8 * b + i), quality=95) for i in range(8)] for b in range(6)]
    stream, slow = torch.cuda.Stream(), torch.randn(4096, 4096, device=CUDA)
    results = []
    for batch in batches:
        with torch.cuda.stream(stream):
            for _ in range(4):
                torch.mm(slow, slow)
        ((indices, frames),) = codec.decode(coded(batch), stream=stream)[0]
        assert indices == list(range(8))
        results.append(frames)
    stream.synchronize()
    for batch, frames in zip(batches, results, strict=True):
        for data, frame in zip(batch, frames.cpu().numpy(), strict=True):
            assert np.abs(frame.astype(int) - pillow.decode(data)).max() <= 1
    faulthandler.cancel_dump_traceback_later()


def test_pixels_of_photographs_with_halved_chroma(codec):
    """Where torchvision's decoder, which repeats chroma, is 30 dB from Pillow's."""
    files = [path.read_bytes() for path in sorted((ROOT / "data/samples").glob("*/*.jpg"))[:16]]
    frames = np.stack([pillow.decode(data) for data in files])
    halved = [saved(Image.fromarray(frame), quality=95, subsampling="4:2:0") for frame in frames]
    stream = torch.cuda.Stream()
    ((places, decoded),) = codec.decode(coded(halved), stream=stream)[0]
    stream.synchronize()
    assert places == list(range(16))
    expected = np.stack([pillow.decode(data) for data in halved]).astype(int)
    assert np.abs(decoded.cpu().numpy() - expected).max() <= 1
