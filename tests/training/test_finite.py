"""Training that fails stops with one sentence and keeps the last good checkpoint."""

import math
from functools import partial

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from p2p.batch import Batch
from p2p.models.finite import first_not_finite
from p2p.training.finite import LossWatch
from tests.training.test_pix2pix import TinyDiscriminator, TinyGenerator, fit, pix2pix


def pictures(count, *, bad=None):
    images = [torch.rand(1, 3, 16, 16) for _ in range(2 * count)]
    if bad is not None:
        images[2 * bad + 1][0, 0, 3, 3] = math.nan
    return [Batch([str(i)], images[2 * i], images[2 * i + 1]) for i in range(count)]


def keeping(tmp_path):
    return ModelCheckpoint(tmp_path, filename="last", save_on_exception=True, enable_version_counter=False)


def good_checkpoint(tmp_path):
    """Of one good epoch, and its bytes."""
    model = pix2pix(TinyGenerator(), TinyDiscriminator())
    fit(model, pictures(2), tmp_path, callbacks=[keeping(tmp_path)], enable_checkpointing=True)
    return (tmp_path / "last.ckpt").read_bytes()


def test_a_loss_that_is_not_finite_is_named_with_its_step_and_replaces_no_checkpoint(tmp_path):
    before = good_checkpoint(tmp_path)
    model = pix2pix(TinyGenerator(), TinyDiscriminator())
    with pytest.raises(ValueError, match=r"^training stopped at step 2, in epoch 1, because train/D is nan and"):
        fit(model, pictures(4, bad=1), tmp_path, callbacks=[keeping(tmp_path)], enable_checkpointing=True)
    assert (tmp_path / "last.ckpt").read_bytes() == before


def test_weights_that_are_lost_in_the_last_step_replace_no_checkpoint(tmp_path):
    before = good_checkpoint(tmp_path)
    model = pix2pix(TinyGenerator(), None, adversarial=None, optimizer=partial(torch.optim.SGD, lr=math.inf))
    with pytest.raises(ValueError, match=r"^training stopped because the weights of the generator"):
        fit(model, pictures(1), tmp_path, callbacks=[keeping(tmp_path)], enable_checkpointing=True)
    assert (tmp_path / "last.ckpt").read_bytes() == before


def test_a_loss_that_came_and_went_between_two_checks_is_found():
    watch, good = LossWatch("cpu"), {"train/D": torch.tensor(1.0)}
    watch.add(good)
    watch.check(good, step=1, epoch=1)
    watch.add({"train/D": torch.tensor(math.inf)})
    watch.add(good)
    for _ in range(2):
        with pytest.raises(ValueError, match="at step 3, in epoch 2, because a loss was not finite"):
            watch.check(good, step=3, epoch=2)
        with pytest.raises(ValueError, match="at step 3"):
            watch.check_again()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_the_first_tensor_that_is_not_finite_is_found(value):
    tensors = {"a": torch.ones(5), "steps": torch.tensor(3), "b": torch.ones(3, 3), "c": torch.ones(2)}
    assert first_not_finite(tensors) is None
    assert first_not_finite({"steps": torch.tensor(3)}) is None
    tensors["b"][1, 2] = value
    assert first_not_finite(tensors) == "b"
