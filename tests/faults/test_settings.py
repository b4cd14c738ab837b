"""Settings that a user may type: each works, or is refused in one sentence before any work."""

import os

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from p2p.config.explain import explain
from p2p.config.settings import check_settings
from p2p.run.leaves import leaves
from p2p.shipped import CONF
from tests.faults.conftest import make_pairs

SMALL = ["image_size=32", "generator.width=4", "generator.depth=2", "discriminator=pixel", "discriminator.width=4"]
SMALL += ["trainer=cpu", "data=folder", "epochs=1", "~logger", "~callbacks.samples"]
VALUES = ["nan", "-inf", "-1", "0", "1e9", "true", "null", "word", "[1,2]", "'  '"]
ANYTHING = ("name", "run_dir", "output", "export", "cache_dir", "trainer.max_epochs")  # a folder; a thousand epochs


@pytest.fixture
def train(commands, tmp_path):
    make_pairs(tmp_path / "pairs", train=2, val=1)

    def run(*overrides, run="run"):
        name = f"name={os.path.relpath(tmp_path / run, 'runs')}"
        return commands.run("train.py", name, *SMALL, f"data.root={tmp_path}/pairs", *overrides)

    return run


@pytest.mark.soak
@pytest.mark.parametrize(
    "setting", ["optimizer.lr=inf", "generator.dropout=2", "data.workers=100000", "scheduler.decay_fraction=nan"]
)
def test_a_number_out_of_range_is_refused_before_anything_is_written(setting, train, tmp_path):
    code, said = train(setting)
    assert (code, said.count("\n")) == (1, 1), said
    assert said.startswith(f"error: {setting} ")
    assert not list((tmp_path / "run").rglob("*"))


@pytest.mark.soak
def test_checkpoints_of_every_epoch_beside_the_last_and_the_best(train, tmp_path):
    """As docs/coming-from-the-reference.md says for --save_epoch_freq; also when the run is resumed."""
    every = "{_target_: lightning.pytorch.callbacks.ModelCheckpoint, dirpath: '${run_dir}/checkpoints', save_top_k: -1}"
    code, said = train(f"+callbacks.every={every}")
    assert code == 0, said
    code, said = train("ckpt_path=last", "epochs=2")
    assert code == 0, said
    names = {path.name for path in (tmp_path / "run/checkpoints").iterdir()}
    assert names == {"last.ckpt", "best.ckpt", "epoch=0-step=2.ckpt", "epoch=1-step=4.ckpt"}


def settings_that_pass(command):
    """Each setting of conf/ with each strange value that is not refused before torch is imported."""
    refused = []
    with initialize_config_dir(str(CONF), version_base="1.3"):
        defaults = OmegaConf.to_container(compose(command, overrides=["run_dir=unused"]), resolve=False)
        for key, _ in leaves(defaults):
            if key.rpartition(".")[2] in ("_target_", "_partial_") or key in ANYTHING:
                continue
            for value in VALUES:
                overrides = ["run_dir=unused", f"{key}={value}"]
                try:
                    check_settings(compose(command, overrides=overrides), config_name=command, overrides=overrides)
                except Exception as error:
                    assert explain(error, command) is not None, f"{key}={value}"
                    refused.append(f"{key}={value}")
                    continue
                yield f"{key}={value}"
    assert len(refused) > 50


@pytest.mark.soak
@pytest.mark.parametrize("command", ["train", "export", "infer"])
def test_every_setting_with_every_strange_value(command, commands, train, tmp_path):
    """It works, or says one sentence."""
    name = f"name={os.path.relpath(tmp_path / 'run', 'runs')}"
    if command != "train":
        assert train()[0] == 0
        assert command == "export" or commands.run("export.py", name)[0] == 0
    wrong = []
    for setting in settings_that_pass(command):
        code, said = train(setting) if command == "train" else commands.run(f"{command}.py", name, setting)
        refused = code == 1 and said.splitlines()[-1].startswith("error: ")
        if "Traceback" in said or not (code == 0 or refused):
            wrong.append((setting, code, said[-300:]))
    assert not wrong, wrong
