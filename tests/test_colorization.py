"""Colours for grey photos: p2p pair grayscale --lightness, then experiment=colorization through the commands."""

import numpy as np
import pytest
import torch
from PIL import Image

import p2p
from p2p.commands.pair import main as pair
from p2p.deploy.backends import onnx
from p2p.models.lab import grey_of
from tests.conftest import picture
from tests.test_configs import compose_command

SMALL = ["image_size=32", "generator.width=4", "discriminator.width=4", "epochs=1", "trainer=cpu", "~callbacks.samples"]
BACKEND = "onnx" if onnx.unavailable() is None else "exported_program"


@pytest.fixture
def folder(tmp_path_factory):
    """A trained run in run/, of the pairs in pairs/, and a grey photo in grey/."""
    folder = tmp_path_factory.mktemp("colorization")
    for index in range(4):
        photo = folder / f"photos/{'val' if index == 3 else 'train'}/{index}.png"
        photo.parent.mkdir(parents=True, exist_ok=True)
        picture(32, 32, seed=index).save(photo)
    pair(["grayscale", str(folder / "photos"), str(folder / "pairs"), "--lightness"])
    (folder / "grey").mkdir()
    Image.open(folder / "pairs/val/3.png").crop((0, 0, 32, 32)).convert("L").save(folder / "grey/3.png")
    p2p.train(["experiment=colorization", f"data.root={folder}/pairs", *SMALL, f"run_dir={folder}/run"])
    return folder


def test_the_preset():
    cfg = compose_command("train", ["experiment=colorization", "data.root=pairs"])
    assert (cfg.image_size, cfg.batch_size, cfg.epochs) == (256, 1, 200)  # as experiment=paper
    assert (cfg.generator.in_channels, cfg.generator.out_channels, cfg.discriminator.input_channels) == (1, 3, 1)


@pytest.mark.slow
def test_a_run_is_exported_and_colours_a_grey_photo(folder, tmp_path):
    made = [f"run_dir={folder}/run", "device=cpu"]
    p2p.export([*made, f"backend={BACKEND}", f"output={tmp_path}/export", f"cache_dir={tmp_path}/cache"])
    arguments = [f"export={tmp_path}/export", f"input={folder}/grey", f"output={tmp_path}/out", "pipeline=sequential"]
    p2p.infer([*made, *arguments])
    coloured = np.asarray(Image.open(tmp_path / "out/3.png"))
    assert coloured.shape == (32, 32, 3) and np.ptp(coloured, axis=2).max() > 10
    levels = torch.tensor(coloured).permute(2, 0, 1)[None] / 127.5 - 1
    grey = torch.tensor(np.asarray(Image.open(folder / "grey/3.png")))
    inside = ((coloured > 0) & (coloured < 255)).all(axis=2)
    assert inside.sum() > 100
    assert ((grey_of(levels)[0, 0] + 1) * 127.5 - grey)[inside].abs().max() < 1  # the lightness is kept
