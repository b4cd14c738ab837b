"""The overlapped pipeline where the GPU decodes: what it is given, in which order, and what falls back to the CPU.

In place of the GPU's decoder stands a thread that has Pillow; tests/gpu has the real one.
"""

import itertools
import random
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from PIL import Image

from p2p.codecs import pillow
from p2p.codecs.fast import Fast
from p2p.codecs.nvimgcodec import NvImgCodec
from p2p.data.pairs import Pair, Source, find_inputs
from p2p.data.transforms.cvcuda import CvCuda
from p2p.data.transforms.torchvision import Torchvision
from p2p.pipelines import overlap, sequential
from p2p.pipelines.gpu_loader import GpuLoader
from p2p.pipelines.gpu_translator import OnGpu
from p2p.pipelines.slots import CODED
from p2p.pipelines.stages import Stages
from p2p.pipelines.translator import OnCpu
from p2p.profiling.clock import Clock
from tests.conftest import picture
from tests.pipelines.conftest import Negative, files, stages_for


class Decoding(OnCpu):
    """Decodes coded rows into their slot, at random speed, at most two batches at a time."""

    decodes = True
    fails = ()

    def __init__(self, stages, *frames, coded, wake):
        super().__init__(stages, *frames)
        self._coded, self._wake = coded, wake
        self._threads = ThreadPoolExecutor(2)
        self._held, self.decoded = [], []

    def prepare(self, batch):
        if len(self._held) == 3:
            return None
        self._held.append(batch.slot)
        future = self._threads.submit(self._load, batch)
        future.add_done_callback(lambda _: self._wake())
        return future

    def _load(self, batch):
        time.sleep(random.random() / 200)
        for row in batch.in_state(CODED):
            data = self._coded[batch.slot, row, : batch.found["coded"][row]].tobytes()
            self.decoded.append(batch.pairs[row].name)
            if batch.pairs[row].name in self.fails:
                raise RuntimeError("the decoder broke")
            try:
                frame, _ = self._stages.files.load(batch.pairs[row], self._stages.clock, data=data)
            except ValueError as error:
                batch.fail(row, str(error))
            else:
                self._inputs[0][batch.slot, row] = frame

    def finish(self):
        batch, slot = super().finish()
        self.release(batch)
        return batch, slot

    def release(self, batch):
        self._held.remove(batch.slot)

    def end(self):
        self._threads.shutdown(cancel_futures=True)


@pytest.fixture
def made(monkeypatch):
    """The translators that were made."""
    made = []

    def make(stages, arrays, *, wake):
        made.append(
            Decoding(stages, *(arrays[name] for name in ("input", "deep", "output")), coded=arrays["coded"], wake=wake)
        )
        return made[-1]

    monkeypatch.setattr(overlap, "make_translator", make)
    return made


