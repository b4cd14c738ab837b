"""The GPU's half of the pipeline with stand-ins for CUDA and nvJPEG: no image takes another's place."""

import ctypes
from collections import defaultdict
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from p2p.codecs import pillow
from p2p.codecs.fast import Fast
from p2p.codecs.nvjpeg import NvJpeg
from p2p.data.pairs import find_inputs
from p2p.data.transforms import cvcuda
from p2p.data.transforms.sizing import resize
from p2p.pipelines import overlap, sequential
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
    """In place of nvJPEG: decodes by Pillow, and not what has an odd number of bytes."""

    def decode(self, files, *, stream):
        places, missed = defaultdict(list), []
        coded = [ctypes.string_at(*each) for each in zip(files.addresses.tolist(), files.lengths.tolist(), strict=True)]
        frames = [None if len(file) % 2 else torch.from_numpy(pillow.decode(file).copy()) for file in coded]
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
    monkeypatch.setattr(NvJpeg, "decoder", lambda self, device: ByPillow())
    monkeypatch.setattr(cvcuda, "unavailable", lambda: None)
    monkeypatch.setattr(cvcuda, "resize", resized)
    monkeypatch.setattr(overlap, "make_translator", GpuTranslator)
    monkeypatch.setattr(overlap, "batches_per_slot", lambda images, batch_size: max(1, 8 // batch_size))


@pytest.mark.usefixtures("cuda")
@pytest.mark.parametrize("layout", [None, "side_by_side"])
@pytest.mark.parametrize(("codec", "batch_size"), [(Fast, 4), (NvJpeg, 1), (NvJpeg, 4), (NvJpeg, 32)])
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
