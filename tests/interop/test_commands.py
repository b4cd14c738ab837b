"""Weights of the reference through the commands, in this process."""

import argparse
import importlib.util
import json
import os
import runpy
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from PIL import Image
from torch import nn
from torchvision.transforms.functional import pil_to_tensor

import p2p
from p2p.commands import to_reference
from p2p.interop.config import load_start, reference_record
from p2p.models.inference_view import inference_view
from p2p.models.lab import coloured, lightness
from p2p.models.patchgan import PatchGAN
from p2p.models.unet import UNet
from tests.conftest import ROOT, picture

pytestmark = pytest.mark.slow

spec = importlib.util.spec_from_file_location("networks", Path(__file__).parent / "reference_networks.py")
theirs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(theirs)

FAST = ["trainer=cpu", "epochs=1", "+trainer.limit_train_batches=2", "+trainer.limit_val_batches=1", "batch_size=1"]


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Start a command for the run that lies in tmp_path/run: what it prints, or the sentence it refuses with."""

    def start(command, *overrides):
        name = os.path.relpath(tmp_path / "run", ROOT / "runs")
        monkeypatch.setattr(sys, "argv", [f"{command}.py", f"name={name}", *map(str, overrides)])
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
        GlobalHydra.instance().clear()
        try:
            runpy.run_path(str(ROOT / f"{command}.py"), run_name="__main__")
        except SystemExit as stopped:
            assert "\n" not in stopped.code
            return stopped.code
        return capsys.readouterr().out

    return start


def save(folder, *, generator=None, discriminator=None):
    """The reference's two files, of seeded networks with outputs that are not grey."""
    torch.manual_seed(0)
    for letter, network in (("G", generator), ("D", discriminator)):
        if network is not None:
            for parameter in network.parameters():
                torch.nn.init.normal_(parameter, std=0.2)
            torch.save(network.state_dict(), folder / f"latest_net_{letter}.pth")
    return folder / "latest_net_G.pth"


def test_a_reference_model_is_exported_and_translates_without_a_run(run, tmp_path):
    reference = theirs.unet(depth=5)
    path = save(tmp_path, generator=reference)
    (tmp_path / "photos").mkdir()
    for index in range(3):
        picture(32, 32, seed=index).save(tmp_path / f"photos/{index}.png")
    out = run("export", f"ckpt_path={path}", f"images_from={tmp_path}/photos", "direction=BtoA", "device=cpu")
    assert f"{path}: unet_32, width 4, norm batch, 3 to 3 channels" in out
    assert "norm_stats=instance" in out and "over 3 images" in out and "input=your/images" in out
    manifest = json.loads((tmp_path / "run/export/manifest.json").read_text())
    assert (manifest["input_shape"], manifest["direction"]) == ([3, 32, 32], "BtoA")

    run("infer", f"input={tmp_path}/photos", "batch_size=2", "device=cpu")
    view = inference_view(reference, norm_stats="instance")  # what the reference computes when it tests at batch 1
    for index in range(3):
        frame = pil_to_tensor(Image.open(tmp_path / f"photos/{index}.png"))
        with torch.no_grad():
            output = view(frame[None] / 127.5 - 1)[0]
        written = pil_to_tensor(Image.open(tmp_path / f"run/images/{index}.png"))
        assert (written - (output + 1) * 127.5).abs().max() <= 0.51  # rounded, not truncated
    sentence = run("infer", "device=cpu")
    assert "there is no trained run in" in sentence and sentence.endswith("or say what to translate with input=")


def test_image_size_and_data_of_a_reference_model(run, tmp_path):
    path = save(tmp_path, generator=theirs.resnet(blocks=1, into=1))
    out = run("export", f"ckpt_path={path}", "image_size=20", "images=2", "device=cpu")
    assert "resnet_1blocks, width 4, norm batch, 1 to 3 channels" in out and "over 2 images" in out
    manifest = json.loads((tmp_path / "run/export/manifest.json").read_text())
    assert (manifest["input_shape"], manifest["output_shape"]) == ([1, 20, 20], [3, 20, 20])
    assert "image_size=30 is none, use 28" in run("export", f"ckpt_path={path}", "image_size=30")
    path.write_bytes(b"hello")
    assert f"{path} is not a state dict of pytorch-CycleGAN-and-pix2pix" in run("export", f"ckpt_path={path}")


