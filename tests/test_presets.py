"""Every preset composes, is what its table says, and trains two batches."""

import pytest
from hydra.utils import instantiate
from torch import nn

from p2p.config.cli import CONF
from p2p.models.patchgan import PixelGAN
from tests.test_configs import compose_command

# Losses, "conditional" of D, D's layers (0: pixels), skips, batch size: Isola et al. 2017, tables 1 to 3.
PRESETS = {
    "paper": ("L1+GAN", True, 3, True, 1),
    "paper_l1": ("L1", None, None, True, 1),
    "paper_gan": ("GAN", False, 3, True, 1),
    "paper_cgan": ("GAN", True, 3, True, 1),
    "paper_l1_gan": ("L1+GAN", False, 3, True, 1),
    "paper_l1_cgan": ("L1+GAN", True, 3, True, 1),
    "paper_encoder_decoder_l1": ("L1", None, None, False, 10),
    "paper_encoder_decoder_l1_cgan": ("L1+GAN", True, 3, False, 10),
    "paper_unet_l1": ("L1", None, None, True, 10),
    "paper_unet_l1_cgan": ("L1+GAN", True, 3, True, 10),
    "paper_pixel": ("L1+GAN", True, 0, True, 1),
    "paper_patch_16": ("L1+GAN", True, 1, True, 1),
    "paper_patch_70": ("L1+GAN", True, 3, True, 1),
    "modern": ("L1+GAN", True, 3, True, 4),
    "paper_patch_286": ("L1+GAN", True, 5, True, 1),
}
OF_THEIR_OWN = {"hd", "hd_global", "colorization"}  # tests/test_hd.py, tests/test_colorization.py
LOGGED = {"L1": {"G_l1"}, "GAN": {"G_gan", "D"}, "L1+GAN": {"G_l1", "G_gan", "D"}}


def test_none_is_forgotten():
    assert {path.stem for path in (CONF / "experiment").glob("*.yaml")} - OF_THEIR_OWN == set(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_preset(name, tmp_path):
    losses, conditional, layers, skips, batch_size = PRESETS[name]
    cfg = compose_command("train", [f"experiment={name}"], tmp_path)
    assert (cfg.image_size, cfg.epochs, cfg.batch_size, cfg.name) == (256, 200, batch_size, "default")

    small = ["image_size=128", "generator.width=2", "discriminator.width=2", "trainer=cpu", "batch_size=1"]
    few = ["epochs=1", "+trainer.limit_train_batches=2", "+trainer.limit_val_batches=1"]
    quiet = ["+trainer.logger=false", "+trainer.enable_progress_bar=false", "+trainer.enable_checkpointing=false"]
    cfg = compose_command("train", [f"experiment={name}", *small, *few, *quiet], tmp_path)
    model, trainer = (instantiate(cfg[part], _convert_="all") for part in ("model", "trainer"))
    assert model.generator.skips == skips
    if conditional is None:
        assert model.discriminator is None
    else:
        assert model.discriminator.conditional == conditional
        assert getattr(model.discriminator, "layers", 0) == layers
        assert isinstance(model.discriminator, PixelGAN) == (layers == 0)
    assert [type(loss.distance) for loss in model.losses.values()] == ([nn.L1Loss] if "L1" in losses else [])

    before = [parameter.clone() for parameter in model.parameters()]
    trainer.fit(model, instantiate(cfg.data, _convert_="all"))
    assert trainer.global_step == 2
    logged = {key.removeprefix("train/") for key in trainer.callback_metrics if key.startswith("train/")}
    assert logged == LOGGED[losses]
    assert all(value.isfinite() for value in trainer.callback_metrics.values())
    moved = [not after.equal(start) for after, start in zip(model.parameters(), before, strict=True)]
    assert all(moved)