@pytest.fixture
def pairs(tmp_path):
    """JPEG of the network's size, and between them other formats, other sizes and broken ones."""
    folder = tmp_path / "inputs"
    folder.mkdir()
    for index in range(21):
        picture(32, 32, seed=index).save(folder / f"{index:02d}.jpg", quality=95)
    picture(32, 32, seed=90).save(folder / "03b.png")
    picture(40, 50, seed=91).save(folder / "07b.jpg")
    Image.fromarray(np.arange(32 * 32, dtype=np.uint16).reshape(32, 32)).save(folder / "08b.png")
    data = (folder / "09.jpg").read_bytes()
    (folder / "09.jpg").write_bytes(data[: len(data) // 2])
    (folder / "10.jpg").write_bytes(data[: len(data) // 2] + data[-2:])  # looks whole
    return find_inputs(str(folder))


def on_gpu(stages, kind="same size"):
    stages.files.gpu_decodes = kind
    return stages


@pytest.mark.parametrize(("batch_size", "slots"), [(1, None), (4, 1), (4, 5), (32, None)])
def test_the_same_bytes_whoever_decodes(engine, pairs, tmp_path, made, batch_size, slots):
    expected = stages_for(engine, tmp_path / "sequential", codec=Fast())
    sequential.run(pairs, expected, batch_size=batch_size)
    stages = on_gpu(stages_for(engine, tmp_path / "overlap", codec=Fast()))
    overlap.run(pairs, stages, batch_size=batch_size, workers=2, slots=slots)
    assert files(tmp_path / "sequential") == files(tmp_path / "overlap")
    assert len(files(tmp_path / "overlap")) >= 22
    assert list(stages.failures.items()) == list(expected.failures.items())
    resized_or_other = {"03b", "07b", "08b", "09"}
    assert sorted(made[0].decoded) == [pair.name for pair in pairs if pair.name not in resized_or_other]
    assert stages.clock.images["generate"] == len(files(tmp_path / "overlap"))


def test_a_file_that_is_too_long_for_its_slot_is_the_workers(engine, pairs, tmp_path, made, monkeypatch):
    monkeypatch.setattr(overlap, "CODED_BYTES", 600)
    stages = on_gpu(stages_for(engine, tmp_path / "out", codec=Fast()))
    overlap.run(pairs, stages, batch_size=4, workers=2)
    short = {pair.name for pair in pairs if pair.input.path.stat().st_size <= 600}
    assert set(made[0].decoded) < short
    assert len(files(tmp_path / "out")) >= 22


def test_an_exception_of_the_decoder_ends_the_run(engine, pairs, tmp_path, made, monkeypatch):
    monkeypatch.setattr(Decoding, "fails", ("12",))
    with pytest.raises(RuntimeError, match="the decoder broke"):
        overlap.run(pairs, on_gpu(stages_for(engine, tmp_path / "out", codec=Fast())), batch_size=2, workers=2)
    assert all(pillow.decode(data).shape == (32, 32, 3) for data in files(tmp_path / "out").values())


def files_for(tmp_path, preprocess="resize_and_crop", kind="same size"):
    return on_gpu(stages_for(Negative(), tmp_path, image_size=16, preprocess=preprocess), kind).files


@pytest.mark.parametrize(
    ("size", "half", "preprocess", "same", "other"),
    [
        ((16, 16), None, "resize_and_crop", True, True),
        ((32, 16), "left", "resize_and_crop", True, True),
        ((32, 16), None, "resize_and_crop", False, True),
        ((33, 16), "right", "resize_and_crop", False, False),
        ((40, 30), None, "crop", True, True),
        ((40, 10), None, "crop", False, False),
        ((16, 16), None, "none", True, True),
        ((32, 32), None, "none", False, False),  # the program takes 16x16
        ((40, 60), None, "scale_width_and_crop", False, True),
    ],
)
def test_which_jpeg_files_a_gpu_loads(tmp_path, size, half, preprocess, same, other):
    picture(*size).save(tmp_path / "x.jpg")
    pair, data = Pair("x", Source(tmp_path / "x.jpg", half)), (tmp_path / "x.jpg").read_bytes()
    expected = (size[1], size[0] // 2 if half else size[0])
    for kind, fits in (("same size", same), ("any size", other), (None, False)):
        assert files_for(tmp_path, preprocess, kind).gpu_size(pair, data) == (expected if fits else None)


def test_where_the_cpu_must_decode_it_is_said_once(tmp_path, capsys):
    def made(codec, transform):
        engine = Negative()
        stages = Stages(engine=engine, transform=transform, codec=codec, output=tmp_path, clock=Clock())
        return stages.files.gpu_decodes, capsys.readouterr().out

    plain, cvcuda = Torchvision(image_size=16), CvCuda(image_size=16)
    assert made(Fast(), plain) == (None, "")
    assert made(NvImgCodec(), plain) == (None, "there is no GPU, or device=cpu: the CPU decodes JPEG\n")
    assert made(NvImgCodec(), cvcuda)[0] is None
    assert "transform=cvcuda resizes what codec=nvimgcodec decodes on the GPU" in made(Fast(), cvcuda)[1]


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
        frames = [arrays[name] for name in ("input", "deep", "output")]
        return OnGpu(stages, *frames, coded=arrays.get("coded"), wake=wake)

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