def test_channels_that_the_format_has_not_are_refused_before_any_work(run, tmp_path):
    path = save(tmp_path, generator=theirs.unet(depth=5, out=2))
    (tmp_path / "photos").mkdir()
    picture(32, 32).save(tmp_path / "photos/x.png")
    run("export", f"ckpt_path={path}", f"images_from={tmp_path}/photos", "device=cpu")
    for format in ("png", "jpg"):
        sentence = run("infer", f"input={tmp_path}/photos", f"codec.format={format}", "device=cpu")
        assert sentence == f"error: .{format} files have no 2 channels: use codec.format=npy or tiff"
        assert not (tmp_path / "run/images").exists()
    run("infer", f"input={tmp_path}/photos", "codec.format=npy", "device=cpu")
    assert np.load(tmp_path / "run/images/x.npy").shape == (32, 32, 2)


@pytest.fixture
def colorization(tmp_path):
    """What --model colorization of the reference trains: a generator, and the path of its file beside one of D."""
    generator = theirs.unet(depth=5, into=1, out=2)
    path = save(tmp_path, generator=generator, discriminator=theirs.patchgan(channels=3))
    return generator, path


def test_a_model_of_colorization_gives_rgb(run, colorization, tmp_path):
    generator, path = colorization
    (tmp_path / "photos").mkdir()
    picture(32, 32).convert("L").save(tmp_path / "photos/x.png")
    out = run("export", f"ckpt_path={path}", f"images_from={tmp_path}/photos", "device=cpu")
    assert f"{path}: unet_32, width 4, norm batch, grey to RGB by CIE Lab" in out
    run("infer", f"input={tmp_path}/photos", "device=cpu")

    grey = pil_to_tensor(Image.open(tmp_path / "photos/x.png"))[None] / 127.5 - 1
    with torch.no_grad():  # as it computes it when it tests; the colours are tested in tests/models/test_lab.py
        rgb = coloured(grey, inference_view(generator, norm_stats="instance")(lightness(grey)))[0]
    assert rgb.abs().max() > 1 and (rgb[0] - rgb[1]).abs().max() > 0.1
    written = pil_to_tensor(Image.open(tmp_path / "run/images/x.png"))
    assert (written - (rgb.clamp(-1, 1) + 1) * 127.5).abs().max() <= 0.51
    loaded = np.asarray(p2p.load(path, device="cpu")(Image.open(tmp_path / "photos/x.png")))
    assert np.abs(loaded.astype(int) - written.permute(1, 2, 0).numpy()).max() <= 1


def test_a_model_of_colorization_is_trained_on_and_goes_out(run, colorization, tmp_path, capsys):
    _, path = colorization
    options = [*FAST, f"init_from={path}", "image_size=32", "discriminator.width=4"]
    assert "grey to RGB by CIE Lab, but data.input_channels=3: set data.input_channels=1" in run("train", *options)
    refused = run("train", *options, "data.input_channels=1", f"init_discriminator_from={tmp_path}/latest_net_D.pth")
    assert "judges L, a and b, and here the discriminator judges RGB: leave it out" in refused
    out = run("train", *options, "data.input_channels=1", "optimizer.lr=0")
    assert "latest_net_D.pth is not used: it judges L, a and b, and here the discriminator judges RGB" in out
    to_reference.write_reference(tmp_path / "run/checkpoints/last.ckpt", tmp_path / "back")
    out = capsys.readouterr().out
    assert "no latest_net_D.pth: that of pytorch-CycleGAN-and-pix2pix judges L, a and b" in out
    assert "test.py --model colorization --dataroot PHOTOS" in out
    assert "--netG unet_32 --ngf 4 --norm batch --input_nc 1 --output_nc 2" in out and "--direction AtoB" in out
    before, after = (torch.load(file, weights_only=True) for file in (path, tmp_path / "back/latest_net_G.pth"))
    theirs.unet(depth=5, into=1, out=2).load_state_dict(after, strict=True)
    assert torch.equal(after["model.model.0.weight"], before["model.model.0.weight"])


def test_the_file_that_does_not_fit_is_the_one_that_is_named(tmp_path):
    """Of the two that training starts from."""
    model = nn.Module()
    model.generator, model.discriminator = UNet(image_size=32, width=4), PatchGAN(width=4)
    g, d = tmp_path / "latest_net_G.pth", tmp_path / "other_net_D.pth"
    weights = theirs.unet(depth=5).state_dict()
    with pytest.raises(ValueError, match=r"other_net_D\.pth does not fit the PatchGAN"):
        load_start(model, {"generator": (g, weights), "discriminator": (d, weights)})
    with pytest.raises(ValueError, match=r"latest_net_G\.pth does not fit the UNet"):
        load_start(model, {"generator": (g, theirs.unet(depth=6).state_dict())})


