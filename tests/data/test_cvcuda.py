"""transform=cvcuda where there is no GPU, and what it asks of CV-CUDA; its pixels are compared in tests/gpu."""

import sys
from contextlib import nullcontext
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from p2p.data.transforms.cvcuda import CvCuda
from p2p.data.transforms.torchvision import Torchvision
from tests.conftest import picture


class OnGpu(torch.Tensor):
    """A CPU tensor that says otherwise."""

    is_cuda = True

    @property
    def __cuda_array_interface__(self):
        return {"shape": tuple(self.shape), "data": (self.data_ptr(), False), "version": 2}


def fake_cvcuda(calls):
    """CV-CUDA's three functions by Pillow and NumPy."""

    def as_tensor(buffer, layout):
        assert buffer.__cuda_array_interface__["version"] == 3 and buffer.__cuda_array_interface__["stream"] == 7
        assert buffer.__cuda_array_interface__["data"][0] == buffer.tensor.data_ptr() and len(layout) == 4
        return buffer.tensor

    def pillowresize_into(dst, src, format, interp, *, stream):
        calls.append((format, interp, stream))
        for to, frame in zip(dst.as_subclass(torch.Tensor), src.as_subclass(torch.Tensor), strict=True):
            image = Image.fromarray(frame.squeeze(2).numpy())
            sized = np.array(image.resize((to.shape[1], to.shape[0]), Image.Resampling.BICUBIC))
            to.copy_(torch.from_numpy(sized.reshape(to.shape)))
        return dst

    def fused(dst, src, resize_dim, interp, corner, *, scale, offset, stream):
        assert tuple(src.shape[1:3]) == resize_dim[::-1]  # it resizes nothing
        calls.append((resize_dim, interp, stream))
        (left, top), (height, width) = corner, dst.shape[2:]
        cut = src[:, top : top + height, left : left + width].permute(0, 3, 1, 2)
        dst.copy_(cut.float() * scale + offset)

    fake = ModuleType("cvcuda")
    vars(fake).update(
        as_tensor=as_tensor,
        as_stream=lambda stream: f"on {stream.cuda_stream}",
        pillowresize_into=pillowresize_into,
        resize_crop_convert_reformat_into=fused,
        Format=SimpleNamespace(RGB8="RGB8", U8="U8"),
        Interp=SimpleNamespace(CUBIC="CUBIC", NEAREST="NEAREST"),
    )
    return fake


@pytest.fixture
def calls(monkeypatch):
    calls = []
    monkeypatch.setitem(sys.modules, "cvcuda", fake_cvcuda(calls))
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    return calls


def eval_batch(transform, frames, **options):
    on_gpu = torch.from_numpy(np.array(frames)).as_subclass(OnGpu)
    return transform.eval_batch(on_gpu, stream=SimpleNamespace(cuda_stream=7), **options).as_subclass(torch.Tensor)


@pytest.mark.parametrize("preprocess", ["resize_and_crop", "crop", "scale_width", "scale_width_and_crop", "none"])
@pytest.mark.parametrize(("size", "channels"), [((32, 32), 3), ((50, 40), 3), ((33, 70), 1)])
def test_a_batch_is_what_torchvision_makes_of_each(calls, preprocess, size, channels):
    frames = np.stack([np.asarray(picture(*size, seed=seed))[..., :channels] for seed in range(2)])
    options = {"image_size": 32, "preprocess": preprocess}
    expected = torch.stack([Torchvision(**options).eval(frame) for frame in frames])
    torch.testing.assert_close(eval_batch(CvCuda(**options), frames), expected, rtol=0, atol=1e-6)
    assert {stream for *_, stream in calls} == {"on 7"}
    assert [call[0] for call in calls[:-1]] in ([], ["RGB8" if channels == 3 else "U8"])


@pytest.mark.parametrize("half", ["left", "right"])
def test_a_half_without_resize_is_one_call(calls, half):
    frames = np.stack([np.asarray(picture(64, 32, seed=seed)) for seed in range(2)])
    cut = frames[:, :, :32] if half == "left" else frames[:, :, 32:]
    expected = torch.stack([Torchvision(image_size=32).eval(np.ascontiguousarray(frame)) for frame in cut])
    torch.testing.assert_close(eval_batch(CvCuda(image_size=32), frames, half=half), expected, rtol=0, atol=1e-6)
    assert calls == [((32, 32), "NEAREST", "on 7")]


def test_on_a_cpu_it_is_torchvision_and_batches_are_refused():
    frame, transform = np.asarray(picture(50, 40)), CvCuda(image_size=32)
    assert torch.equal(transform.eval(frame), Torchvision(image_size=32).eval(frame))
    with pytest.raises(ValueError, match="needs batches on an NVIDIA GPU: use transform=torchvision on a CPU"):
        transform.eval_batch(torch.from_numpy(frame.copy())[None], stream=None)


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "cvcuda", None)
    with pytest.raises(ValueError, match=r"CV-CUDA cannot be used \(.*\): pip install cvcuda-cu13"):
        eval_batch(CvCuda(image_size=32), np.zeros((1, 32, 32, 3), np.uint8))
