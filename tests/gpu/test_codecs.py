"""nvJPEG on a real GPU, against Pillow."""

import faulthandler
import io

import numpy as np
import pytest
import torch
from PIL import Image

from p2p.codecs import fast, pillow
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


def psnr(frame, expected):
    return 10 * np.log10(255**2 / np.mean(np.square(frame.astype(float) - expected)))


def tables(image):
    """Of each colour its sampling and how coarse it is."""
    return [(layer[1:3], image.quantization[layer[3]]) for layer in image.layer]


def encoded(encoder, frames, *, room=None):
    files = [np.zeros(room or frame.nbytes, np.uint8) for frame in frames]
    frames_NHWC = torch.from_numpy(np.stack(frames)).to(CUDA)
    lengths = encoder.encode(frames_NHWC, list(range(len(frames))), files)
    return [file[:length].tobytes() for file, length in zip(files, lengths, strict=True)]


@pytest.mark.parametrize("subsampling", [444, 422, 420])
@pytest.mark.parametrize("quality", [96, 75])
def test_encoding_is_as_good_as_libjpegs(quality, subsampling):
    """The same tables and sampling, as near to the frame within 0.5 dB, and as large within a tenth."""
    codec = NvJpeg(format="jpg", quality=quality, subsampling=subsampling, gpu_encodes=1)
    samples = [pillow.decode(path.read_bytes()) for path in sorted((ROOT / "data/samples").glob("*/*.jpg"))[:20]]
    frames = [frame[:256, :256] for frame in samples]
    assert len({frame.shape for frame in frames}) == 1
    ours = encoded(codec.gpu_encoder(CUDA), frames)
    theirs = [fast.encode_jpeg(frame, quality=quality, subsampling=subsampling) for frame in frames]
    found = []
    for frame, our, their in zip(frames, ours, theirs, strict=True):
        one, other = (Image.open(io.BytesIO(data)) for data in (our, their))
        assert tables(one) == tables(other)
        one, other = (pillow.decode(data) for data in (our, their))
        found.append((psnr(one, frame), psnr(other, frame), psnr(one, other), len(our) / len(their)))
    print(f"quality {quality}, {subsampling}: PSNR, libjpeg's, to each other, size: {np.mean(found, axis=0)}")
    for our_psnr, their_psnr, _, size in found:
        assert our_psnr > their_psnr - 0.5 and abs(size - 1) < 0.1


def test_encoding_again_gives_the_same_bytes():
    """Alone and in a batch, also beside other work, and of odd sizes; a file that has no room is none."""
    encoder = NvJpeg(format="jpg", gpu_encodes=1).gpu_encoder(CUDA)
    frames = [np.asarray(picture(101, 77, seed)) for seed in range(20)]
    files = encoded(encoder, frames)
    assert [encoded(encoder, [frame])[0] for frame in frames] == files
    for data, frame in zip(files, frames, strict=True):
        assert psnr(pillow.decode(data), frame) > 35
    side, slow = torch.cuda.Stream(), torch.randn(2048, 2048, device=CUDA)
    with torch.cuda.stream(side):
        for _ in range(200):
            torch.mm(slow, slow)
    assert encoded(encoder, frames) == files
    assert encoded(encoder, frames[:3], room=100) == [b""] * 3
    torch.cuda.synchronize()
