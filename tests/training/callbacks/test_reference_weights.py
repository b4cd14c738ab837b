"""The files that are written while a run trains load into the reference's networks, written anew, with strict=True."""

import importlib.util
from pathlib import Path

import lightning
import pytest
import torch
from torch.utils.data import DataLoader

from p2p.batch import Batch
from p2p.models.patchgan import PatchGAN
from p2p.models.resize import ResizeConv2d
from p2p.models.unet import UNet
from p2p.training.callbacks.ema import EMA
from p2p.training.callbacks.reference_weights import ReferenceWeights
from p2p.training.writer import Writer
from tests.conftest import ROOT
from tests.training.test_pix2pix import pix2pix

spec = importlib.util.spec_from_file_location("networks", ROOT / "tests/interop/reference_networks.py")
theirs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(theirs)


class Late(Writer):
    """Writes when all is over: what is not a copy has changed by then."""

    def on_train_batch_start(self, *arguments):
        pass


class Seen(lightning.Callback):
    """The output of the generator for one input, as it validates."""

    def __init__(self, input_NCHW):
        self.input_NCHW, self.outputs = input_NCHW, []

    def on_validation_epoch_end(self, trainer, pl_module):
        self.outputs.append(pl_module.generator(self.input_NCHW))


def train(tmp_path, *callbacks, epochs, generator=None, discriminator=None, resumed=None):
    torch.manual_seed(0)
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    batch = Batch(["x"], images[:1], images[1:])
    model = pix2pix(generator or UNet(image_size=32, width=4, dropout=0.0), discriminator or PatchGAN(width=4))
    seen = Seen(images[:1])
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        num_sanity_val_steps=1,
        callbacks=[writer := Late(), *callbacks, seen],
        default_root_dir=tmp_path,
        enable_model_summary=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        logger=False,
    )
    loaders = [DataLoader([batch], batch_size=None) for _ in range(2)]
    trainer.fit(model, *loaders, ckpt_path=resumed)
    writer.wait()
    return images[:1], seen.outputs[1:], model, trainer  # without that of the sanity check


def names(folder: Path):
    return sorted(path.name for path in folder.iterdir())


def test_files_of_every_second_epoch_and_of_the_last(tmp_path):
    folder = tmp_path / "reference"
    callback = ReferenceWeights(folder=str(folder), every_n_epochs=2)
    input_NCHW, outputs, model, _ = train(tmp_path, callback, epochs=5)
    assert names(folder) == sorted(f"{name}_net_{part}.pth" for name in ("2", "4", "5", "latest") for part in "GD")
    reference = theirs.unet(depth=5, dropout=False).eval()
    for name, output in (("2", outputs[1]), ("4", outputs[3]), ("5", outputs[4]), ("latest", outputs[4])):
        reference.load_state_dict(torch.load(folder / f"{name}_net_G.pth", weights_only=True), strict=True)
        with torch.no_grad():
            torch.testing.assert_close(reference(input_NCHW), output, rtol=1e-4, atol=1e-5)
    judge = theirs.patchgan(layers=3)
    judge.load_state_dict(torch.load(folder / "latest_net_D.pth", weights_only=True), strict=True)
    assert torch.equal(next(judge.parameters()), next(model.discriminator.parameters()))
    judge.load_state_dict(torch.load(folder / "2_net_D.pth", weights_only=True), strict=True)
    assert not torch.equal(next(judge.parameters()), next(model.discriminator.parameters()))


@pytest.mark.parametrize("order", [1, -1])
def test_with_an_average_it_is_the_average_that_is_written(tmp_path, order):
    callbacks = [ReferenceWeights(folder=str(tmp_path / "reference"), numbered=False), EMA(decay=0.5)][::order]
    _, _, model, _ = train(tmp_path, *callbacks, epochs=3)
    (ema,) = [each for each in callbacks if isinstance(each, EMA)]
    assert names(tmp_path / "reference") == ["latest_net_D.pth", "latest_net_G.pth"]
    written = torch.load(tmp_path / "reference/latest_net_G.pth", weights_only=True)["model.model.0.weight"]
    checkpoint = {}
    ema.on_save_checkpoint(None, model, checkpoint)
    assert torch.equal(written, checkpoint["ema"]["generator"]["down.0.1.weight"])
    assert not torch.equal(written, model.generator.state_dict()["down.0.1.weight"])


def test_files_of_an_earlier_run_go_and_those_of_one_that_goes_on_stay(tmp_path):
    folder = tmp_path / "reference"
    folder.mkdir()
    for name in ("1_net_G.pth", "9_net_D.pth", "notes.txt"):
        (folder / name).touch()
    *_, trainer = train(tmp_path, ReferenceWeights(folder=str(folder), every_n_epochs=1), epochs=2)
    of_two = ["1_net_D.pth", "1_net_G.pth", "2_net_D.pth", "2_net_G.pth"]
    latest = ["latest_net_D.pth", "latest_net_G.pth", "notes.txt"]
    assert names(folder) == [*of_two, *latest]
    (tmp_path / "checkpoints").mkdir()
    trainer.save_checkpoint(tmp_path / "checkpoints/last.ckpt")
    resumed = str(tmp_path / "checkpoints/last.ckpt")
    train(tmp_path, ReferenceWeights(folder=str(folder), every_n_epochs=1), epochs=3, resumed=resumed)
    assert names(folder) == [*of_two, "3_net_D.pth", "3_net_G.pth", *latest]


def test_what_the_reference_has_not(tmp_path, capsys):
    no_counterpart = UNet(image_size=32, width=4, skips=False)
    callback = ReferenceWeights(folder=str(tmp_path / "reference"))
    with pytest.raises(ValueError, match=r"^callbacks=reference_weights cannot be used: pytorch-Cycle.* has no"):
        train(tmp_path, callback, epochs=1, generator=no_counterpart)
    folded = UNet(image_size=32, width=4, resize_last=True)
    assert any(isinstance(module, ResizeConv2d) for module in folded.modules())
    unconditional = PatchGAN(width=4, conditional=False)
    (tmp_path / "reference").mkdir(exist_ok=True)
    (tmp_path / "reference/latest_net_D.pth").touch()  # of an earlier run
    train(tmp_path, callback, epochs=1, generator=folded, discriminator=unconditional)
    assert "no latest_net_D.pth: pytorch-CycleGAN-and-pix2pix has only conditional ones" in capsys.readouterr().out
    assert names(tmp_path / "reference") == ["1_net_G.pth", "latest_net_G.pth"]
    state = torch.load(tmp_path / "reference/latest_net_G.pth", weights_only=True)
    theirs.unet(depth=5).load_state_dict(state, strict=True)
    with pytest.raises(ValueError, match="every_n_epochs=0 is out of range"):
        ReferenceWeights(folder="x", every_n_epochs=0)
