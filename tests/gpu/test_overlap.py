"""The overlapped pipeline on a GPU: the same bytes, page-locked slots, and nothing that waits for the device."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from p2p.batch import from_frames, to_frames
from p2p.codecs.fast import Fast
from p2p.codecs.nvjpeg import NvJpeg, NvJpegDecoder
from p2p.codecs.pillow import Pillow, decode
from p2p.codecs.png import decode_deep
from p2p.data.pairs import Pair, find_inputs
from p2p.data.reading import RGB
from p2p.data.transforms import cvcuda
from p2p.deploy import cuda_graph
from p2p.deploy.backends import exported_program
from p2p.deploy.engine import load_engine
from p2p.deploy.export import export
from p2p.models.init import initialize
from p2p.models.unet import UNet
from p2p.pipelines import overlap, sequential
from p2p.pipelines.gpu_translator import GpuTranslator
from p2p.pipelines.slots import HIGH_DEPTH, SharedArray
from tests.conftest import picture
from tests.pipelines.conftest import files, stages_for

pytestmark = pytest.mark.gpu

CUDA = torch.device("cuda")


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "export"
    checkpoint = folder.parent / "last.ckpt"
    checkpoint.touch()
    torch.manual_seed(0)
    network = UNet(image_size=64, width=16)
    initialize(network, gain=0.2)
    facts = {"norm_stats": "instance", "direction": "AtoB", "checkpoint": checkpoint, "device": CUDA}
    export(network, torch.rand(1, 3, 64, 64), folder, backend=exported_program.export, **facts)
    return load_engine(folder, device=CUDA)


@pytest.fixture
def pairs(tmp_path):
    """61 images, so that the last batch is not full; among them a 16-bit one, a float one, and one that is broken."""
    folder = tmp_path / "inputs"
    folder.mkdir()
    for index in range(58):
        picture(70 + index, 60, seed=index).save(folder / f"{index:02d}.png")
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 65536, (64, 64), dtype=np.uint16)).save(folder / "30b.png")
    np.save(folder / "30c.npy", rng.random((40, 32, 3), dtype=np.float32))
    (folder / "44b.jpg").write_bytes(b"broken")
    return find_inputs(str(folder))


@pytest.mark.parametrize(("batch_size", "slots"), [(1, 1), (8, 1), (8, None), (32, 3)])
def test_both_pipelines_write_the_same_bytes(engine, pairs, tmp_path, batch_size, slots):
    expected, stages = (stages_for(engine, tmp_path / name, image_size=64) for name in ("sequential", "overlap"))
    sequential.run(pairs, expected, batch_size=batch_size)
    overlap.run(pairs, stages, batch_size=batch_size, workers=4, slots=slots)
    assert files(tmp_path / "sequential") == files(tmp_path / "overlap")
    assert len(files(tmp_path / "overlap")) == 60
    assert list(stages.failures) == ["44b"]
    assert stages.clock.images["generate"] == 60
    assert set(stages.clock.lanes["generate"]) == {"engine stream"}


def test_16_bits_of_both_pipelines_are_the_same_bytes(engine, pairs, tmp_path):
    stages = {}
    for name, run in (("sequential", sequential.run), ("overlap", partial(overlap.run, workers=4))):
        stages[name] = stages_for(engine, tmp_path / name, image_size=64, codec=Fast(bits=16))
        run(pairs, stages[name], batch_size=8)
    assert files(tmp_path / "sequential") == files(tmp_path / "overlap")
    run(pairs, stages_for(engine, tmp_path / "8", image_size=64), batch_size=8)
    for name, data in files(tmp_path / "8").items():
        deep = decode_deep(files(tmp_path / "overlap")[name])
        assert np.abs(deep / 257 - decode(data)).max() <= 0.51


class Elementwise:
    """An engine that adds nothing up, slower and faster, so that only the pipeline can be wrong."""

    device = CUDA
    channels = 3
    image_size = 64
    takes_frames = False
    manifest = SimpleNamespace(input_shape=[3, 64, 64], output_shape=[3, 64, 64], readings=(RGB, RGB))

    def frames(self, frames_NHWC):
        frames_NHWC = frames_NHWC.to(CUDA, non_blocking=True)
        torch.cuda._sleep(int(torch.randint(1, 4_000_000, ())))  # cycles: up to 2 ms
        return 255 - frames_NHWC


@pytest.mark.parametrize("codec", [Pillow(), NvJpeg()], ids=["CPU decodes", "GPU decodes"])
@pytest.mark.parametrize("batch_size", [1, 8])
def test_no_slot_is_used_before_it_is_free(tmp_path, batch_size, codec):
    """The negative of every file, by Pillow, is what is written, 600 times: no image is in another's place."""
    (tmp_path / "in").mkdir()
    for index in range(40):
        picture(64, 64, seed=index).save(tmp_path / f"in/{index}.jpg", quality=95)
    inputs = find_inputs(str(tmp_path / "in"))
    stages = stages_for(Elementwise(), tmp_path / "out", image_size=64, codec=codec)
    pairs = [Pair(f"{i:03d}", inputs[i % 40].input) for i in range(600)]
    overlap.run(pairs, stages, batch_size=batch_size, workers=6)
    for pair in pairs:
        frame = decode(pair.input.path.read_bytes()).astype(int)
        written = decode((tmp_path / f"out/{pair.name}.png").read_bytes())
        assert np.abs(255 - frame - written).max() <= (0 if type(codec) is Pillow else 1)


