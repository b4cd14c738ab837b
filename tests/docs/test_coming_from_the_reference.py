"""The page names every option of the reference, and what it offers in their place exists."""

import re
import shlex

import pytest
from hydra import compose, initialize_config_dir

from p2p.config.cli import CONF
from tests.conftest import ROOT

# add_argument() of options/*.py, models/pix2pix_model.py and models/test_model.py, in copies of 2024 and before; the
# data sets that pix2pix uses (aligned, single) add none, and the update of 2025 takes some away.
BASE = """
dataroot name gpu_ids checkpoints_dir model input_nc output_nc ngf ndf netD netG n_layers_D norm init_type init_gain
no_dropout dataset_mode direction serial_batches num_threads batch_size load_size crop_size max_dataset_size preprocess
no_flip display_winsize epoch load_iter verbose suffix use_wandb wandb_project_name
"""
TRAIN = """
display_freq display_ncols display_id display_server display_env display_port update_html_freq print_freq no_html
save_latest_freq save_epoch_freq save_by_iter continue_train epoch_count phase n_epochs n_epochs_decay beta1 lr gan_mode
pool_size lr_policy lr_decay_iters lambda_L1
"""
TEST = "results_dir aspect_ratio phase eval num_test model_suffix"


def tables():
    """Of each table: {option: (what is used here, remarks)}."""
    found = []
    for line in (ROOT / "docs/coming-from-the-reference.md").read_text().splitlines():
        if line.startswith("| option |"):
            found.append({})
        elif match := re.fullmatch(r"\| `--(\w+)` \|[^|]+\|([^|]*)\|([^|]*)\|", line):
            assert match[1] not in found[-1]
            found[-1][match[1]] = (match[2].strip(), match[3].strip())
    return found


# Defaults under --model pix2pix, of the options that have a number or a word of their own.
DEFAULTS = """
name=experiment_name gpu_ids=0 checkpoints_dir=./checkpoints input_nc=3 output_nc=3 ngf=64 ndf=64 netD=basic
netG=unet_256 n_layers_D=3 norm=batch init_type=normal init_gain=0.02 dataset_mode=aligned direction=AtoB num_threads=4
batch_size=1 crop_size=256 max_dataset_size=inf preprocess=resize_and_crop display_winsize=256 epoch=latest load_iter=0
wandb_project_name=CycleGAN-and-pix2pix display_freq=400 display_ncols=4 display_id=1 display_server=http://localhost
display_env=main display_port=8097 update_html_freq=1000 print_freq=100 save_latest_freq=5000 save_epoch_freq=5
epoch_count=1 n_epochs=100 n_epochs_decay=100 beta1=0.5 lr=0.0002 gan_mode=vanilla pool_size=0 lr_policy=linear
lr_decay_iters=50 lambda_L1=100 results_dir=./results/ aspect_ratio=1.0 num_test=50
"""
FLAGS = "no_dropout serial_batches no_flip verbose use_wandb no_html save_by_iter continue_train eval"  # off by default


def test_the_defaults_are_the_references():
    text = (ROOT / "docs/coming-from-the-reference.md").read_text()
    found = dict(re.findall(r"^\| `--(\w+)` \| ([^|]+?) \|", text, re.MULTILINE))
    expected = dict(pair.split("=") for pair in DEFAULTS.split()) | dict.fromkeys(FLAGS.split(), "off")
    assert {name: found[name] for name in expected} == expected
    assert set(found) - set(expected) == {"dataroot", "model", "suffix", "load_size", "phase", "model_suffix"}


def test_every_option_has_a_row_and_no_other_has():
    assert [sorted(table) for table in tables()] == [sorted(names.split()) for names in (BASE, TRAIN, TEST)]


def test_where_there_is_nothing_the_page_says_why():
    for table in tables():
        assert all(here or len(remarks) > 20 for here, remarks in table.values())


# How Isola et al. 2017 train on each set (appendix 6.2), and its published .pth: direction, epochs, batch size.
SETS = {
    "facades": ("BtoA", 200, 1),  # facades_label2photo: "A to B is photos to labels", says the reference's README
    "maps": ("AtoB", 200, 1),  # sat2map; map2sat is the other way
    "cityscapes": ("BtoA", 200, 1),  # labels to photo; prepare_cityscapes_dataset.py pastes the photo to the left
    "edges2shoes": ("AtoB", 15, 4),
    "edges2handbags": ("AtoB", 15, 4),
    "night2day": ("BtoA", 17, 4),  # day2night
}


@pytest.mark.parametrize("name", SETS)
def test_the_sets_of_the_paper(name):
    page = (ROOT / "docs/coming-from-the-reference.md").read_text()
    (code,) = set(re.findall(rf"^\| {name} \|[^|]*\| `([^`]+)`", page, re.MULTILINE))
    if name != "cityscapes":  # whose comment is longer
        assert code in (CONF / f"data/{name}.yaml").read_text()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", overrides=["run_dir=unused", *code.split()])
    assert (cfg.data.direction, cfg.epochs, cfg.batch_size) == SETS[name]
    assert (cfg.data.root, cfg.data.train, cfg.data.val) == (f"data/{name}", "train", "val")


OFFERED = sorted({code for table in tables() for here, _ in table.values() for code in re.findall("`([^`]+)`", here)})


@pytest.mark.parametrize("code", OFFERED)
def test_what_is_offered_composes(code):
    words = shlex.split(code)
    command = words.pop(0).removesuffix(".py") if words[0].endswith(".py") else "train"
    with initialize_config_dir(str(CONF), version_base="1.3"):
        compose(command, overrides=["run_dir=unused", *words])