def test_training_starts_from_both_files_and_goes_out_again(run, tmp_path):
    generator, discriminator = theirs.unet(depth=5, width=6), theirs.patchgan(layers=2, norm="batch")
    path = save(tmp_path, generator=generator, discriminator=discriminator)
    still = ["optimizer.lr=0", "image_size=32", f"init_from={path}"]
    out = run("train", *FAST, *still, "generator.dropout=0.25")
    assert f"{path}: unet_32, width 6, norm batch, 3 to 3 channels" in out
    assert "latest_net_D.pth: PatchGAN of 2 layers, width 4, norm batch" in out
    run("export", "device=cpu")
    assert "dropout: 0.25" in (tmp_path / "run/train.yaml").read_text()

    to_reference.write_reference(tmp_path / "run/checkpoints/last.ckpt", tmp_path / "back")
    for letter, made in (("G", theirs.unet(depth=5, width=6)), ("D", theirs.patchgan(layers=2))):
        state = torch.load(tmp_path / f"back/latest_net_{letter}.pth", weights_only=True)
        made.load_state_dict(state, strict=True)
        before = torch.load(tmp_path / f"latest_net_{letter}.pth", weights_only=True)
        # At a learning rate of 0 only the running averages move.
        kept = [key for key in before if key.rpartition(".")[2] in ("weight", "bias")]
        assert kept and all(torch.equal(state[key], before[key]) for key in kept)


def test_mistakes_in_init_from(run, tmp_path):
    path = save(tmp_path, generator=theirs.unet(depth=6))
    assert "multiple of 64: image_size=96 is none, use 64" in run("train", f"init_from={path}", "image_size=96")
    path = save(tmp_path, generator=theirs.unet(depth=5, into=1))
    assert "set data.input_channels=1" in run("train", f"init_from={path}")
    assert "there is no file nowhere.pth" in run("train", "init_from=nowhere.pth")
    assert "init_discriminator_from=d.pth needs the generator's file" in run("train", "init_discriminator_from=d.pth")
    unused = ["init_from=g.pth", "init_discriminator_from=d.pth", "adversarial=none"]
    assert "init_discriminator_from=d.pth is of a discriminator, and adversarial=none trains" in run("train", *unused)


def test_going_out_says_how_to_load_it(run, tmp_path, capsys):
    small = ["image_size=32", "generator.width=4", "discriminator.width=4"]
    run("train", *FAST, *small, "generator.dropout=0", "discriminator.conditional=false")
    to_reference.write_reference(tmp_path / "run/checkpoints/last.ckpt", tmp_path / "back")
    out = capsys.readouterr().out
    assert " makes no --netG unet_32, only unet_128, unet_256, resnet_6blocks, resnet_9blocks" in out
    assert "--netG unet_32 --ngf 4 --norm batch --input_nc 3 --output_nc 3 --no_dropout --direction AtoB" in out
    assert "no latest_net_D.pth: pytorch-CycleGAN-and-pix2pix has only conditional ones" in out
    assert [path.name for path in (tmp_path / "back").iterdir()] == ["latest_net_G.pth"]


def parsed_by_the_reference(command):
    """Its options of test.py that concern us, with their types and defaults; an unknown one ends the test."""
    parser = argparse.ArgumentParser()
    for name, default in (
        ("dataroot", None),
        ("name", "experiment_name"),
        ("checkpoints_dir", "./checkpoints"),
        ("model", "cycle_gan"),
        ("input_nc", 3),
        ("output_nc", 3),
        ("ngf", 64),
        ("ndf", 64),
        ("netD", "basic"),
        ("netG", "unet_256"),
        ("n_layers_D", 3),
        ("norm", "batch"),
        ("direction", "AtoB"),
        ("load_size", 256),
        ("crop_size", 256),
        ("preprocess", "resize_and_crop"),
    ):
        parser.add_argument(f"--{name}", type=type(default) if default is not None else str, default=default)
    for name in ("no_dropout", "eval"):
        parser.add_argument(f"--{name}", action="store_true")
    words = shlex.split(command)
    assert words[:2] == ["python", "test.py"]
    return vars(parser.parse_args(words[2:]))


