import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from p2p.codecs.pillow import Pillow
from p2p.data.pairs import find_inputs
from p2p.data.reading import RGB
from p2p.data.transforms.torchvision import Torchvision
from p2p.deploy.backends import exported_program
from p2p.deploy.engine import load_engine
from p2p.deploy.export import export
from p2p.models.init import initialize
from p2p.models.unet import UNet
from p2p.pipelines.stages import Stages
from p2p.profiling.clock import Clock
from tests.conftest import picture

CPU = torch.device("cpu")


def exported(tmp_path_factory, **options):
    folder = tmp_path_factory.mktemp("run") / "export"
    checkpoint = folder.parent / "last.ckpt"
    checkpoint.touch()
    torch.manual_seed(0)
    network = UNet(image_size=32, width=8)
    initialize(network, gain=0.2)
    facts = {"norm_stats": "instance", "direction": "AtoB", "checkpoint": checkpoint, "device": CPU} | options
    export(network, torch.rand(1, 3, 32, 32), folder, backend=exported_program.export, **facts)
    return folder


@pytest.fixture(scope="session")
def export_folder(tmp_path_factory):
    return exported(tmp_path_factory)


@pytest.fixture(scope="session")
def engine(export_folder):
    return load_engine(export_folder, device=CPU)


@pytest.fixture(scope="session")
def frames_engine(tmp_path_factory):
    """The same network, of which the program takes frames."""
    return load_engine(exported(tmp_path_factory, frames=True), device=CPU)


class Negative:
    """An engine of 16x16 images that costs nothing."""

    device = CPU
    channels = 3
    takes_frames = False
    program = SimpleNamespace(sizes=None, min_batch=1)
    manifest = SimpleNamespace(
        input_shape=[3, 16, 16], output_shape=[3, 16, 16], stride=4, program=program, readings=(RGB, RGB)
    )

    def __call__(self, input_NCHW):
        return -input_NCHW

    def frames(self, frames_NHWC):
        return 255 - frames_NHWC


def stages_for(engine, output, *, codec=None, image_size=32, preprocess="resize_and_crop", **options):
    transform = Torchvision(image_size=image_size, preprocess=preprocess)
    return Stages(engine=engine, transform=transform, codec=codec or Pillow(), output=output, clock=Clock(), **options)


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def inputs(tmp_path):
    """11 images of several sizes and formats, two folders deep."""
    folder = tmp_path / "inputs"
    for index in range(11):
        path = folder / ("deep/er" if index % 3 == 0 else ".") / f"{index:02d}{('.png', '.jpg', '.webp')[index % 3]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(40 + index, 50, seed=index).save(path)
    return folder


@pytest.fixture
def pairs(tmp_path):
    """JPEG of the network's size, and between them other formats, other sizes and broken ones."""
    folder = tmp_path / "inputs"
    folder.mkdir()
    for index in range(21):
        picture(32, 32, seed=index).save(folder / f"{index:02d}.jpg", quality=95)
    picture(32, 32, seed=90).save(folder / "03b.png")
    picture(40, 50, seed=91).save(folder / "07b.jpg")
    Image.fromarray(np.arange(32 * 32, dtype=np.uint16).reshape(32, 32)).save(folder / "08b.png")
    data = (folder / "09.jpg").read_bytes()
    (folder / "09.jpg").write_bytes(data[: len(data) // 2])
    (folder / "10.jpg").write_bytes(data[: len(data) // 2] + data[-2:])  # looks whole
    return find_inputs(str(folder))


def children(pid):
    """The processes that a process has started and not yet waited for."""
    try:
        found = [path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except FileNotFoundError:
        return set()
    return {int(child) for line in found for child in line}


def shared_memory():
    """What of it has a name, and what is mapped here."""
    maps = Path("/proc/self/maps").read_text().splitlines()
    names = {name for name in os.listdir("/dev/shm") if not name.startswith("p2p-test-")}  # noqa: PTH208 - names alone
    return names, [line for line in maps if "memfd:p2p" in line]
