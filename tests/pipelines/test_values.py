"""Numbers, labels, pages and alpha through every pipeline: the same bytes, and what stands in them, by an engine that
gives back what it gets."""

import io
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from p2p.codecs.fast import Fast
from p2p.codecs.values import read_values
from p2p.data.pairs import find_inputs
from p2p.data.reading import Reading
from p2p.data.transforms.torchvision import Torchvision
from p2p.pipelines import lightning, overlap, sequential
from p2p.pipelines.stages import Stages
from p2p.profiling.clock import Clock
from tests.pipelines.conftest import files

RUNS = {"sequential": sequential.run, "overlap": partial(overlap.run, workers=1), "lightning": lightning.run}
ALONE = ("sequential",)
RNG = np.random.default_rng(0)


class Same:
    """An engine that gives back the first channels of what it gets."""

    device = torch.device("cpu")
    takes_frames = False

    def __init__(self, reading, target, size):
        shapes = ([each.channels, *size] for each in (reading, target))
        self.manifest = SimpleNamespace(
            **dict(zip(("input_shape", "output_shape"), shapes, strict=True)), readings=(reading, target)
        )

    def __call__(self, input_NCHW):
        return input_NCHW[:, : self.manifest.output_shape[0]]

    def frames(self, frames_NHWC):
        return frames_NHWC[..., : self.manifest.output_shape[0]]


def written(folder, tmp_path, reading, target, *, codec, size=(16, 16), pages="first", runs=RUNS, **options):
    """What pipelines write of a folder: the same files."""
    found = {}
    for name in runs:
        engine, transform = Same(reading, target, size), Torchvision(image_size=16)
        output = tmp_path / f"{name}{len(list(tmp_path.iterdir()))}"
        stages = Stages(engine=engine, transform=transform, codec=codec, output=output, clock=Clock(), **options)
        RUNS[name](find_inputs(str(folder), pages=pages), stages, batch_size=2)
        assert not stages.failures
        found[name] = files(output)
    assert all(each == found["sequential"] for each in found.values())
    return found["sequential"]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def test_12_bits_in_16_come_back_as_they_were(folder, tmp_path):
    frames = {f"{number}": RNG.integers(0, 4096, (16, 16), np.uint16) for number in range(3)}
    for name, frame in frames.items():
        Image.fromarray(frame).save(folder / f"{name}.png")
    reading = Reading(1, (0.0, 4095.0))
    for format, bits in (("png", None), ("tiff", None), ("npy", 16), ("tiff", 32)):
        runs = RUNS if format == "png" else ALONE
        outputs = written(folder, tmp_path, reading, reading, codec=Fast(format=format, bits=bits), runs=runs)
        for name, frame in frames.items():
            data = outputs[f"{name}.{format}"]
            read = np.load(io.BytesIO(data))[..., 0] if format == "npy" else np.asarray(Image.open(io.BytesIO(data)))
            if bits == 32:
                assert read.dtype == np.float32
                assert np.abs(read - frame).max() < 0.001
            else:
                assert read.dtype == np.uint16
                assert (read == frame).all()
    shown = written(folder, tmp_path, reading, reading, codec=Fast(bits=8), runs=ALONE)
    for name, frame in frames.items():
        read = np.asarray(Image.open(io.BytesIO(shown[f"{name}.png"])))
        assert np.abs(read - frame / 4095 * 255).max() <= 0.501
    # Other units of the outputs: grey in, 100 to 200 out.
    outputs = written(
        folder, tmp_path, reading, Reading(1, (100.0, 200.0)), codec=Fast(format="tiff"), runs=("sequential", "overlap")
    )
    read = np.asarray(Image.open(io.BytesIO(outputs["0.tiff"])))
    assert read.dtype == np.float32  # 16 bits would leave 100 steps
    assert np.abs(read - (100 + frames["0"] / 40.95)).max() < 0.01


def test_colour_of_16_bits_at_its_own_size(folder, tmp_path):
    frame = RNG.integers(0, 65536, (32, 24, 3), np.uint16)
    (folder / "x.png").write_bytes(Fast(bits=16).encode(frame))
    reading = Reading(3, (0.0, 65535.0))
    codec = Fast(format="tiff", bits=16)
    (small,) = written(folder, tmp_path, reading, Reading(3), codec=codec, runs=ALONE).values()
    (large,) = written(folder, tmp_path, reading, Reading(3), codec=codec, restore_size=True).values()
    for data, size in ((small, (16, 16)), (large, (24, 32))):
        read = read_values(data, channels=3)
        assert read.dtype == np.uint16
        for channel in range(3):
            sized = Image.fromarray(frame[..., channel].astype(np.float32)).resize((16, 16), Image.Resampling.BICUBIC)
            expected = np.asarray(sized).clip(0, 65535)
            if size != (16, 16):
                expected = np.asarray(Image.fromarray(expected).resize(size, Image.Resampling.BICUBIC)).clip(0, 65535)
            assert np.abs(read[..., channel] - expected).max() <= 0.6


