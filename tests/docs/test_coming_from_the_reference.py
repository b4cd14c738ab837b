"""The page names every option of the reference, and what it offers in their place exists."""

import re
import shlex

import pytest
from hydra import compose, initialize_config_dir

from p2p.cli import CONF
from tests.conftest import ROOT

# add_argument() of options/*.py, models/pix2pix_model.py and models/test_model.py, in copies of 2024 and before; the
# data sets that pix2pix uses (aligned, single) add none.
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


def test_every_option_has_a_row_and_no_other_has():
    assert [sorted(table) for table in tables()] == [sorted(names.split()) for names in (BASE, TRAIN, TEST)]


def test_where_there_is_nothing_the_page_says_why():
    for table in tables():
        assert all(here or len(remarks) > 20 for here, remarks in table.values())


OFFERED = sorted({code for table in tables() for here, _ in table.values() for code in re.findall("`([^`]+)`", here)})


@pytest.mark.parametrize("code", OFFERED)
def test_what_is_offered_composes(code):
    words = shlex.split(code)
    command = words.pop(0).removesuffix(".py") if words[0].endswith(".py") else "train"
    with initialize_config_dir(str(CONF), version_base="1.3"):
        compose(command, overrides=["run_dir=unused", *words])
