"""`p2p.load`: every kind of image in, the same kind out, with the bits of infer.py's files."""

import numpy as np
import pytest
import torch
from PIL import Image

import p2p
from p2p.deploy.backends import exported_program
from p2p.deploy.export import export
from p2p.models.init import initialize
from p2p.models.unet import UNet
from tests.conftest import picture

CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """An export of 32x32 pixels."""
    folder = tmp_path_factory.mktemp("api") / "export"
    (folder.parent / "last.ckpt").touch()
    torch.manual_seed(0)
    network = UNet(image_size=32, width=8)
    initialize(network, gain=0.2)
    facts = {"norm_stats": "instance", "direction": "AtoB", "checkpoint": folder.parent / "last.ckpt", "device": CPU}
    export(network, torch.rand(1, 3, 32, 32), folder, backend=exported_program.export, **facts)
    return folder


@pytest.fixture(scope="session")
def translate(folder):
    return p2p.load(str(folder), device="cpu")


def test_a_pil_image_comes_back_as_one(translate):
    image = picture(50, 40)
    assert translate(image).size == (32, 32) and translate(image, size="input").size == (50, 40)
    assert isinstance(translate(image), Image.Image)


def test_an_array_comes_back_as_one(translate):
    array = np.asarray(picture(50, 40))
    assert np.array_equal(translate(array), np.asarray(translate(picture(50, 40))))