def test_what_16_bits_or_8_cannot_hold_is_refused_before_any_work(tmp_path):
    negative = Reading(1, (-500.0, 500.0))
    make = partial(Stages, transform=Torchvision(image_size=16), output=tmp_path / "out", clock=Clock())
    with pytest.raises(ValueError, match=r"^16 bits hold no values from -500 to 500, which are .* codec\.format=tiff"):
        make(engine=Same(negative, negative, (16, 16)), codec=Fast(format="png"))
    engine = Same(Reading(1), Reading(1), (16, 16))
    engine.takes_frames = True
    with pytest.raises(ValueError, match=r"^codec\.bits=16 needs more than the 8 bits that a program of frames=true"):
        make(engine=engine, codec=Fast(bits=16))
    with pytest.raises(ValueError, match=r"^codec\.bits=16 is not of codec\.format=jpg: use 8, or a format that has"):
        Fast(format="jpg", bits=16)


def test_labels_and_edges_reach_the_engine(folder, tmp_path):
    instances = np.repeat(np.repeat(RNG.choice([0, 1, 2001, 2002], (8, 8)), 4, axis=0), 4, axis=1).astype(np.uint16)
    Image.fromarray(instances).save(folder / "x.png")
    reading = Reading(4, labels=3, edges=True)
    (data,) = written(folder, tmp_path, reading, Reading(4), codec=Fast(format="npy")).values()
    seen, small = np.load(io.BytesIO(data)), instances[1::2, 1::2]
    labels = np.where(small < 1000, small, small // 1000)
    assert (seen[..., :3] == 255 * (labels[..., None] == np.arange(3))).all()
    padded = np.pad(small, 1, mode="edge")
    others = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    assert (seen[..., 3] == 255 * np.any([other != small for other in others], axis=0)).all()


def test_pages_are_images(folder, tmp_path):
    pages = [RNG.integers(0, 256, (16, 16, 3), np.uint8) for _ in range(3)]
    first, *others = map(Image.fromarray, pages)
    first.save(folder / "x.tif", save_all=True, append_images=others)
    first.save(folder / "y.tif")
    outputs = written(
        folder, tmp_path, Reading(3), Reading(3), codec=Fast(), pages="all", runs=("sequential", "overlap")
    )
    assert [*sorted(outputs)] == ["x_p000.png", "x_p001.png", "x_p002.png", "y.png"]
    for number, page in enumerate(pages):
        assert (np.asarray(Image.open(io.BytesIO(outputs[f"x_p00{number}.png"]))) == page).all()
    first.save(folder / "x_p001.png")
    with pytest.raises(ValueError, match=r"x\.tif and .*x_p001\.png would both be written as x_p001"):
        find_inputs(str(folder), pages="all")
    assert len(find_inputs(str(folder))) == 3


@pytest.mark.parametrize("format", ["png", "tiff", "webp"])
def test_alpha_is_kept(folder, tmp_path, format):
    opaque = RNG.integers(0, 256, (16, 16), np.uint8)
    colours = RNG.integers(0, 256, (16, 16, 3), np.uint8)
    Image.fromarray(np.dstack([colours, opaque])).save(folder / "x.png")
    Image.fromarray(colours).save(folder / "y.png")
    codec = Fast(format=format, lossless=format == "webp")
    outputs = written(
        folder, tmp_path, Reading(3), Reading(3), codec=codec, keeps_alpha=True, runs=RUNS if format == "png" else ALONE
    )
    x, y = (Image.open(io.BytesIO(outputs[f"{name}.{format}"])) for name in "xy")
    assert (x.mode, y.mode) == ("RGBA", "RGB")
    assert (np.asarray(x)[..., 3] == opaque).all()
    if format != "webp":  # which changes what lies under transparency
        assert (np.asarray(x)[..., :3] == colours).all()
    large = Image.fromarray(opaque).resize((40, 24), Image.Resampling.BICUBIC)
    Image.merge("LA", (large, large)).save(folder / "x.png")
    small = large.resize((16, 16), Image.Resampling.BICUBIC)
    for restored, expected in ((False, small), (True, large)):
        options = {"keeps_alpha": True, "restore_size": restored}
        data = written(folder, tmp_path, Reading(3), Reading(3), codec=codec, runs=ALONE, **options)[f"x.{format}"]
        assert (np.asarray(Image.open(io.BytesIO(data)))[..., 3] == np.asarray(expected)).all()
