"""A GPU whose memory is too small for a batch, by an engine that says so as torch does: smaller ones, same files."""

import re

import pytest
import torch

from p2p.codecs.fast import Fast
from p2p.codecs.nvjpeg import NvJpeg
from p2p.deploy.engine import Engine
from p2p.pipelines import overlap, sequential
from p2p.pipelines.gpu_loader import GpuLoader
from p2p.pipelines.gpu_translator import GpuTranslator
from p2p.pipelines.parts import Parts
from p2p.system.gpu_faults import TooSmall
from tests.pipelines.conftest import files, stages_for
from tests.pipelines.test_gpu_translator import ByPillow, cuda  # noqa: F401 - a fixture

FULL = (
    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.18 GiB of which 1.00 MiB is free."
)


@pytest.fixture(autouse=True)
def without_collecting_garbage(monkeypatch):
    """Which takes half a second after many tests, and there is no GPU to free."""
    monkeypatch.setattr("p2p.pipelines.parts.release_memory", lambda: None)


def limited(engine, most, *, after=0):
    """The engine on a GPU that holds so many images, from a call on."""
    calls = []

    def program(images):
        calls.append(len(images))
        if len(images) > most and len(calls) > after:
            raise torch.OutOfMemoryError(FULL)
        return engine._program(images)

    return Engine(manifest=engine.manifest, program=program, device=engine.device), calls


def test_parts(capsys):
    parts, seen = Parts(), []

    def work(part):
        seen.append((part.start, part.stop))
        if part.stop - part.start > 3:
            raise torch.OutOfMemoryError(FULL)
        return part.start

    assert parts(10, work) == [0, 3, 6, 9]
    assert seen == [(0, 10), (0, 5), (0, 3), (3, 6), (6, 9), (9, 10)]
    assert parts(4, work) == [0, 3] and parts(2, work) == [0]
    assert capsys.readouterr().out == "the GPU's memory holds only batches of 3: continuing with these\n"


def test_the_smallest_part(capsys):
    def full(part):
        raise torch.OutOfMemoryError(FULL)

    with pytest.raises(TooSmall, match=r"does not hold batches of 1 \(2.50 GiB more were needed, 1.00 MiB of 79.18"):
        Parts()(8, full)
    with pytest.raises(TooSmall, match=r"batches of 4 .*a program of a smaller min_batch or device=cpu$"):
        Parts(least=lambda: 4)(32, full)
    assert capsys.readouterr().out == ""


def test_another_error_is_raised():
    def bug(part):
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        Parts()(8, bug)


@pytest.mark.parametrize("after", [0, 2], ids=["in the warm-up", "in mid-run"])
@pytest.mark.parametrize("pipeline", ["sequential", "overlap", "overlap, GPU decodes"])
def test_a_batch_too_large_for_the_gpu(engine, pairs, tmp_path, capsys, request, pipeline, after):
    codec = None
    if pipeline.endswith("decodes"):
        request.getfixturevalue("cuda")
        codec = NvJpeg()
    expected = stages_for(engine, tmp_path / "expected", codec=codec)
    sequential.run(pairs, expected, batch_size=4)
    small, calls = limited(engine, 4, after=after)
    stages = stages_for(small, tmp_path / "out", codec=codec)
    if pipeline == "sequential":
        sequential.run(pairs, stages, batch_size=8)
    else:
        overlap.run(pairs, stages, batch_size=8, workers=2)
    assert files(tmp_path / "out") == files(tmp_path / "expected") != {}
    assert stages.failures == expected.failures
    said = capsys.readouterr().out
    # In mid-run it is a batch without those that failed, of 6 or 7, that is halved.
    assert re.fullmatch(
        rf"the GPU's memory holds only batches of {'[34]' if after else 4}: continuing with these\n", said
    )
    assert max(calls) == 8 and max(calls[-3:]) <= 4


@pytest.mark.usefixtures("cuda")
def test_a_batch_too_large_for_the_decoder(engine, pairs, tmp_path, capsys, monkeypatch):
    """In the warm-up and later: what was asked for is decoded by the GPU, as without."""
    expected = stages_for(engine, tmp_path / "expected", codec=NvJpeg())
    overlap.run(pairs, expected, batch_size=8, workers=2)
    decode = ByPillow.decode

    def limited(self, files, *, stream):
        if len(files.lengths) > 2:
            raise RuntimeError("nvjpegDecodeBatched: CUDA out of memory")
        return decode(self, files, stream=stream)

    monkeypatch.setattr(ByPillow, "decode", limited)
    stages = stages_for(engine, tmp_path / "out", codec=NvJpeg())
    overlap.run(pairs, stages, batch_size=8, workers=2)
    assert files(tmp_path / "out") == files(tmp_path / "expected") != {}
    assert "the GPU's memory holds only batches to decode of 2: continuing with these" in capsys.readouterr().out


def test_buffers_take_half_of_what_is_free(monkeypatch):
    image = 3 * 32 * 32 * 2
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 * 10 * image * GpuTranslator.depth, 1 << 40))
    assert [GpuTranslator.held(size, image, device=None) for size in (1, 10, 11, 500)] == [1, 10, 10, 10]


@pytest.mark.usefixtures("cuda")
@pytest.mark.parametrize("pipeline", [sequential, overlap])
def test_an_image_that_is_too_large_for_the_gpu_alone_is_decoded_by_the_cpu(
    engine, pairs, tmp_path, monkeypatch, pipeline
):
    def full(self, files, *, stream):
        raise torch.OutOfMemoryError(FULL)

    expected = stages_for(engine, tmp_path / "expected", codec=Fast())
    sequential.run(pairs, expected, batch_size=4)
    stages = stages_for(engine, tmp_path / "out", codec=NvJpeg())
    monkeypatch.setattr(ByPillow, "decode", full)
    monkeypatch.setattr(GpuLoader, "warmup", lambda *_: None)  # for images of the network's size there is memory
    pipeline.run(pairs, stages, batch_size=4, **({"workers": 2} if pipeline is overlap else {}))
    assert files(tmp_path / "out") == files(tmp_path / "expected") != {}
    assert stages.failures == expected.failures
