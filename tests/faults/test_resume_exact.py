"""A run that is stopped, wherever that is, and resumed ends as one that was not: weights, scores and logs."""

import csv

import pytest
import torch
from hydra import compose, initialize_config_dir

from p2p.commands import train
from p2p.config.cli import CONF
from p2p.config.resume import as_hydra_takes_them, resumed_settings
from p2p.training.callbacks.interrupt import Interrupt
from tests.conftest import picture
from tests.test_resume import assert_same

pytestmark = pytest.mark.slow

# 64 pixels: the smallest side at which the U-Net has a block with dropout.
TINY = ["image_size=64", "generator.width=2", "discriminator.width=2", "discriminator.layers=1", "trainer=cpu"]
TINY += ["batch_size=2", "data=folder", "epochs=2", "~callbacks.samples", "trainer.log_every_n_steps=1", "logger=csv"]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Three batches of two pairs an epoch, the last not full."""
    root = tmp_path_factory.mktemp("pairs")
    for split, count in (("train", 5), ("val", 1)):
        (root / split).mkdir()
        for index in range(count):
            picture(128, 64, seed=index).save(root / split / f"{index}.png")
    return root


def run(folder, *typed):
    """train.py in this process; the checkpoint that it leaves."""
    arguments, deletions = as_hydra_takes_them([f"run_dir={folder}", *typed])
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", arguments)
        if cfg.ckpt_path is not None:
            cfg = resumed_settings(cfg, [*arguments, *deletions])
        score = train.main(cfg).score
    assert float(rows(folder)[-1]["val/L1"]) == pytest.approx(score, rel=1e-6)  # the last one
    return torch.load(folder / "checkpoints/last.ckpt", weights_only=True)


def rows(folder):
    """What was logged, in a file for each start; the rate of an epoch that begins is logged again."""
    found = []
    for path in sorted(folder.glob("csv/*/metrics.csv")):
        with path.open() as file:
            found += [{key: value for key, value in row.items() if value} for row in csv.DictReader(file)]
    return [row for row, before in zip(found, [None, *found], strict=False) if row != before]


class Stop:
    """Ctrl-C before the n-th call of a method."""

    def __init__(self, monkeypatch, owner, name, call):
        self.calls, method = 0, getattr(owner, name)

        def stopping(*args, **kwargs):
            self.calls += 1
            if self.calls == call:
                raise KeyboardInterrupt
            return method(*args, **kwargs)

        monkeypatch.setattr(owner, name, stopping)


@pytest.fixture(scope="module")
def whole(pairs, tmp_path_factory):
    """The run that is not stopped, by its options."""
    made = {}

    def run_whole(*options):
        if options not in made:
            folder = tmp_path_factory.mktemp("whole")
            made[options] = (folder, run(folder, *TINY, f"data.root={pairs}", *options))
        return made[options]

    return run_whole


@pytest.mark.parametrize(
    ("method", "call", "options"),
    [
        ("on_train_batch_start", 5, []),
        ("on_train_batch_start", 4, ["data.workers=2"]),  # the first batch of an epoch
        ("on_train_batch_start", 6, []),  # the last one
        ("on_train_batch_start", 5, ["model.accumulate=2", "callbacks=ema"]),
        ("on_validation_batch_start", 2, ["scheduler=plateau"]),
    ],
)
def test_stopped_anywhere(method, call, options, pairs, whole, tmp_path, monkeypatch, capsys):
    _, expected = whole(*options)
    with monkeypatch.context() as patch:
        Stop(patch, Interrupt, method, call)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            run(tmp_path, *TINY, f"data.root={pairs}", *options)
    capsys.readouterr()
    resumed = run(tmp_path, "ckpt_path=last")
    assert_same(expected, resumed)
    assert rows(tmp_path) == rows(whole(*options)[0])
    assert best_score(expected) == best_score(resumed)
    assert capsys.readouterr().err == ""


def best_score(checkpoint):
    (state,) = (state for key, state in checkpoint["callbacks"].items() if "Checkpoint" in key and "val/L1" in key)
    return state["best_model_score"]
