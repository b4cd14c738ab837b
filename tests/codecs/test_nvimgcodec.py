"""What the GPU is given and what falls back to the CPU, with a stand-in for nvImageCodec; see tests/gpu for itself."""

import os
import pickle
import subprocess
import sys
from contextlib import nullcontext
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from p2p.codecs import nvimgcodec, pillow
from p2p.codecs.fast import Fast
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
        os.write(2, b"library for a format that nobody asked for\n")
        self.calls = []

    def decode(self, files, *, images, params, cuda_stream):
        assert cuda_stream == 7 and (images is None or len(images) == len(files))
        self.calls.append((len(files), images is not None))
        return [None if data.endswith(b"\0") else pillow.decode(data).copy() for data in files]


@pytest.fixture
def codec(monkeypatch):
    fake = ModuleType("nvidia.nvimgcodec")
    kinds = ("HW_GPU_ONLY", "GPU_ONLY", "HYBRID_CPU_GPU")
    vars(fake).update(
        Decoder=Decoder,
        Backend=lambda kind: kind,
        BackendKind=SimpleNamespace(**{kind: kind for kind in kinds}),
        ColorSpec=SimpleNamespace(SRGB="SRGB"),
        DecodeParams=lambda *, apply_exif_orientation, color_spec: (apply_exif_orientation, color_spec),
    )
    monkeypatch.setitem(sys.modules, "nvidia", ModuleType("nvidia"))
    monkeypatch.setattr(sys.modules["nvidia"], "nvimgcodec", fake, raising=False)
    monkeypatch.setitem(sys.modules, "nvidia.nvimgcodec", fake)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setenv("PYNVIMGCODEC_VERBOSITY", "0")  # put back afterwards
    return nvimgcodec.NvImgCodec().batches(CPU)


def turned():
    exif = pillow.Image.Exif()
    exif[0x0112] = 6
    return saved(picture(24, 16), exif=exif)


def test_every_file_ends_in_one_of_three_places(codec):
    small = saved(picture(20, 10))
    files = [
        JPEGS["4:2:0"],
        saved(picture(8, 8), "PNG"),
        small,
        JPEGS["progressive"],
        b"no image",
        turned(),
        saved(picture(8, 8).convert("CMYK")),
        small + b"\0",  # the GPU refuses it, Pillow does not mind
        JPEGS["4:4:4"][:300] + b"\0",
    ]
    decoded = codec.decode(files, stream=STREAM)
    assert [indices for indices, _ in decoded.groups] == [[0, 3], [2]]
    for indices, frames in decoded.groups:
        assert frames.dtype == torch.uint8
        for index, frame in zip(indices, frames, strict=True):
            assert (frame.numpy() == pillow.decode(files[index])).all()
    assert set(decoded.frames) == {1, 5, 6, 7}
    for index, frame in decoded.frames.items():
        assert (frame == pillow.decode(files[index])).all()
    assert {index: str(error)[:10] for index, error in decoded.failures.items()} == {4: "it is not ", 8: "it is dama"}


def test_grey_and_deep_images_are_the_cpus(codec):
    array = np.zeros((4, 4, 5), np.float32)
    decoded = codec.decode([JPEGS["4:4:4"], JPEGS["grey"]], stream=STREAM, channels=1)
    assert decoded.groups == [] and [frame.shape for frame in decoded.frames.values()] == [(43, 61, 1)] * 2
    decoded = codec.decode([Fast(format="npy").encode(array)], stream=STREAM, channels=5)
    assert decoded.frames[0].dtype == np.float32
    assert codec._decoder.calls == []


def test_images_are_used_again_when_nothing_reads_them_any_more(codec):
    files = [JPEGS["4:4:4"]] * 4
    first, second = (events for _, events in codec._sets)
    for count in (4, 4, 3, 4, 4):  # a batch that is not full does not shrink its set
        codec.decode(files[:count], stream=STREAM)
    assert codec._decoder.calls == [(4, False), (4, False), (3, True), (4, True), (4, True)]
    assert first.log == ["wait", "record"] * 3 and second.log == ["wait", "record"] * 2


def test_the_library_is_silent(codec, capfd):
    nvimgcodec.NvImgCodec().batches(CPU)
    assert capfd.readouterr().err == ""
    os.write(2, b"ours\n")
    assert capfd.readouterr().err == "ours\n"


def test_without_a_gpu_or_the_package(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="needs an NVIDIA GPU, and torch finds none here: use codec=fast"):
        nvimgcodec.NvImgCodec().batches(CPU)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "nvidia", ModuleType("nvidia"))
    monkeypatch.setenv("PYNVIMGCODEC_VERBOSITY", "0")
    with pytest.raises(ValueError, match=r"nvImageCodec is not installed: pip install '\.\[gpu\]'"):
        nvimgcodec.NvImgCodec().batches(CPU)


def test_a_worker_gets_the_encoder_without_torch():
    """In a process of its own, since this one has torch."""
    script = "import sys, pickle; pickle.loads(sys.stdin.buffer.read()).encode; assert 'torch' not in sys.modules"
    data = pickle.dumps(nvimgcodec.NvImgCodec(format="jpg"))
    subprocess.run([sys.executable, "-c", script], input=data, cwd=ROOT, check=True)