def test_the_program_gives_the_same_twice(engine, tmp_path):
    """Or nothing could be compared."""
    stages_for(engine, tmp_path, image_size=64).warmup(8, images=8)
    images = torch.rand(8, 3, 64, 64) * 2 - 1
    first = engine(images)
    assert all(torch.equal(engine(images), first) for _ in range(20))


@pytest.mark.parametrize("resizes", [True, False])
@pytest.mark.parametrize("batch_size", [1, 8, 32])
def test_the_same_bytes_where_the_gpu_decodes(engine, pairs, tmp_path, monkeypatch, batch_size, resizes):
    """JPEG of all kinds, resized, in halves, and other formats and broken files between them."""
    if not resizes:
        monkeypatch.setattr(cvcuda, "unavailable", lambda: "CV-CUDA cannot be used")
    folder = pairs[0].input.path.parent
    for index in range(50):
        size = (64, 64) if index % 3 else (90 + index, 70)
        options = {"progressive": index % 7 == 0, "subsampling": ("4:4:4", "4:2:0", "4:2:2")[index % 3]}
        picture(*size, seed=index).save(folder / f"{index:02d}j.jpg", quality=95, **options)
        picture(128, 64, seed=index).save(folder / f"{index:02d}p.jpg", quality=95)
    whole = (folder / "10j.jpg").read_bytes()
    (folder / "20j.jpg").write_bytes(whole[: len(whole) // 2])
    for layout in (None, "side_by_side"):
        inputs = find_inputs(str(folder), layout=layout)
        done = {}
        for name, run in (("sequential", sequential.run), ("overlap", partial(overlap.run, workers=4))):
            done[name] = stages_for(engine, tmp_path / f"{name}{layout}", image_size=64, codec=NvJpeg())
            run(inputs, done[name], batch_size=batch_size)
        assert files(tmp_path / f"sequential{layout}") == files(tmp_path / f"overlap{layout}")
        assert done["sequential"].failures == done["overlap"].failures != {}
        decoded = done["overlap"].clock.lanes["decode"]
        assert {lane.rstrip("0123456789 ") for lane in decoded} == {"worker", "decoder"}


def test_decoding_on_the_gpu_changes_little(engine, tmp_path):
    for index in range(20):
        size = (64, 64) if index % 2 else (90, 70)
        picture(*size, seed=index).save(tmp_path / f"{index}.jpg", quality=95)
    for codec in (Fast(), NvJpeg()):
        stages = stages_for(engine, tmp_path / type(codec).__name__, image_size=64, codec=codec)
        overlap.run(find_inputs(str(tmp_path / "*.jpg")), stages, batch_size=8, workers=2)
    for index in range(20):
        one, two = (decode((tmp_path / kind / f"{index}.png").read_bytes()) for kind in ("Fast", "NvJpeg"))
        assert np.abs(one.astype(int) - two).mean() < 0.2


def test_a_cuda_graph_between_the_slots(engine, pairs, tmp_path, monkeypatch):
    """It is recorded in the warm-up, on one stream, and replayed on the pipeline's. cuDNN may choose other kernels."""
    program = engine._program
    expected, stages = (stages_for(engine, tmp_path / name, image_size=64) for name in ("eager", "graph"))
    sequential.run(pairs[:24], expected, batch_size=8)
    graph = cuda_graph.Captured(program, device=CUDA)
    monkeypatch.setattr(engine, "_program", graph)
    overlap.run(pairs[:24], stages, batch_size=8, workers=2)
    one, other = files(tmp_path / "eager"), files(tmp_path / "graph")
    assert one.keys() == other.keys()
    for name in one:
        frames = [np.asarray(Image.open(tmp_path / kind / name), np.int16) for kind in ("eager", "graph")]
        assert np.abs(frames[0] - frames[1]).max() <= 1


def test_frames_are_converted_within_the_graph(engine, monkeypatch):
    """Where conversions around a program would be a dozen launches."""
    calls, program = [], engine._program

    def counted(images):
        calls.append(len(images))
        return program(images)

    monkeypatch.setattr(engine, "_program", cuda_graph.Captured(counted, device=CUDA))
    monkeypatch.setattr(engine, "_converting", None)
    frames = torch.randint(0, 256, (8, 64, 64, 3), dtype=torch.uint8, device=CUDA)
    first, known = engine.frames(frames), len(calls)
    assert torch.equal(engine.frames(frames), first) and len(calls) == known
    assert (engine.frames(255 - frames).int() - to_frames(engine(from_frames(255 - frames))).int()).abs().max() <= 1


def test_a_program_that_always_returns_the_same_memory(engine, pairs, tmp_path, monkeypatch):
    """The next batch must not overwrite what is still being copied."""
    program, buffer = engine._program, torch.empty(8, 3, 64, 64, device=CUDA)

    @torch.inference_mode()
    def same_memory(input_NCHW):
        return buffer[: len(input_NCHW)].copy_(program(input_NCHW))

    expected, stages = (stages_for(engine, tmp_path / name, image_size=64) for name in ("fresh", "same"))
    sequential.run(pairs, expected, batch_size=8)
    monkeypatch.setattr(engine, "_program", same_memory)
    overlap.run(pairs, stages, batch_size=8, workers=4)
    assert files(tmp_path / "fresh") == files(tmp_path / "same")


@pytest.mark.parametrize("codec", [Pillow(), NvJpeg()], ids=["CPU decodes", "GPU decodes"])
def test_starting_a_batch_waits_for_nothing(engine, pairs, tmp_path, monkeypatch, codec):
    """torch raises wherever it would wait for the device, beyond the rare images of more than 8 bits."""
    load, start, calls = GpuTranslator.load, GpuTranslator.start, []

    def strict(method):
        def run(self, batch, *slot):
            torch.cuda.set_sync_debug_mode("default" if batch.in_state(HIGH_DEPTH) else "error")
            try:
                method(self, batch, *slot)
            finally:
                torch.cuda.set_sync_debug_mode("default")
            calls.append(len(self))

        return run

    monkeypatch.setattr(GpuTranslator, "load", strict(load))
    monkeypatch.setattr(GpuTranslator, "start", strict(start))
    stages = stages_for(engine, tmp_path / "out", image_size=64, codec=codec)
    overlap.run(pairs, stages, batch_size=4, workers=4)
    assert len(calls) == 2 * 16
    assert max(calls) <= GpuTranslator.depth


def test_graphs_are_recorded_beside_files_that_the_gpu_cannot_decode(engine, tmp_path, monkeypatch):
    """Batches of many sizes, each with a graph of its own, and files that nvJPEG says it cannot decode."""
    (tmp_path / "in").mkdir()
    for index in range(96):
        path = tmp_path / f"in/{index:02d}.jpg"
        picture(64, 64, seed=index).save(path, quality=95)
        if index % 8 <= index // 8 % 6:
            path.write_bytes(b"broken")
    decode = NvJpegDecoder._decode
    monkeypatch.setattr(NvJpegDecoder, "_decode", lambda *given: decode(*given) or 6 * int(given[1].lengths[0] % 2))
    monkeypatch.setattr(engine, "_program", cuda_graph.Captured(engine._program, device=CUDA))
    monkeypatch.setattr(engine, "_converting", None)
    monkeypatch.setattr(overlap, "GROUP", 1)  # no more than a batch in a slot
    stages = stages_for(engine, tmp_path / "out", image_size=64, codec=NvJpeg())
    overlap.run(find_inputs(str(tmp_path / "in")), stages, batch_size=8, workers=4)
    assert len(files(tmp_path / "out")) + len(stages.failures) == 96 and len(engine._converting._recordings) > 3


def test_slots_are_page_locked_until_they_are_given_back():
    with SharedArray((4, 1 << 16), "uint8") as shared:
        shared.pin()
        host = torch.from_numpy(shared.array)
        assert host.is_pinned()
        host[1] = 7
        assert (host[1].to(CUDA, non_blocking=True) == 7).all()
        shared.array[2] = 9  # what another process writes is what the GPU reads
        assert (host[2].to(CUDA, non_blocking=True) == 9).all()
    assert not host.is_pinned()


def test_every_level_is_the_same_number_on_both_devices():
    frames = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).expand(2, 16, 16, 3).contiguous()
    assert torch.equal(from_frames(frames.to(CUDA)).cpu(), from_frames(frames))
