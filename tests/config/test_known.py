import re

import pytest

import p2p
from p2p.config.known import COMMANDS, settings_of
from tests.conftest import ROOT

UNHEEDED = {
    ("train", "+pipeline=overlap"): "pipeline= is of infer, and not of train: leave it out",
    ("train", "pipeline=overlap"): "pipeline= is of infer, and not of train: leave it out",
    ("train", "codec.format=jpg"): "codec= is of infer, and not of train: leave it out",
    ("train", "+backend=eager"): "backend= is of export, and not of train: leave it out",
    ("train", "+foo=3"): "foo= is not a setting of train, and nothing refers to it: leave it out",
    ("export", "+transform.preprocess=none"): "transform= is of train and infer, and not of export: leave it out",
    ("export", "+epochs=3"): "epochs= is of train, and not of export: leave it out",
    ("export", "+codec=pillow"): "codec= is of infer, and not of export: leave it out",
    ("infer", "+losses=l2"): "losses= is of train, and not of infer: leave it out",
    ("infer", "+experiment=paper"): "experiment= is of train, and not of infer: leave it out",
    ("infer", "+data.root=pairs"): "data= is of train, and not of infer: leave it out",
    ("infer", "+backend@codec=eager"): "backend= is of export, and not of infer: leave it out",
}


ABSENT = {
    ("train", "losses=null"): "a group takes the names of its options, such as generator=unet: see --help",
    ("train", "generator=5"): "a group takes the names of its options, such as generator=unet: see --help",
    ("train", "reconstruction=[l1,l2]"): (
        "losses is chosen more than once: use one option of each group that chooses it"
    ),
    ("train", "metrics=[l1,psrn]"): "metrics=psrn is not known, did you mean psnr; known are l1, psnr, ssim",
    ("infer", "pipeline=lightning pipeline.slots=3"): (
        "pipeline.slots is not of the option of pipeline that is chosen: leave it out, or choose"
        " pipeline=auto or overlap"
    ),
    ("train", "scheduler=step scheduler.decay_fraction=0.3"): (
        "scheduler.decay_fraction is not of the option of scheduler that is chosen: leave it out, or choose"
        " scheduler=linear or linear_2020"
    ),
    ("train", "trainer.sync_batchnorm=true"): (
        "trainer.sync_batchnorm is not of the option of trainer that is chosen: leave it out, or choose trainer=ddp"
    ),
    ("train", "losses.perceptual.weight=3"): (
        "losses.perceptual.weight is not of the option of losses that is chosen: leave it out, or choose"
        " losses=[...,perceptual]"
    ),
    ("train", "discriminator.scales=3"): (
        "discriminator.scales is not of the option of discriminator that is chosen: leave it out, or choose"
        " discriminator=multi_scale"
    ),
}


@pytest.mark.parametrize(("command", "words"), ABSENT)
def test_a_group_that_is_null_and_a_setting_of_another_option(command, words):
    with pytest.raises(ValueError, match=f"^{re.escape(ABSENT[command, words])}$"):
        p2p.compose(words.split(), command=command)


@pytest.mark.parametrize(("command", "word"), [("train", "metrics=[]"), ("train", "~data"), ("export", "~backend")])
def test_what_is_needed_and_left_out_is_named(command, word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    key = re.sub(r"\W", "", word)
    with pytest.raises(ValueError, match=f"^{key} has no option: choose from .*"):
        getattr(p2p, command)([word, "trainer=cpu"] if command == "train" else [word])


@pytest.mark.parametrize(("command", "word"), UNHEEDED)
def test_what_a_command_would_not_heed_is_refused(command, word):
    with pytest.raises(ValueError, match=f"^{re.escape(UNHEEDED[command, word])}$"):
        p2p.compose([word], command=command)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("train", ["losses=l2", "+losses.mine._target_=p2p.losses.loss.Distance", "~logger"]),
        ("train", ["+width=8", "generator.width=${width}"]),
        ("export", ["backend=fastest", "batch_size=2"]),
        ("infer", ["+pipeline=overlap", "pipeline.slots=6", "profile=timeline", "input=@list.txt"]),
        ("infer", ["+image_size=64"]),  # which transform.image_size refers to
    ],
)
def test_what_it_heeds_passes(command, words):
    p2p.compose(words, command=command)


def test_every_group_is_of_a_command():
    groups = {path.name for path in (ROOT / "conf").iterdir() if path.is_dir()} - {"hydra"}
    assert groups <= set().union(*map(settings_of, COMMANDS))


@pytest.mark.parametrize("command", COMMANDS)
def test_settings_are_those_of_the_composed_config(command):
    assert {*p2p.compose(command=command)} <= settings_of(command)
