"""Settings of the data and of the transform work, or are refused before any work."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import InstantiationException

from p2p.commands.infer_settings import transform_for
from p2p.config.cli import CONF, explain
from p2p.data.datamodule import PairedImages
from p2p.data.transforms.torchvision import Torchvision


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"root": None}, r"^data\.root has no value: point it at a folder"),
        ({"root": ""}, r"^data\.root has no value: point it at a folder"),
        ({"val": None}, r"^data\.val has no value: name the folder of pairs that holds the val pairs"),
        ({"train": ""}, r"^data\.train has no value: name the folder"),
        ({"workers": 100_000}, r"^data\.workers=100000 is out of range: use 0 to 256$"),
        ({"input_channels": 0}, r"^data\.input_channels=0 is out of range: use 1 to 4096$"),
        ({"target_channels": -3}, r"^data\.target_channels=-3 is out of range: use 1 to 4096$"),
        ({"cache": "disk"}, r"^data\.cache=disk is not known: use one of auto, gpu, ram, none$"),
        ({"augmentation": "none"}, r"^data\.augmentation=none is not known: use one of auto, cvcuda, torch$"),
    ],
)
def test_of_the_data(options, message):
    with pytest.raises(ValueError, match=message):
        PairedImages(**{"root": "pairs", "transform": Torchvision(image_size=16)} | options)


def test_what_augments_on_a_gpu_is_not_ignored_on_a_cpu(pair_folder):
    transform = Torchvision(image_size=16)
    data = PairedImages(root=str(pair_folder), transform=transform, augmentation="cvcuda")
    with pytest.raises(ValueError, match=r"^data\.augmentation=cvcuda needs pairs that are kept on a GPU"):
        data.train_dataloader()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"multiple": 0, "preprocess": "none"}, r"^transform\.multiple=0 is out of range: use 1 to 16384$"),
        ({"multiple": 10**9, "preprocess": "none"}, r"^transform\.multiple=1000000000 is out of range"),
        ({"multiple": 4}, r"^transform\.multiple=4 has no effect with preprocess=resize_and_crop: leave it out$"),
        ({"load_size": 0}, r"^transform\.load_size=0 is out of range"),
        ({"load_size": -20, "preprocess": "scale_width"}, r"^transform\.load_size=-20 is out of range"),
        ({"load_size": 10**6}, r"^transform\.load_size=1000000 is out of range"),
        ({"load_size": 30}, r"^load_size=30 is smaller than image_size=32"),
        ({"load_size": 40, "preprocess": "crop"}, r"^transform\.load_size=40 has no effect with preprocess=crop"),
        ({"load_size": 40, "preprocess": "none"}, r"^transform\.load_size=40 has no effect with preprocess=none"),
        ({"image_size": 0}, r"^transform\.image_size=0 is out of range"),
        ({"image_size": -32}, r"^transform\.image_size=-32 is out of range"),
    ],
)
def test_of_the_transform(options, message):
    with pytest.raises(ValueError, match=message):
        Torchvision(**{"image_size": 32} | options)


def test_a_line_of_pixels_that_would_fill_the_memory_is_that_images_failure():
    line = np.zeros((60_000, 1, 3), np.uint8)
    for preprocess, message in (
        ("scale_width", r"^it comes out as 16384x983040000 pixels, which takes 161\d{3}[\d.]* GB of memory, and"),
        ("scale_width_and_crop", r"^it comes out as 16384x983040000 pixels"),
    ):
        with pytest.raises(ValueError, match=message):
            Torchvision(image_size=16_384, preprocess=preprocess).eval(line)


def options(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("infer", overrides=list(overrides)).transform


def test_of_the_transform_at_inference():
    manifest = SimpleNamespace(image_size=64, preprocess="resize_and_crop", multiple=32)
    assert transform_for(manifest, options()).eval(np.zeros((9, 7, 3), np.uint8)).shape == (3, 64, 64)
    assert transform_for(manifest, options("transform.image_size=64")).sizing.size == 64
    for override, message in {
        "transform.image_size=256": r"^transform\.image_size=256 is not the size that the program takes, 64: leave it",
        "transform.load_size=70": r"^transform\.load_size applies only to training: leave it out$",
        "transform.flip=false": r"^transform\.flip applies only to training: leave it out$",
        "transform.multiple=4": r"^transform\.multiple=4 has no effect with preprocess=resize_and_crop: leave it out$",
    }.items():
        with pytest.raises((ValueError, InstantiationException)) as raised:
            transform_for(manifest, options(override))
        assert re.search(message, explain(raised.value, "infer"))
    manifest.preprocess = "none"
    assert transform_for(manifest, options()).sizing.multiple == 32
    assert transform_for(manifest, options("transform.multiple=4")).sizing.multiple == 4
