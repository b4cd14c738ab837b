import os
import signal
import subprocess

import numpy as np
import pytest
import torch
from PIL import Image

from p2p.data.pairs import Pair, Source
from p2p.system import signals
from tests.composing import compose_once
from tests.started import ROOT, Commands

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # tests/kernels; read when Triton is imported, which Lightning does


@pytest.fixture(autouse=True)
def from_the_repository(monkeypatch):
    """Relative paths of the configs, such as data/samples, start at the repository."""
    monkeypatch.chdir(ROOT)


@pytest.fixture(autouse=True, scope="session")
def a_build_cache_of_its_own(tmp_path_factory):
    """Exports, also those of processes that tests start, leave the user's cache alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True, scope="session")
def conf_is_merged_once():
    """See `tests.composing`."""
    with pytest.MonkeyPatch.context() as patch:
        compose_once(patch)
        yield


@pytest.fixture(autouse=True)
def signals_as_before():
    """Commands that tests run in this process leave their own answers to Ctrl-C and SIGTERM."""
    before = {number: signal.getsignal(number) for number in signals.NAMES}
    yield
    signals.received = None
    for number, handler in before.items():
        signal.signal(number, handler)


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """A smooth random RGB image: JPEG and resizing change it little, unlike noise."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def pair_folder(tmp_path):
    """A data set of 4 + 3 A|B pairs, 128x64."""
    for split, count in (("train", 4), ("val", 3)):
        folder = tmp_path / "pairs" / split
        folder.mkdir(parents=True)
        for index in range(count):
            picture(128, 64, seed=index).save(folder / f"{index}.png")
    return tmp_path / "pairs"


@pytest.fixture(scope="session")
def commands(tmp_path_factory):
    """Fast starts of the three commands, with a temporary folder and a build cache of their own."""
    commands = Commands(tmp_path_factory.mktemp("commands"))
    yield commands
    commands.close()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 128 KiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk takes root")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.fixture
def many(tmp_path):
    """`many(n)`: n pairs that all read one file of 16x16 pixels."""
    np.save(tmp_path / "one.npy", np.full((16, 16, 3), 55, np.uint8))
    return lambda count: [Pair(f"{index:05d}", Source(tmp_path / "one.npy")) for index in range(count)]
