"""What nvJPEG is asked for, with a stand-in for it that reads and writes the same memory; see tests/gpu for itself."""

import ctypes
import os
import pickle
import subprocess
import sys
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from p2p.codecs import auto, nvjpeg, pillow
from p2p.codecs.auto import Auto
from p2p.codecs.codec import CodedFiles
from p2p.codecs.nvjpeg import NvJpeg
from tests.codecs.test_fast import JPEGS, saved
from tests.conftest import ROOT, picture

CPU = torch.device("cpu")
STREAM = SimpleNamespace(cuda_stream=7, synchronize=lambda: None)


SPOILING = b"the engines fail at this"  # in a file's comment


class Image(ctypes.Structure):
    """nvjpegImage_t."""

    _fields_ = (("channel", ctypes.c_void_p * 4), ("pitch", ctypes.c_size_t * 4))


class Library:
    """nvJPEG's functions by Pillow; a batch with a damaged file fails as a whole."""

    has_engine, free = True, 1 << 30

    def __init__(self):
        self.prepared, self.batches = None, []

    def nvjpegCreateEx(self, backend, allocator, pinned, flags, handle):
        assert (backend, allocator, pinned, flags) == (3, None, None, 32)  # the JPEG engines, interpolating
        return 0 if self.has_engine else 7

    def nvjpegJpegStateCreate(self, handle, state):
        return 0

    def nvjpegJpegStateDestroy(self, state):
        self.destroyed = True

    def nvjpegDestroy(self, handle):
        assert self.destroyed

    def nvjpegDecodeBatchedInitialize(self, handle, state, count, threads, format):
        assert format == 5  # RGB, side by side
        self.prepared = count
        return 0

    def nvjpegDecodeBatched(self, handle, state, sources, lengths, images, stream):
        assert stream == 7
        self.batches.append(self.prepared)
        addresses, sizes = ((ctypes.c_size_t * self.prepared).from_address(each) for each in (sources, lengths))
        places = list(zip(addresses, sizes, strict=True))
        files = [ctypes.string_at(*place) for place in places]
        if sum(sizes) > self.free:
            return 5
        self.write(places, (Image * self.prepared).from_address(images))
        return 0 if all(framed(file) and SPOILING not in file for file in files) else 6

    def write(self, places, images):
        for place, image in zip(places, images, strict=True):
            file = ctypes.string_at(*place)
            for y, line in enumerate(pillow.decode(file) if framed(file) else ()):
                ctypes.memmove(image.channel[0] + y * image.pitch[0], line.tobytes(), line.nbytes)


def framed(file):
    return file.startswith(b"\xff\xd8") and file.endswith(b"\xff\xd9")


@pytest.fixture
def library(monkeypatch):
    library = Library()
    monkeypatch.setattr(nvjpeg, "_library", lambda device: library)
    for name in ("device", "stream"):
        monkeypatch.setattr(torch.cuda, name, lambda each: nullcontext())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA T4")
    return library


def coded(files, sizes=None):
    """Those files in memory; what cannot be decoded is of the size of the first."""
    arrays = [np.frombuffer(data, np.uint8) for data in files]
    sizes = sizes or [size_of(data) or size_of(files[0]) or (8, 8) for data in files]
    return CodedFiles(np.array([each.ctypes.data for each in arrays]), np.array([*map(len, files)]), np.array(sizes))


def size_of(data):
    try:
        return pillow.decode(data).shape[:2]
    except ValueError:
        return None


def check(groups, files):
    for places, frames in groups:
        assert frames.dtype == torch.uint8 and frames.is_contiguous()
        for place, frame in zip(places, frames, strict=True):
            assert (frame.numpy() == pillow.decode(files[place])).all()


def test_frames_by_size(library):
    files = [JPEGS["4:2:0"], saved(picture(20, 10)), JPEGS["4:4:4"]]
    groups, missed = NvJpeg().gpu_decoder(CPU).decode(coded(files), stream=STREAM)
    assert [places for places, _ in groups] == [[0, 2], [1]] and missed == []
    assert library.batches == [3]  # in one call
    check(groups, files)


