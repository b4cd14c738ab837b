"""What nvImageCodec is asked for, with a stand-in for it; see tests/gpu for itself."""

import os
import pickle
import subprocess
import sys
import weakref
from contextlib import nullcontext
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from p2p.codecs import nvimgcodec, pillow
from tests.codecs.test_fast import JPEGS, saved
from tests.conftest import ROOT, picture

CPU = torch.device("cpu")
STREAM = SimpleNamespace(cuda_stream=7)


class Event:
    """Of CUDA: tells what happened to it."""

    def __init__(self):
        self.log = []

    def record(self, stream):
        self.log.append("record")

    def synchronize(self):
        self.log.append("wait")


class Decoder:
    """Decodes by Pillow, but no file whose last byte is zero."""

    def __init__(self, *, device_id, backends, options):
        if backends == ["HW_GPU_ONLY"] and not Decoder.has_engine:
            raise RuntimeError("Internal error - Could not create decoder. Code: 7")
        os.write(2, b"library for a format that nobody asked for\n")
        self.calls, self.backends = [], backends

    def decode(self, sources, *, images, params, cuda_stream):
        assert cuda_stream == 7 and (images is None or len(images) == len(sources))
        self.calls.append((len(sources), images is not None))
        frames = [None if data.endswith(b"\0") else pillow.decode(data).copy() for data in sources]
        self.made = [weakref.ref(frame) for frame in frames if frame is not None]
        return frames


@pytest.fixture
def codec(monkeypatch):
    fake = ModuleType("nvidia.nvimgcodec")
    vars(fake).update(
        Decoder=Decoder,
        CodeStream=lambda array: array.tobytes(),
        Backend=lambda kind: kind,
        BackendKind=SimpleNamespace(HW_GPU_ONLY="HW_GPU_ONLY", HYBRID_CPU_GPU="HYBRID_CPU_GPU"),
        ColorSpec=SimpleNamespace(SRGB="SRGB"),
        DecodeParams=lambda *, apply_exif_orientation, color_spec: (apply_exif_orientation, color_spec),
    )
    monkeypatch.setattr(Decoder, "has_engine", True, raising=False)
    monkeypatch.setitem(sys.modules, "nvidia", ModuleType("nvidia"))
    monkeypatch.setattr(sys.modules["nvidia"], "nvimgcodec", fake, raising=False)
    monkeypatch.setitem(sys.modules, "nvidia.nvimgcodec", fake)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setenv("PYNVIMGCODEC_VERBOSITY", "0")  # put back afterwards
    return nvimgcodec.NvImgCodec().batches(CPU)


def arrays(files):
    return [np.frombuffer(data, np.uint8) for data in files]


def test_frames_by_size_and_what_could_not_be_decoded(codec):
    small = saved(picture(20, 10))
    files = [JPEGS["4:2:0"], small, JPEGS["4:4:4"], small + b"\0"]
    groups, missed = codec.decode(arrays(files), stream=STREAM)
    assert [places for places, _ in groups] == [[0, 2], [1]] and missed == [3]
    for places, frames in groups:
        assert frames.dtype == torch.uint8
        for place, frame in zip(places, frames, strict=True):
            assert (frame.numpy() == pillow.decode(files[place])).all()


def test_images_are_used_again_when_nothing_reads_them_any_more(codec):
    files = arrays([JPEGS["4:4:4"]] * 4)
    first, second = (events for _, _, events in codec._sets)
    for count in (4, 4, 3, 4, 4):  # a batch that is not full does not shrink its set
        codec.decode(files[:count], stream=STREAM)
    assert codec._decoder.calls == [(4, False), (4, False), (3, True), (4, True), (4, True)]
    assert first.log == ["wait", "record"] * 3 and second.log == ["wait", "record"] * 2


def test_images_that_are_not_used_again_live_until_they_were_read(codec):
    codec.decode(arrays([JPEGS["4:4:4"], JPEGS["4:4:4"] + b"\0"]), stream=STREAM)
    read = codec._decoder.made
    codec.decode(arrays([JPEGS["4:4:4"]]), stream=STREAM)
    assert all(frame() is not None for frame in read)
    codec.decode(arrays([JPEGS["4:4:4"]]), stream=STREAM)  # waits for the first
    assert not any(frame() for frame in read)


def test_one_kind_of_decoder_takes_all(codec, monkeypatch):
    assert codec._decoder.backends == ["HW_GPU_ONLY"]
    monkeypatch.setattr(Decoder, "has_engine", False)
    assert nvimgcodec.NvImgCodec().batches(CPU)._decoder.backends == ["HYBRID_CPU_GPU"]


def test_the_library_is_silent(codec, capfd):
    nvimgcodec.NvImgCodec().batches(CPU)
    assert capfd.readouterr().err == ""
    os.write(2, b"ours\n")
    assert capfd.readouterr().err == "ours\n"


def test_without_a_gpu_or_the_package(monkeypatch):
    assert nvimgcodec.NvImgCodec().unavailable(CPU) == "there is no GPU, or device=cpu"
    monkeypatch.setitem(sys.modules, "nvidia", ModuleType("nvidia"))
    monkeypatch.setenv("PYNVIMGCODEC_VERBOSITY", "0")
    assert "nvImageCodec is not installed" in nvimgcodec.NvImgCodec().unavailable(torch.device("cuda"))


def test_a_worker_gets_the_encoder_without_torch():
    """In a process of its own, since this one has torch."""
    script = "import sys, pickle; pickle.loads(sys.stdin.buffer.read()).encode; assert 'torch' not in sys.modules"
    data = pickle.dumps(nvimgcodec.NvImgCodec(format="jpg"))
    subprocess.run([sys.executable, "-c", script], input=data, cwd=ROOT, check=True)
