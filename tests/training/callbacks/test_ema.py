import re

import lightning
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from p2p.batch import Batch
from p2p.deploy.export import load_weights
from p2p.training.callbacks.ema import EMA
from tests.test_configs import compose_command
from tests.test_resume import leaves, train
from tests.training.test_pix2pix import TinyDiscriminator, TinyGenerator, fit, pix2pix

DECAY = 0.8


class Watch(lightning.Callback):
    """The generator's weights after each step, and those that validation sees."""

    def __init__(self):
        self.steps, self.validated = [], []

    def on_train_batch_end(self, trainer, pl_module, *rest):
        self.steps.append(flat(pl_module.generator.state_dict()))

    def on_validation_batch_end(self, trainer, pl_module, *rest):
        self.validated.append(flat(pl_module.generator.state_dict()))


def flat(weights):
    return torch.cat([value.flatten() for value in weights.values()]).clone()


def test_the_average_equals_its_closed_formula_in_float64(tmp_path):
    torch.manual_seed(0)
    model = pix2pix(TinyGenerator().double(), TinyDiscriminator().double())
    batches = [Batch(["x"], *(torch.rand(2, 1, 3, 16, 16, dtype=torch.float64) * 2 - 1)) for _ in range(6)]
    watch, ema, path = Watch(), EMA(decay=DECAY), tmp_path / "x.ckpt"
    trainer = fit(model, batches, tmp_path, precision="64-true", callbacks=[watch, ema])
    shares = torch.tensor([DECAY ** (5 - k) for k in range(6)], dtype=torch.float64)
    expected = (shares[:, None] * torch.stack(watch.steps)).sum(0) / shares.sum()
    trainer.save_checkpoint(path)
    record = torch.load(path, weights_only=True)
    assert record["ema"]["steps"] == 6
    torch.testing.assert_close(flat(record["ema"]["generator"]), expected, rtol=1e-12, atol=1e-14)
    assert not torch.allclose(expected, watch.steps[-1], atol=1e-5)

    trainer.validate(model, DataLoader(batches[:1], batch_size=None), verbose=False)
    torch.testing.assert_close(watch.validated[-1], expected, rtol=1e-12, atol=1e-14)
    assert torch.equal(flat(model.generator.state_dict()), watch.steps[-1])  # back in place

    for weights, wanted in (("trained", watch.steps[-1]), ("ema", expected)):
        generator = TinyGenerator().double()
        load_weights(generator, path, weights=weights)
        torch.testing.assert_close(flat(generator.state_dict()), wanted, rtol=1e-12, atol=1e-14)


def test_only_steps_count_when_batches_are_accumulated_and_validation_can_stay_with_the_trained(tmp_path):
    model = pix2pix(TinyGenerator(), TinyDiscriminator(), accumulate=2)
    batches = [Batch(["x"], *torch.rand(2, 1, 3, 16, 16)) for _ in range(5)]
    watch, ema = Watch(), EMA(decay=DECAY, validate=False)
    trainer = fit(model, batches, tmp_path, callbacks=[watch, ema])
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    assert torch.load(tmp_path / "x.ckpt", weights_only=True)["ema"]["steps"] == 3
    trainer.validate(model, DataLoader(batches[:1], batch_size=None), verbose=False)
    assert torch.equal(watch.validated[-1], watch.steps[-1])


def test_an_exception_in_validation_puts_the_trained_weights_back(tmp_path):
    model = pix2pix(TinyGenerator(), TinyDiscriminator())
    ema = EMA(decay=DECAY)
    fit(model, [Batch(["x"], *torch.rand(2, 1, 3, 16, 16)) for _ in range(3)], tmp_path, callbacks=[ema])
    before = flat(model.generator.state_dict())
    ema.on_validation_start(model.trainer, model)
    assert not torch.equal(flat(model.generator.state_dict()), before)
    ema.on_exception(model.trainer, model, KeyboardInterrupt())
    assert torch.equal(flat(model.generator.state_dict()), before)


def test_the_average_survives_a_resume_exactly(tmp_path, pair_folder):
    options = ["callbacks=ema", "callbacks.ema.decay=0.9"]
    whole = train(tmp_path / "whole", pair_folder, *options)
    train(tmp_path / "halves", pair_folder, *options, stop_after=2)
    halves = train(tmp_path / "halves", pair_folder, *options, resume=True)
    assert halves["ema"]["steps"] == 4
    for (path, a), (_, b) in zip(leaves(whole["ema"]), leaves(halves["ema"]), strict=True):
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b, path


def test_a_checkpoint_without_average_is_named(tmp_path):
    generator, path = nn.Conv2d(1, 1, 1), tmp_path / "x.ckpt"
    torch.save({"state_dict": {f"generator.{k}": v for k, v in generator.state_dict().items()}}, path)
    load_weights(generator, path)
    with pytest.raises(ValueError, match=r"holds no averaged weights: train with callbacks=ema"):
        load_weights(generator, path, weights="ema")
    with pytest.raises(ValueError, match="weights=best is not known"):
        load_weights(generator, path, weights="best")
    with pytest.raises(ValueError, match=re.escape("callbacks.ema.decay=1.0 is out of range")):
        EMA(decay=1.0)


def test_options_combine():
    cfg = compose_command("train", ["callbacks=[ema,early_stopping,best_k]"])
    assert {"last", "best", "samples", "ema", "early_stopping", "best_k"} <= set(cfg.callbacks)
    keys = list(cfg.callbacks)
    assert keys.index("ema") > keys.index("samples")  # the samples are drawn with the average
