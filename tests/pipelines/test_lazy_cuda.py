"""The GPU's half of the pipeline with a stand-in for CUDA that keeps its promises and not one more."""

import ctypes
import os
import random
from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from p2p.codecs import nvjpeg
from p2p.codecs.fast import Fast
from p2p.codecs.nvjpeg import NvJpeg
from p2p.data.pairs import Pair, Source
from p2p.data.transforms import cvcuda
from p2p.pipelines import overlap, sequential
from p2p.pipelines.messages import LOAD, Note, Setup
from p2p.pipelines.slots import SharedArray
from p2p.pipelines.worker import Worker
from p2p.pipelines.workers import Done
from tests.codecs import test_nvjpeg
from tests.conftest import picture
from tests.pipelines import test_gpu_translator
from tests.pipelines.conftest import Negative, files, stages_for
from tests.pipelines.lazy_cuda import Event, Gpu, Stream


class Library(test_nvjpeg.Library):
    """nvJPEG whose engines write at once, in no stream's order, or as late as the stream lets them."""

    def __init__(self, gpu):
        super().__init__()
        self.gpu, self.made = gpu, 0

    def nvjpegDecodeBatchedInitialize(self, *args):
        self.made += 1
        return super().nvjpegDecodeBatchedInitialize(*args)

    def write(self, places, images):
        made, coded = self.made, [ctypes.string_at(*place) for place in places]
        write = partial(super().write, places, type(images).from_buffer_copy(images))
        late = self.gpu.random.random() < 0.5
        if not late:
            write()

        def until_here():
            assert self.made == made, "the state was made anew too early"
            assert [ctypes.string_at(*place) for place in places] == coded, "files were overwritten too early"
            if late:
                write()

        self.gpu.current.do(until_here)


class Workers:
    """Of `p2p.pipelines.workers`, in this process: they have done what they are asked for, or by chance some of it."""

    def __init__(self, gpu, count, *, niceness, each_span, files, arrays):
        counts = {"seconds": (1, 4), "images": (1, 4), "cpu": (1,)}
        self.own = {"stop": SharedArray((1,), "uint8")}
        self.own |= {name: SharedArray(shape, "float64") for name, shape in counts.items()}
        shared = arrays | self.own
        described = {name: (each.shape, each.dtype, at) for at, (name, each) in enumerate(shared.items())}
        setup = Setup(0, os.getppid(), niceness, each_span, files, 0, 0, described)
        self.worker, self.tasks, self.gpu = Worker(setup, [each.fd for each in shared.values()], None), [], gpu

    def __enter__(self):
        return self

    def __exit__(self, *_):
        del self.worker
        for array in self.own.values():
            array.close()

    def wait_until_ready(self):
        pass

    hand_out = wait_until_ready

    def submit(self, task):
        self.tasks.append(task)

    def silent(self):
        return self.gpu.random.random() < 0.5

    def answers(self, *, wait_s):
        self.gpu.random.shuffle(self.tasks)
        for _ in range(self.gpu.random.randint(wait_s is None, len(self.tasks))):
            self.gpu.pass_time()
            task = self.tasks.pop()
            yield Done(task, Note(self.worker.load(task) if task.kind == LOAD else self.worker.save(task), []))

    def worked(self):
        return [], 0.0


class Device(str):
    """What torch takes for the CPU and p2p for a GPU."""

    type = "cuda"


