"""What another setting makes useless is refused where it is typed, and said in a sweep; a default of no use is none."""

import re

import pytest
from hydra import compose, initialize_config_dir

import p2p
from p2p.config.heeded import check_heeded
from p2p.shipped import CONF

NO_GAME = "would be ignored, because adversarial=none trains no discriminator: leave it out"
IGNORED = {
    ("train", "discriminator=pixel adversarial=none"): f"discriminator=pixel {NO_GAME}",
    ("train", "adversarial=none discriminator.width=8"): f"discriminator.width=8 {NO_GAME}",
    ("train", "experiment=paper_l1 discriminator.width=8"): f"discriminator.width=8 {NO_GAME}",
    ("train", "losses=none model.lambda_l1=10"): "model.lambda_l1=10 would be ignored, because no loss takes",
    ("train", "losses.l1.weight=3 model.lambda_l1=10"): "model.lambda_l1=10 would be ignored, because no loss takes",
    (
        "infer",
        "codec.quality=90",
    ): "codec.quality=90 would be ignored, because it applies only to codec.format=jpg or webp",
    (
        "infer",
        "codec.format=npy codec.quality=90",
    ): "codec.quality=90 would be ignored, because it applies only to codec",
    (
        "infer",
        "codec.subsampling=420",
    ): "codec.subsampling=420 would be ignored, because it applies only to codec.format=jpg",
    (
        "infer",
        "codec.format=jpg codec.png_level=0",
    ): "codec.png_level=0 would be ignored, because it applies only to codec",
    (
        "infer",
        "codec.lossless=true",
    ): "codec.lossless=true would be ignored, because it applies only to codec.format=webp",
    ("train", "losses=[none,l1]"): "losses=[none,l1] is not valid: use none by itself, or leave it out",
    ("train", "reconstruction=l2 losses=l1"): "reconstruction=l2 is the same as losses=l2, and losses=l1 is given, too",
    ("train", "adversarial=[vanilla,none]"): "adversarial=[vanilla,none] chooses 2 options, of which only one would",
    ("infer", "pipeline=[auto,overlap]"): "pipeline=[auto,overlap] chooses 2 options, of which only one would count:",
    ("infer", "pipeline.workers=1000"): "pipeline.workers=1000 is out of range: use 0 to ",
    (
        "train",
        "data.labels=3 data.range=[0,9] data.target_range=[0,4095]",
    ): "data.range=[0,9] would be ignored, because inputs are labels",
    ("infer", "pipeline.slots=0"): "pipeline.slots=0 is out of range: use 1 or more",
}


@pytest.mark.parametrize(("command", "typed"), IGNORED)
def test_what_would_be_ignored_is_refused(command, typed):
    with pytest.raises(ValueError, match=f"^{re.escape(IGNORED[command, typed])}"):
        p2p.compose(typed.split(), command=command)


@pytest.mark.parametrize(
    ("command", "typed"),
    [
        ("train", "adversarial=none model.lambda_l1=1"),
        ("infer", "codec.format=jpg codec.subsampling=420"),
        ("infer", "codec=pillow codec.format=webp codec.lossless=true"),
        ("infer", "codec.png_level=0"),
        ("train", "losses=[l1,l2] losses.l1.weight=3 model.lambda_l1=10"),  # which is of l2
        ("train", "losses=none discriminator.width=8 optimizer.betas=[0.5,0.9]"),
        ("train", "+losses.mine._target_=mine.Loss losses.l1.weight=1 model.lambda_l1=3"),  # mine's can be null
        (
            "train",
            "callbacks=[ema,early_stopping] logger=[csv,tensorboard] metrics=[l1,psnr]",
        ),
        ("train", "data.labels=3 data.range=[0,4095]"),  # which is of targets
        ("infer", "codec.format=jpg codec.quality=90"),
        ("infer", "codec.format=webp codec.quality=90 +pipeline=overlap pipeline.workers=0"),
    ],
)
def test_what_is_of_use_is_taken(command, typed):
    p2p.compose(typed.split(), command=command)


def test_a_sweep_goes_on_and_says_it(capsys):
    overrides = ["adversarial=none", "discriminator=pixel"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        check_heeded(compose("train", overrides), command="train", overrides=overrides, sweep=True)
    assert capsys.readouterr().out == (
        "discriminator=pixel would be ignored, because adversarial=none trains no discriminator\n"
    )
