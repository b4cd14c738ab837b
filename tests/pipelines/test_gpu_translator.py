"""The GPU's half of the pipeline with stand-ins for CUDA and nvImageCodec: no image takes another's place."""

import itertools
import threading
import time
from collections import defaultdict
from contextlib import nullcontext

import pytest
import torch

from p2p.codecs import pillow
from p2p.codecs.fast import Fast
from p2p.codecs.nvimgcodec import NvImgCodec
from p2p.data.pairs import find_inputs
from p2p.pipelines import overlap, sequential
from p2p.pipelines.gpu_loader import GpuLoader
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
    """In place of nvImageCodec: decodes by Pillow, and not what has an odd number of bytes."""

    def decode(self, files, *, stream):
        places, missed = defaultdict(list), []
        frames = [None if len(file) % 2 else torch.from_numpy(pillow.decode(file.tobytes()).copy()) for file in files]
        for place, frame in enumerate(frames):
            if frame is None:
                missed.append(place)
            else:
                places[tuple(frame.shape)].append(place)
        return [(same, torch.stack([frames[i] for i in same])) for same in places.values()], missed


@pytest.fixture
def cuda(monkeypatch):
    """A stand-in for CUDA on the CPU, and nvImageCodec's."""
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: Stream())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: None)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, stream: None)
    monkeypatch.setattr(NvImgCodec, "unavailable", lambda self, device: None)
    monkeypatch.setattr(NvImgCodec, "batches", lambda self, device: ByPillow())

    def make(stages, arrays, *, wake):
        frames = [arrays[name] for name in ("input", "high_depth", "output")]
        return GpuTranslator(stages, *frames, coded=arrays.get("coded"), wake=wake)

    monkeypatch.setattr(overlap, "make_translator", make)


@pytest.mark.usefixtures("cuda")
@pytest.mark.parametrize("fails", [1, 2])
def test_a_decoder_that_cannot_start_ends_the_run(engine, pairs, tmp_path, monkeypatch, fails):
    """The other one does not wait for it."""
    calls = itertools.count(1)

    def warmup(self, *_):
        if next(calls) == fails:
            raise RuntimeError("no memory is left")

    monkeypatch.setattr(GpuLoader, "warmup", warmup)
    stages = stages_for(engine, tmp_path / "out", codec=NvImgCodec())
    with pytest.raises(RuntimeError, match="no memory is left"):
        overlap.run(pairs, stages, batch_size=4, workers=2)


@pytest.mark.usefixtures("cuda")
@pytest.mark.parametrize("layout", [None, "side_by_side"])
@pytest.mark.parametrize(("codec", "batch_size"), [(Fast, 4), (NvImgCodec, 1), (NvImgCodec, 4), (NvImgCodec, 32)])
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
        lanes = {lane.rstrip("0123456789 ") for lane in stages.clock.lanes["preprocess"]}
        assert ("decoder stream" in lanes) == (codec is NvImgCodec)


@pytest.mark.usefixtures("cuda")
def test_a_decoder_that_hangs_after_the_gpu_failed_does_not_hold_up_the_end(engine, pairs, tmp_path, monkeypatch):
    hanging, go_on = threading.Event(), threading.Event()

    def hang():
        hanging.set()
        go_on.wait(60)

    def fails(self, *_):
        self._threads.submit(hang)
        assert hanging.wait(20)
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(GpuTranslator, "start", fails)
    started = time.monotonic()
    try:
        with pytest.raises(RuntimeError, match="device-side assert"):
            overlap.run(pairs, stages_for(engine, tmp_path / "out", codec=NvImgCodec()), batch_size=4, workers=2)
        assert time.monotonic() - started < 30
    finally:
        go_on.set()
