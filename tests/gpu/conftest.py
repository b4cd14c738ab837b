"""Artifacts and a run that the tests of faults share."""

import os
from functools import partial

import pytest
import torch

from p2p.deploy.backends import eager, exported_program
from p2p.deploy.export import export
from p2p.models.init import initialize
from p2p.models.unet import UNet
from tests.conftest import ROOT, picture
from tests.gpu.gpu_processes import SMALL, run


@pytest.fixture(scope="session")
def artifact():
    """Exports a U-Net into that folder."""

    def make(folder, backend, *, side, width, **options):
        checkpoint = folder.parent / "last.ckpt"
        checkpoint.touch()
        torch.manual_seed(0)
        network = UNet(image_size=side, width=width)
        initialize(network, gain=0.2)
        facts = {"norm_stats": "instance", "direction": "AtoB", "checkpoint": checkpoint}
        made = partial(backend.export, **options)
        export(network, torch.rand(1, 3, side, side), folder, backend=made, device=torch.device("cuda"), **facts)

    return make


@pytest.fixture(scope="session")
def large(tmp_path_factory, artifact):
    """An artifact of 256x256 pixels, whose program runs in CUDA graphs, and 192 images."""
    folder = tmp_path_factory.mktemp("large")
    artifact(folder / "graph", eager, side=256, width=64)
    (folder / "in").mkdir()
    for index in range(192):
        picture(256, 256, seed=index).save(folder / f"in/{index:03d}.png")
    return folder


@pytest.fixture(scope="session")
def small(tmp_path_factory, artifact):
    """Artifacts of 64x64 pixels, with CUDA graphs and without, and 400 images as JPEG."""
    folder = tmp_path_factory.mktemp("small")
    artifact(folder / "graph", eager, side=64, width=16)
    artifact(folder / "plain", exported_program, side=64, width=16)
    (folder / "in").mkdir()
    for index in range(400):
        picture(64, 64, seed=index).save(folder / f"in/{index:03d}.jpg", quality=95)
    return folder


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A run of one epoch: its folder, and how the commands are told of it."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    name = f"name={os.path.relpath(folder, ROOT / 'runs')}"
    run("train.py", name, *SMALL, "epochs=1", "batch_size=8")
    return folder, name