def test_a_file_that_spoils_its_batch_is_found(library):
    small = saved(picture(20, 10))
    files = [JPEGS["4:2:0"], small, b"no JPEG file", small + b"\0", JPEGS["4:4:4"]]
    groups, missed = NvJpeg().gpu_decoder(CPU).decode(coded(files), stream=STREAM)
    assert [places for places, _ in groups] == [[0], [1], [4]] and missed == [2, 3]
    check(groups, files)
    assert library.batches == [5, 1, 1, 1, 1, 1]
    assert NvJpeg().gpu_decoder(CPU).decode(coded([b"none"]), stream=STREAM) == ([], [0])


def test_too_little_memory_is_no_damage(library):
    library.free = len(JPEGS["4:4:4"])
    decoder = NvJpeg().gpu_decoder(CPU)
    with pytest.raises(RuntimeError, match="nvjpegDecodeBatched: CUDA out of memory"):
        decoder.decode(coded([JPEGS["4:4:4"]] * 2), stream=STREAM)
    check(decoder.decode(coded([JPEGS["4:4:4"]]), stream=STREAM)[0], [JPEGS["4:4:4"]])


def test_who_decodes_is_said(library, monkeypatch, capsys):
    gpu = SimpleNamespace(type="cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(auto, "available_cores", lambda: 64)
    assert Auto().gpu_decoder(gpu) is None and NvJpeg().gpu_decoder(gpu) is not None
    assert capsys.readouterr().out == ("codec: fast, because 32 cores for each GPU are enough to decode\n")
    monkeypatch.setattr(auto, "available_cores", lambda: 16)
    assert Auto().gpu_decoder(gpu) is not None
    assert capsys.readouterr().out.startswith(
        "codec: nvjpeg, because the JPEG engines of this GPU can decode, and its 8 cores"
    )
    library.has_engine = False
    assert Auto().gpu_decoder(gpu) is NvJpeg().gpu_decoder(gpu) is None
    assert capsys.readouterr().out == (
        "codec: fast, because NVIDIA T4 has no JPEG engine\n"
        "codec=nvjpeg cannot be used, because NVIDIA T4 has no JPEG engine: the CPU decodes JPEG\n"
    )


def test_without_a_gpu_or_the_library(monkeypatch, capsys):
    assert Auto().gpu_decoder(CPU) is None and capsys.readouterr().out == ""
    assert NvJpeg().gpu_decoder(CPU) is None
    assert "because there is no GPU, or device=cpu: the CPU decodes JPEG" in capsys.readouterr().out
    monkeypatch.setattr(torch.version, "cuda", "99.0")
    assert NvJpeg().gpu_decoder(torch.device("cuda")) is None
    assert "because nvJPEG is not installed: pip install nvidia-nvjpeg-cu99" in capsys.readouterr().out


def test_the_package_is_found_where_it_lies(tmp_path, monkeypatch):
    """And before the system's."""
    (tmp_path / "nvidia/cu13/lib").mkdir(parents=True)
    (tmp_path / "nvidia/cu13/lib/libnvjpeg.so.13").touch()
    loaded = []
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(
        nvjpeg.importlib.util,
        "find_spec",
        lambda name: SimpleNamespace(submodule_search_locations=[os.fspath(tmp_path / name)]),
    )

    def load(path):
        loaded.append(path)
        raise OSError

    monkeypatch.setattr(ctypes, "CDLL", load)
    with pytest.raises(nvjpeg.CannotDecode):
        nvjpeg._library(torch.device("cuda"))
    assert loaded == [str(tmp_path / "nvidia/cu13/lib/libnvjpeg.so.13"), "libnvjpeg.so.13"]


def test_a_worker_gets_the_encoder_without_torch():
    """In a process of its own, since this one has torch."""
    script = "import sys, pickle; pickle.loads(sys.stdin.buffer.read()).encode; assert 'torch' not in sys.modules"
    data = pickle.dumps(Auto(format="jpg"))
    subprocess.run([sys.executable, "-c", script], input=data, cwd=ROOT, check=True)