def test_the_printed_command_is_what_the_reference_needs(run, tmp_path, capsys):
    """Of a run without a discriminator, with everything else than the reference's defaults."""
    options = ["image_size=128", "generator.width=4", "adversarial=none", "data.direction=BtoA", "norm_stats=running"]
    run("train", *FAST, *options, "transform.preprocess=scale_width_and_crop", "data.target_channels=1")
    to_reference.main([f"{tmp_path}/run/checkpoints/last.ckpt", f"{tmp_path}/out here"])
    out = capsys.readouterr().out
    assert "no latest_net_D.pth: the run has no discriminator" in out
    assert "makes no --netG" not in out
    assert "unet_128, width 4, norm batch, 3 to 1 channels, the trained weights" in out
    assert [path.name for path in (tmp_path / "out here").iterdir()] == ["latest_net_G.pth"]
    command = out.splitlines()[-1].partition("next, there: ")[2]
    assert parsed_by_the_reference(command) == {
        "dataroot": "PAIRS",
        "name": "out here",
        "checkpoints_dir": str(tmp_path),
        "model": "pix2pix",
        "input_nc": 3,
        "output_nc": 1,
        "ngf": 4,
        "ndf": 64,
        "netD": "basic",
        "netG": "unet_128",
        "n_layers_D": 3,
        "norm": "batch",
        "direction": "BtoA",
        "load_size": 128,
        "crop_size": 128,
        "preprocess": "scale_width_and_crop",
        "no_dropout": True,
        "eval": True,
    }
    state = torch.load(tmp_path / "out here/latest_net_G.pth", weights_only=True)
    theirs.unet(depth=7, out=1).load_state_dict(state, strict=True)


def test_a_resnet_with_dropout_is_said_to_differ(run, tmp_path, capsys):
    resnet = ["generator=resnet_6blocks", "generator.blocks=1", "generator.width=4", "generator.dropout=0.5"]
    run("train", *FAST, *resnet, "image_size=16", "adversarial=none")
    to_reference.main([f"{tmp_path}/run/checkpoints/last.ckpt", f"{tmp_path}/out"])
    out = capsys.readouterr().out
    assert (
        "pytorch-CycleGAN-and-pix2pix tests this ResNet with dropout: its outputs differ" in out
        and "--no_dropout" not in out
    )
    state = torch.load(tmp_path / "out/latest_net_G.pth", weights_only=True)
    theirs.resnet(blocks=1).load_state_dict(state, strict=True)


def test_the_weights_that_go_out_are_those_that_were_validated(run, tmp_path, capsys):
    run("train", *FAST, "image_size=32", "generator.width=4", "discriminator.width=4", "callbacks=ema")
    checkpoint = tmp_path / "run/checkpoints/last.ckpt"
    record = torch.load(checkpoint, weights_only=True)
    states = {}
    for weights in (None, "ema", "trained"):
        arguments = [str(checkpoint), str(tmp_path / str(weights))]
        to_reference.main([*arguments, *(["--weights", weights] if weights else [])])
        assert f"the {weights or 'ema'} weights" in capsys.readouterr().out
        state = torch.load(tmp_path / f"{weights}/latest_net_G.pth", weights_only=True)
        states[weights] = state["model.model.0.weight"]
    assert torch.equal(states["trained"], record["state_dict"]["generator.down.0.1.weight"])
    assert torch.equal(states["ema"], record["ema"]["generator"]["down.0.1.weight"])
    assert torch.equal(states[None], states["ema"]) and not torch.equal(states["ema"], states["trained"])


def test_the_command_line_of_to_reference(tmp_path, capsys):
    with pytest.raises(SystemExit, match=r"error: there is no checkpoint \S*/x/y\.ckpt: name one"):
        to_reference.main([f"{tmp_path}/x/y.ckpt", f"{tmp_path}/out"])
    with pytest.raises(
        SystemExit, match=r"error: \S* is a folder: name a checkpoint, such as \S*/checkpoints/last\.ckpt$"
    ):
        to_reference.main([f"{tmp_path}", f"{tmp_path}/out"])
    with pytest.raises(SystemExit) as stopped:
        to_reference.main(["--help"])
    assert stopped.value.code == 0 and "runs/<name>/checkpoints/last.ckpt" in capsys.readouterr().out


def test_the_direction_of_a_file_of_the_reference_is_checked(tmp_path):
    with pytest.raises(ValueError, match=r"^direction=sideways is not known: use AtoB or BtoA$"):
        reference_record(tmp_path / "latest_net_G.pth", image_size=None, direction="sideways")
