"""What is asked of CV-CUDA, with a stand-in for it; its pixels are compared in tests/gpu."""

import sys
from contextlib import nullcontext
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from p2p.data.transforms import cvcuda
from p2p.data.transforms.sizing import resize
from tests.conftest import picture


class OnGpu(torch.Tensor):
    """A CPU tensor that says otherwise."""

    @property
    def __cuda_array_interface__(self):
        return {"shape": tuple(self.shape), "data": (self.data_ptr(), False), "version": 2}


@pytest.fixture
def calls(monkeypatch):
    """Of a CV-CUDA that is Pillow."""
    calls = []

    def as_tensor(buffer, layout):
        assert buffer.__cuda_array_interface__["version"] == 3 and buffer.__cuda_array_interface__["stream"] == 7
        assert buffer.__cuda_array_interface__["data"][0] == buffer.tensor.data_ptr() and layout == "NHWC"
        return buffer.tensor

    def pillowresize_into(dst, src, format, interp, *, stream):
        calls.append((format, interp, stream))
        for to, frame in zip(dst.as_subclass(torch.Tensor), src.as_subclass(torch.Tensor), strict=True):
            image = Image.fromarray(frame.squeeze(2).numpy())
            sized = np.array(image.resize((to.shape[1], to.shape[0]), Image.Resampling.BICUBIC))
            to.copy_(torch.from_numpy(sized.reshape(to.shape)))

    fake = ModuleType("cvcuda")
    vars(fake).update(
        as_tensor=as_tensor,
        as_stream=lambda stream: f"on {stream.cuda_stream}",
        pillowresize_into=pillowresize_into,
        Format=SimpleNamespace(RGB8="RGB8", U8="U8"),
        Interp=SimpleNamespace(CUBIC="CUBIC"),
    )
    monkeypatch.setitem(sys.modules, "cvcuda", fake)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    return calls


@pytest.mark.parametrize(("channels", "format"), [(3, "RGB8"), (1, "U8")])
def test_a_batch_is_resized_on_the_stream(calls, channels, format):
    frames = np.stack([np.asarray(picture(50, 40, seed=seed))[..., :channels] for seed in range(2)])
    stream = SimpleNamespace(cuda_stream=7)
    sized = cvcuda.resize(torch.from_numpy(frames).as_subclass(OnGpu), 24, 32, stream=stream)
    assert (np.asarray(sized) == np.stack([resize(frame, 24, 32) for frame in frames])).all()
    assert calls == [(format, "CUBIC", "on 7")]


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "cvcuda", None)
    assert "CV-CUDA cannot be used (" in cvcuda.unavailable()
    assert cvcuda.unavailable().endswith("): pip install cvcuda-cu13")
