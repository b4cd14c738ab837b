"""The overlapped pipeline where the GPU decodes: what it is given, in which order, and what falls back to the CPU.

In place of the GPU's decoder stands a thread that has Pillow; tests/gpu has the real one.
"""

import random
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from p2p.codecs import pillow
from p2p.codecs.fast import Fast
from p2p.codecs.nvimgcodec import NvImgCodec
from p2p.data.pairs import Pair, Source
from p2p.data.transforms.cvcuda import CvCuda
from p2p.data.transforms.torchvision import Torchvision
from p2p.pipelines import overlap, sequential
from p2p.pipelines.files import Failure
from p2p.pipelines.slots import CODED
from p2p.pipelines.stages import Stages
from p2p.pipelines.translator import CpuTranslator
from p2p.profiling.clock import Clock
from tests.conftest import picture
from tests.pipelines.conftest import Negative, files, stages_for


class Decoding(CpuTranslator):
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
            except Failure as error:
                batch.fail(row, error)
            else:
                self._inputs[0][batch.slot, row] = frame

    def finish(self):
        batch, slot = super().finish()
        self.release(batch)
        return batch, slot

    def release(self, batch):
        self._held.remove(batch.slot)

    def end(self, *_):
        self._threads.shutdown(cancel_futures=True)


@pytest.fixture
def made(monkeypatch):
    """The translators that were made."""
    made = []

    def make(stages, arrays, *, wake):
        made.append(
            Decoding(
                stages, *(arrays[name] for name in ("input", "high_depth", "output")), coded=arrays["coded"], wake=wake
            )
        )
        return made[-1]

    monkeypatch.setattr(overlap, "make_translator", make)
    return made


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


def test_halves_of_another_shape_are_the_cpus_which_refuses_them(tmp_path):
    picture(32, 16).save(tmp_path / "x.jpg")
    data = (tmp_path / "x.jpg").read_bytes()
    for shape, fits in ((1.0, True), (1.5, False)):
        pair = Pair("x", Source(tmp_path / "x.jpg", "left", shape))
        assert files_for(tmp_path, "resize_and_crop", "any size").gpu_size(pair, data) == ((16, 16) if fits else None)


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
