"""A run that was stopped and resumed ends with the same bits as one that was not."""

import lightning
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from p2p.config.cli import CONF

pytestmark = pytest.mark.slow

# 64 pixels: the smallest side at which the U-Net has a block with dropout.
TINY = ["image_size=64", "generator.width=4", "discriminator.width=4", "discriminator.layers=1"]
TINY += ["callbacks.samples.count=1", "batch_size=4", "data=folder", "epochs=4"]


def train(run_dir, root, *overrides, trainer=("trainer=cpu",), stop_after=None, resume=False):
    """As train.py does it, without loggers: validate, then fit. Returns the last checkpoint."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", [*TINY, *trainer, f"data.root={root}", f"run_dir={run_dir}", *overrides])
    lightning.seed_everything(cfg.seed, workers=True, verbose=False)
    if resume:
        torch.rand(5)  # another process may have drawn otherwise
    data, model = instantiate(cfg.data, _convert_="all"), instantiate(cfg.model, _convert_="all")
    callbacks = instantiate(cfg.callbacks)
    del callbacks["learning_rate"], callbacks["progress"]
    options = {"logger": False, "enable_progress_bar": False, "callbacks": list(callbacks.values())}
    trainer = instantiate(cfg.trainer, **options, max_epochs=stop_after or cfg.epochs, _convert_="all")
    last = run_dir / "checkpoints/last.ckpt"
    trainer.validate(model, data, ckpt_path=last if resume else None, verbose=False)
    trainer.fit(model, data, ckpt_path=last if resume else None)
    return torch.load(last, weights_only=True)


def leaves(node, path=""):
    """Every value of nested dicts, lists and tuples, with the path to it."""
    if isinstance(node, (dict, list, tuple)):
        for key, child in node.items() if isinstance(node, dict) else enumerate(node):
            yield from leaves(child, f"{path}/{key}")
    else:
        yield path, node


def assert_same(one, other):
    keys = ["state_dict", "optimizer_states", "lr_schedulers", "random_state", "epoch", "global_step"]
    mine, theirs = (dict(leaves({key: record[key] for key in keys})) for record in (one, other))
    assert mine.keys() == theirs.keys()
    assert sum(isinstance(value, torch.Tensor) for value in mine.values()) > 50
    different = [path for path in mine if not equal(mine[path], theirs[path])]
    assert not different


def equal(a, b):
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.mark.parametrize("workers", [0, 2])
def test_resumed_equals_uninterrupted(tmp_path, pair_folder, workers):
    options = [f"data.workers={workers}", "batch_size=2"]
    whole = train(tmp_path / "whole", pair_folder, *options)
    again = train(tmp_path / "again", pair_folder, *options)
    assert_same(whole, again)
    half = train(tmp_path / "halves", pair_folder, *options, stop_after=2)
    assert half["epoch"] == 1 and not torch.equal(half["random_state"]["torch"], whole["random_state"]["torch"])
    assert_same(whole, train(tmp_path / "halves", pair_folder, *options, resume=True))


def test_resumed_equals_uninterrupted_on_the_shipped_pairs(tmp_path):
    whole = train(tmp_path / "whole", "data/samples")
    train(tmp_path / "halves", "data/samples", stop_after=2)
    assert_same(whole, train(tmp_path / "halves", "data/samples", resume=True))


def test_the_crops_do_not_depend_on_the_number_of_workers(tmp_path, pair_folder):
    alone, helped = (train(tmp_path / str(n), pair_folder, f"data.workers={n}", "epochs=2") for n in (0, 2))
    assert alone["global_step"] == 2
    assert_same(alone, helped)


def test_a_checkpoint_without_generators_still_resumes(tmp_path, pair_folder):
    train(tmp_path, pair_folder, stop_after=1)
    path = tmp_path / "checkpoints/last.ckpt"
    record = torch.load(path, weights_only=True)
    del record["random_state"]
    torch.save(record, path)
    assert train(tmp_path, pair_folder, resume=True)["epoch"] == 3
