"""The GPU's half of the pipeline with stand-ins for CUDA and nvJPEG: no image takes another's place."""

import ctypes
from collections import defaultdict
from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from p2p.codecs import pillow
from p2p.codecs.fast import Fast
from p2p.codecs.nvjpeg import NvJpeg
from p2p.codecs.values import read_values
from p2p.data.pairs import find_inputs
from p2p.data.transforms import cvcuda
from p2p.data.transforms.sizing import resize
from p2p.pipelines import overlap, sequential
from p2p.pipelines.files import CODED_BYTES
from p2p.pipelines.gpu_translator import GpuTranslator
from tests.conftest import picture
from tests.pipelines.conftest import files, stages_for


class Stream:
    """Of CUDA: all happens at once."""

    cuda_stream = 7

    def __init__(self, device=None):
        pass

    def wait_stream(self, stream):
        pass

    wait_event = wait_stream

    def synchronize(self):
        pass

    def record_event(self):
        return Event()


class Event:
    def __init__(self, **options):
        pass

    def record(self, stream=None):
        pass

    synchronize = record

    def query(self):
        return True

    def elapsed_time(self, other):
        return 1.0


class ByPillow:
    """In place of nvJPEG: decodes by Pillow, not what has an odd number of bytes; `FLIPPED` bits tell who did."""

    FLIPPED = np.uint8(0)

    def decode(self, files, *, stream):
        places, missed = defaultdict(list), []
        coded = [ctypes.string_at(*each) for each in zip(files.addresses.tolist(), files.lengths.tolist(), strict=True)]
        frames = [None if len(file) % 2 else torch.from_numpy(pillow.decode(file) ^ self.FLIPPED) for file in coded]
        for place, (frame, size) in enumerate(zip(frames, files.sizes.tolist(), strict=True)):
            if frame is None:
                missed.append(place)
            else:
                assert list(frame.shape[:2]) == size
                places[tuple(frame.shape)].append(place)
        return [(same, torch.stack([frames[i] for i in same])) for same in places.values()], missed


def resized(frames, height, width, *, stream):
    """In place of CV-CUDA's."""
    return torch.from_numpy(np.stack([resize(frame, height, width) for frame in frames.numpy()]))


@pytest.fixture
def cuda(monkeypatch):
    """Stand-ins on the CPU for CUDA, nvJPEG and CV-CUDA."""
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: Stream())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: None)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, stream: None)
    monkeypatch.setattr(NvJpeg, "gpu_decoder", lambda self, device: ByPillow())
    monkeypatch.setattr(cvcuda, "unavailable", lambda: None)
    monkeypatch.setattr(cvcuda, "resize", resized)
    monkeypatch.setattr(overlap, "make_translator", GpuTranslator)
    monkeypatch.setattr(overlap, "batches_per_slot", lambda images, batch_size, image_bytes: max(1, 8 // batch_size))


@pytest.mark.usefixtures("cuda")
@pytest.mark.parametrize("layout", [None, "side_by_side"])
@pytest.mark.parametrize(("codec", "batch_size"), [(Fast, 4), (NvJpeg, 4), (NvJpeg, 32)])
def test_the_translator_of_a_gpu_keeps_images_apart(engine, pairs, tmp_path, codec, batch_size, layout):
    """The same bytes as one after another, with gaps, depths, sizes and files that the decoder misses."""
    inputs = pairs
    if layout:
        for index in range(12):
            picture(64, 32, seed=index).save(pairs[0].input.path.parent / f"{index:02d}p.jpg")
        inputs = find_inputs(str(pairs[0].input.path.parent), layout=layout)
    expected = stages_for(engine, tmp_path / "one", codec=Fast())
    sequential.run(inputs, expected, batch_size=batch_size)
    done = [stages_for(engine, tmp_path / name, codec=codec()) for name in ("sequential", "overlap")]
    sequential.run(inputs, done[0], batch_size=batch_size)
    overlap.run(inputs, done[1], batch_size=batch_size, workers=2)
    for stages in done:
        assert files(stages.files.output) == files(tmp_path / "one")
        assert stages.failures == expected.failures
        assert stages.clock.images["generate"] == len(files(tmp_path / "one"))
        assert ("loader stream" in stages.clock.lanes["preprocess"]) == (codec is NvJpeg)


@pytest.mark.usefixtures("cuda")
def test_more_than_8_bits_come_from_the_gpu_as_floats(engine, pairs, tmp_path):
    runs = {"sequential": sequential.run, "overlap": partial(overlap.run, workers=2)}
    for name, run in runs.items():
        stages = stages_for(engine, tmp_path / name, codec=NvJpeg(format="tiff", bits=32))
        run(pairs, stages, batch_size=4)
    assert files(tmp_path / "sequential") == files(tmp_path / "overlap")
    shares = read_values(files(tmp_path / "overlap")["03b.tiff"], channels=3)
    assert shares.dtype == np.float32
    assert len(np.unique(shares)) > 256


@pytest.mark.usefixtures("cuda")
def test_both_pipelines_have_the_same_files_decoded_by_the_gpu(engine, pairs, tmp_path, monkeypatch):
    """Among them one of more than 2 MB, and one that the CPU alone has memory for, and refuses."""
    folder = pairs[0].input.path.parent
    noise = np.random.default_rng(0).integers(0, 256, (1300, 1300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "large.jpg", quality=100, subsampling="4:4:4")
    assert (folder / "large.jpg").stat().st_size > CODED_BYTES
    picture(2, 65000).save(folder / "thin.jpg")
    monkeypatch.setattr(ByPillow, "FLIPPED", np.uint8(64))
    inputs = find_inputs(str(folder))
    done = {}
    for name, run in (("sequential", sequential.run), ("overlap", partial(overlap.run, workers=2))):
        stages = stages_for(engine, tmp_path / name, codec=NvJpeg(), preprocess="scale_width_and_crop")
        run(inputs, stages, batch_size=4)
        done[name] = files(tmp_path / name), stages.failures
    assert done["sequential"] == done["overlap"]
    plain = stages_for(engine, tmp_path / "fast", codec=Fast(), preprocess="scale_width_and_crop")
    sequential.run(inputs, plain, batch_size=4)
    by_cpu, (written, failures) = files(tmp_path / "fast"), done["overlap"]
    assert failures == plain.failures and written.keys() == by_cpu.keys()
    assert sum(written[name] != by_cpu[name] for name in written) >= 5  # what the decoder did not miss
    assert written["large.png"] == by_cpu["large.png"]