class Engine(Negative):
    def __init__(self, device):
        self.device = device


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """JPEG of the network's size and of another, whole and as halves; and others, broken ones, what stops engines."""
    folder, usual, odd = tmp_path_factory.mktemp("images"), [], []
    for index in range(80):
        half = (None, "left", None, "right")[index % 4]
        width, height = ((16, 16), (20, 24))[index // 4 % 2]
        image = picture(2 * width if half else width, height, seed=index)
        path = folder / f"{index:02d}.{'png' if index in (3, 6, 8, 9, 13) else 'jpg'}"
        pair = Pair(path.stem, Source(path, half))
        image.save(path, **({"comment": test_nvjpeg.SPOILING} if index in (4, 10) else {}))
        (usual if index > 15 else odd).append(pair)
    for pair in odd[5], odd[12]:
        pair.input.path.write_bytes(pair.input.path.read_bytes()[:200])
    deep = np.arange(256, dtype=np.uint16).reshape(16, 16) * 200
    Image.fromarray(deep).save(folder / "deep.png")
    return usual, [*odd, Pair("deep", Source(folder / "deep.png"))]


@pytest.mark.parametrize("batch_size", [1, 4, 8])
def test_whatever_the_gpu_does_first_the_files_are_the_same(batch_size, images, tmp_path, monkeypatch):
    """In groups, with gaps, halves, sizes and failures, and slots that are used again.

    It failed with each of these changes. GpuTranslator: either wait_stream left out, or the event's synchronize; the
    event recorded before the copy or on another stream; frames copied on another stream than the loader's; one buffer
    of frames, or of what was translated, for two batches; a buffer or a slot that is free from `start` on. GpuLoader:
    its work on another stream than the decoder's; no wait after the warm-up. NvJpegDecoder: no wait for the stream, or
    only before the state is made anew. It does not tell whether a failure is waited for, nor what `end` does.
    """
    expected = stages_for(Engine(torch.device("cpu")), tmp_path / "expected", codec=Fast(), image_size=16)
    usual, odd = images
    sequential.run([*usual, *odd], expected, batch_size=batch_size)
    assert len(expected.failures) == 2
    for seed, slots in enumerate([None, 2, 3, None, 1, 3, 4, 2, None]):
        usual, odd = (random.Random(seed).sample(some, len(some)) for some in images)
        first = seed % 4 * 20
        with Gpu(seed) as gpu, monkeypatch.context() as patch:
            put_in_place(gpu, patch)
            stages = stages_for(Engine(Device("cpu")), tmp_path / str(seed), codec=NvJpeg(), image_size=16)
            overlap.run([*usual[:first], *odd, *usual[first:]], stages, batch_size=batch_size, workers=2, slots=slots)
        assert files(tmp_path / str(seed)) == files(tmp_path / "expected")
        assert stages.failures == expected.failures
        assert stages.clock.images["generate"] == len(files(tmp_path / "expected"))


def resize(gpu, frames_NHWC, height, width, *, stream):
    """In place of CV-CUDA's."""
    with gpu.on(stream):
        sized_NHWC = frames_NHWC.new_empty(len(frames_NHWC), height, width, 3)
    source_NHWC, target_NHWC = gpu.at_address(frames_NHWC), gpu.at_address(sized_NHWC)
    work = partial(test_gpu_translator.resized, source_NHWC, height, width, stream=None)
    stream.do(lambda: target_NHWC.copy_(work()))
    return sized_NHWC


def put_in_place(gpu, patch):
    """Of CUDA, nvJPEG, CV-CUDA and processes."""
    for name, what in {"Stream": partial(Stream, gpu), "Event": partial(Event, gpu), "stream": gpu.on}.items():
        patch.setattr(torch.cuda, name, what)
    patch.setattr(torch.cuda, "device", lambda device: nullcontext())
    patch.setattr(torch.cuda, "current_stream", lambda device=None: gpu.current)
    patch.setattr(torch.cuda, "synchronize", gpu.synchronize)
    patch.setattr(torch.cuda, "mem_get_info", lambda device: (1 << 40, 1 << 40))
    patch.setattr(nvjpeg, "_library", lambda device: Library(gpu))
    patch.setattr(cvcuda, "unavailable", lambda: None)
    patch.setattr(cvcuda, "resize", partial(resize, gpu))
    patch.setattr(SharedArray, "pin", lambda self: None)
    patch.setattr(overlap, "MANY_SLOTS", 5)  # so that slots hold several batches
    patch.setattr(overlap, "Workers", partial(Workers, gpu))
