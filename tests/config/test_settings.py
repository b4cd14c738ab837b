from contextlib import nullcontext

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from p2p.config.arguments import check_arguments, home_in_quotes
from p2p.config.cli import CONF
from p2p.config.settings import check_settings
from p2p.system.folders import check_output
from p2p.training.each_network import check_strategy
from tests.training.test_pix2pix import TinyDiscriminator, TinyGenerator, pix2pix


def check(command, *overrides):
    """As the command does, of which Hydra is told first."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(command, overrides=["run_dir=unused", *overrides])
        check_settings(cfg, config_name=command, overrides=[*overrides])
    return cfg


NOT_A_SIZE = "not a size: use [height,width] in pixels, such as [256,512], or one number for both"
MISTAKES = {
    ("train", "epochs=abc"): "epochs=abc is not valid: use a whole number, such as the default, 12",
    ("train", "epochs=1.5"): "epochs=1.5 is not valid: use a whole number, such as the default, 12",
    ("train", "epochs=true"): "epochs=true is not valid: use a whole number, such as the default, 12",
    ("train", "epochs=null"): "epochs=null is not valid: use a whole number, such as the default, 12",
    ("train", "epochs=0"): "epochs=0 is out of range: use 1 or more",
    ("train", "callbacks.samples.count=-1"): "callbacks.samples.count=-1 is out of range: use 0 to 256",
    ("train", "callbacks.samples.count=1000000000"): "callbacks.samples.count=1000000000 is out of range: use 0 to 256",
    ("train", "optimizer.lr=inf"): "optimizer.lr=inf is not valid: use a finite number",
    ("train", "optimizer.lr=-1"): "optimizer.lr=-1 is out of range: use 0 or more",
    ("train", "optimizer.betas=[0.5,1]"): "optimizer.betas=[0.5,1] is out of range: use 0 or more and less than 1",
    ("train", "+optimizer.eps=nan"): "optimizer.eps=nan is not valid: use a finite number",
    ("train", "generator.dropout=2"): "generator.dropout=2 is out of range: use 0 or more and less than 1",
    ("train", "model.clip_norm=0"): "model.clip_norm=0 is out of range: use more than 0",
    ("train", "transform.multiple=0"): "transform.multiple=0 is out of range: use 1 to 8192",
    ("train", "trainer.check_val_every_n_epoch=0"): "trainer.check_val_every_n_epoch=0 is out of range: use 1 or more",
    ("train", "generator.width=${seed}"): "generator.width=0 is out of range: use 1 to 4096",
    ("train", "losses.l1.weight=abc"): "losses.l1.weight=abc is not valid: use a number or null",
    ("train", "losses.l1.weight=-1"): "losses.l1.weight=-1 is out of range: use 0 or more",
    ("train", "data.val=null"): "data.val=null is not valid: use a word, such as the default, val",
    ("train", "ckpt_path=true"): "ckpt_path=true is not valid: use last, best or the path of a checkpoint",
    ("train", "model.generator=5"): (
        "model.generator=5 is not valid: write model.generator.key=value to set what is in it, or ~model.generator to"
        " leave it out"
    ),
    ("train", "generator.in_channels=0"): "generator.in_channels=0 is out of range: use 1 to 4096",
    ("train", "data.source=5"): "data.source=5 is not valid: give it a _target_, as the options in conf/ have",
    ("train", "trainer.max_epochs=0"): "trainer.max_epochs=0 is out of range: use 1 or more",
    ("export", "backend.precision=0"): "backend.precision=0 is not valid: use a word or null",
    ("export", "weights=false"): "weights=false is not valid: use a word or null",
    ("export", "batch_size=[1,2]"): "batch_size=[1,2] is not valid: use a number",
    ("train", "image_size=[64,100000]"): "image_size=[64,100000] is out of range: use 1 to 8192",
    ("train", "image_size=[[64,64]]"): f"image_size=[[64,64]] is {NOT_A_SIZE}",
    ("train", "image_size=[64,null]"): f"image_size=[64,null] is {NOT_A_SIZE}",
    ("train", "image_size={height:64}"): "image_size={'height': 64} is not valid: use a number",
    ("train", "transform.load_size=[70]"): f"transform.load_size=[70] is {NOT_A_SIZE}",
    ("train", "data.percentiles=[[1],99]"): "data.percentiles=[[1],99] is not valid: use 0 to 100",
    ("export", "max_size=[64]"): f"max_size=[64] is {NOT_A_SIZE}",
    ("train", "name=[a,b]"): "name=[a,b] is not valid: use a word",
    ("train", "name=.."): "name=.. is not the name of a run: use a word; the folder of the run is then runs/<name>",
    ("train", "name=a/../.."): (
        "name=a/../.. is not the name of a run: use a word; the folder of the run is then runs/<name>"
    ),
    ("train", "name=/x"): "name=/x is not the name of a folder in runs/: for a folder elsewhere use run_dir=/x",
    ("train", "callbacks.samples.folder=' '"): (
        "callbacks.samples.folder= is empty: give it a value, or leave it out; is a shell variable not set?"
    ),
    ("export", "output="): "output= is empty: give it a value, or leave it out; is a shell variable not set?",
    ("infer", "input=[a,b]"): (
        "input=[a,b] is not valid: use the path of a file or folder; for several paths write them into a file, and use"
        " input=@file"
    ),
    ("train", "init_from='~nobody-of-that-name/x'"): (
        "init_from=~nobody-of-that-name/x: there is no user nobody-of-that-name, whose folder that would be"
    ),
    ("export", "min_psnr=nan"): "min_psnr=nan is not valid: use a finite number",
    ("train", "seed=-5"): "seed=-5 is out of range: use 0 to 4294967295",
    ("train", "image_size=100000"): "image_size=100000 is out of range: use 1 to 8192",
    ("train", "batch_size=0"): "batch_size=0 is out of range: use 1 or more",
    ("train", "data.batch_size=x"): "data.batch_size=x is not valid: use a whole number, such as the default, 1",
    ("train", "model.lambda_l1=abc"): "model.lambda_l1=abc is not valid: use a number, such as the default, 100",
    ("train", "model.lambda_l1=null"): "model.lambda_l1=null is not valid: use a number, such as the default, 100",
    ("train", "model.clip_norm=abc"): "model.clip_norm=abc is not valid: use a number or null",
    (
        "train",
        "model.compile=3",
    ): "model.compile=3 is not valid: use true or false or a word, such as the default, false",
    ("train", "generator.width=8.5"): "generator.width=8.5 is not valid: use a whole number, such as the default, 64",
    (
        "train",
        "generator.skips=maybe",
    ): "generator.skips=maybe is not valid: use true or false, such as the default, true",
    ("train", "+losses.l1.weight=x"): "losses.l1.weight=x is not valid: use a number or null",
    ("train", "data.workers=many"): "data.workers=many is not valid: use a whole number or null",
    ("train", "optimizer.lr=fast"): "optimizer.lr=fast is not valid: use a number, such as the default, 0.0002",
    (
        "train",
        "optimizer.betas=[a,0.9]",
    ): "optimizer.betas=[a,0.9] is not valid: use a list of numbers, such as [0.5,0.999]",
    ("train", "optimizer.betas=0.5"): "optimizer.betas=0.5 is not valid: use a list of numbers, such as [0.5,0.999]",
    ("train", "trainer.devices=1.5"): (
        "trainer.devices=1.5 is not valid: use a whole number or a word or a list, such as the default, 1"
    ),
    ("train", "+trainer.limit_train_batches=few"): "trainer.limit_train_batches=few is not valid: use a number or null",
    ("export", "image_size=abc"): "image_size=abc is not valid: use a whole number or a list",
    ("export", "images=0"): "images=0 is out of range: use 1 or more",
    ("export", "min_psnr=high"): "min_psnr=high is not valid: use a number, such as the default, 40.0",
    ("export", "frames=1"): "frames=1 is not valid: use true or false, such as the default, false",
    ("export", "backend.max_batch=all"): "backend.max_batch=all is not valid: use a whole number or null",
    ("infer", "gallery=abc"): "gallery=abc is not valid: use a whole number, such as the default, 48",
    ("infer", "gallery=-1"): "gallery=-1 is out of range: use 0 to 10000",
    ("infer", "restore_size=maybe"): "restore_size=maybe is not valid: use true or false, such as the default, false",
    ("infer", "codec.quality=good"): "codec.quality=good is not valid: use a whole number, such as the default, 96",
}


@pytest.mark.parametrize(("command", "override"), MISTAKES)
def test_a_value_of_another_type_or_out_of_range_is_named(command, override):
    with pytest.raises(ValueError) as raised:
        check(command, override)
    assert str(raised.value) == MISTAKES[command, override]


def test_pipeline_ray_without_an_engine_is_refused():
    with pytest.raises(ValueError, match=r"^pipeline\.actors=0 is out of range: use 1 or more$"):
        check("infer", "pipeline=ray", "pipeline.actors=0")


def test_what_must_be_given_is_named():
    with pytest.raises(
        ValueError, match=r"^data\.source\.archive has no value: give it one, as in data\.source\.archive="
    ):
        check("train", "data=archive", "data.root=pairs")


@pytest.mark.parametrize(
    ("command", "overrides"),
    [
        ("train", ["model.lambda_l1=12.5", "optimizer.lr=1", "generator.dropout=0", "model.clip_norm=1"]),
        ("train", ["trainer.devices=auto", "trainer.precision=32-true", "trainer.max_epochs=null"]),
        ("train", ["trainer.devices=[0,1]", "trainer.precision=32", "+trainer.limit_train_batches=0.5"]),
        ("train", ["model.compile=reduce-overhead", "model.capture=true", "data.workers=2", "generator.depth=5"]),
        ("train", ["name=12", "data.root=2024", "data=folder", "model.lambda_l1=${epochs}", "scheduler=step"]),
        ("train", ["~logger", "experiment=paper", "generator=resnet_6blocks", "generator.blocks=3"]),
        ("train", ["logger=[]", "callbacks=[ema,early_stopping]", "callbacks.ema.decay=0", "image_size=[64,8192]"]),
        ("train", ["callbacks=perceptual", "callbacks.perceptual.fid=null", "callbacks.perceptual.lpips=null"]),
        ("train", ["adversarial=none", "reconstruction=l2", "~callbacks.samples", "seed=0"]),
        ("export", ["min_psnr=35", "image_size=64", "cache_dir=null", "images_from=photos"]),
        ("export", ["backend=aot_inductor", "backend.max_batch=null", "backend.precision=fp16"]),
        ("export", ["backend=torch_tensorrt", "backend.rewrites=[]", "backend.opt_batch=4"]),
        ("infer", ["pipeline=overlap", "pipeline.slots=6", "pipeline.workers=null", "gallery=0", "profile=timeline"]),
        ("infer", ["transform.multiple=4", "transform.load_size=286", "codec=pillow", "codec.lossless=true"]),
    ],
)
def test_what_may_be_is_let_through(command, overrides):
    check(command, *overrides)


@pytest.mark.parametrize("command", ["train", "export", "infer"])
def test_the_defaults_fit_themselves(command):
    check(command)


def test_a_tilde_is_the_home_folder_wherever_a_path_is_set(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    cfg = check("train", *home_in_quotes(["data.root=~/my pairs", "init_from=~/G.pth", "name=~x"]))
    assert (cfg.data.root, cfg.init_from, cfg.name) == ("/home/me/my pairs", "/home/me/G.pth", "~x")
    assert check("infer", *home_in_quotes(["input=@~/list.txt"])).input == "@/home/me/list.txt"
    assert check("infer", "input=2024").input == "2024"
    assert check("train", "data.val=0").data.val == "0"


def test_an_output_that_cannot_be(tmp_path, monkeypatch):
    check_output(tmp_path / "new/folder")
    check_output(tmp_path / "new/folder")
    assert (tmp_path / "new/folder").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"^output=.*file is a file: name a folder$"):
        check_output(tmp_path / "file")
    with pytest.raises(ValueError, match=r"^output=.*file.deep cannot be made \(Not a directory\): name another"):
        check_output(tmp_path / "file/deep")
    monkeypatch.setattr("os.access", lambda path, mode: False)  # as for anyone but root
    with pytest.raises(ValueError, match=r"^export=.*new may not be written to: name another folder, or change"):
        check_output(tmp_path / "new", key="export")


@pytest.mark.parametrize(
    ("overrides", "networks", "fine"),
    [
        (["trainer=cpu"], 2, True),
        (["trainer=cpu", "trainer.devices=2"], 2, False),
        (["trainer=cpu", "trainer.devices=2", "+trainer.strategy=ddp"], 2, False),
        (["trainer=cpu", "trainer.devices=2"], 1, True),
        (["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"], 2, True),
    ],
)
def test_several_processes_need_a_strategy_for_two_networks(overrides, networks, fine):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", overrides=["run_dir=unused", *overrides])
    trainer = instantiate(cfg.trainer, logger=False, enable_checkpointing=False, enable_progress_bar=False)
    model = pix2pix(TinyGenerator(), TinyDiscriminator(), **({} if networks == 2 else {"adversarial": None}))
    with nullcontext() if fine else pytest.raises(ValueError, match=r"^trainer.devices=2 needs trainer=ddp, which"):
        check_strategy(trainer, model)


@pytest.mark.parametrize(
    ("command", "typed", "here"),
    [
        ("train", "--name x --dataroot y --model pix2pix", "as in name=x data=folder data.root=y;"),
        ("train", "--epochs=3", "as in epochs=3;"),
        ("infer", "--dataroot photos -q", "as in input=photos;"),
        ("train", "-x", "as in key=value;"),
    ],
)
def test_options_with_dashes_are_answered_with_settings(command, typed, here):
    with pytest.raises(ValueError, match="is not known: settings are written without dashes") as raised:
        check_arguments(command, typed.split())
    assert here in str(raised.value)


def test_what_hydra_knows_and_values_with_dashes_pass():
    check_arguments(
        "train", ["--cfg", "job", "-m", "--multirun", "--help", "--hydra-help", "seed=-1", "name=-x", "--mult"]
    )
    for word in ("name=", "+x.y=", "input=''", 'output=" "'):
        with pytest.raises(ValueError, match=r"= is empty: give it a value"):
            check_arguments("train", [word])
