"""Checkpoints that leave the GPU beside the steps that change what is in them."""

import lightning
import pytest
import torch

from p2p.data.kept import KeptBatches
from p2p.training.snapshot import snapshot
from p2p.training.writer import Writer
from tests.gpu.test_capture import batches, fit

pytestmark = pytest.mark.gpu


def test_a_snapshot_holds_what_was_there_when_it_was_taken():
    weights = torch.ones(64, 64, 256, 256, device="cuda").to(memory_format=torch.channels_last)  # 1 GB: 20 ms or more
    torch.cuda.synchronize()
    copied, wait = snapshot({"weights": weights, "pair": [weights[0], 3]})
    weights.zero_()  # is queued behind it
    wait()
    assert copied["weights"].is_pinned() and copied["weights"].stride() == weights.stride()
    assert copied["weights"].min() == 1 and copied["pair"][0].min() == 1 and not weights.any()


class Save(lightning.Callback):
    """A snapshot after the sixth of ten captured steps, and a copy that the host has waited for."""

    def __init__(self):
        self.waited, self.copied = None, None

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx == 5:
            state = {
                "weights": pl_module.state_dict(),
                "averages": pl_module.optimizers(use_pl_optimizer=False)[0].state_dict(),
            }
            self.copied, self.wait = snapshot(state)
            self.waited = {name: value.cpu() for name, value in state["weights"].items()}


def test_a_snapshot_between_replayed_steps():
    save = Save()
    fit(batches(*[2] * 10), capture=True, callbacks=[Writer(), save])
    save.wait()
    for name, value in save.waited.items():
        assert torch.equal(save.copied["weights"][name], value), name
    assert all(step["step"].item() == 6 for step in save.copied["averages"]["state"].values())


def test_kept_validation_batches_are_page_locked():
    pairs = batches(1, 1, 1)
    kept = KeptBatches(pairs, range(3), batch_size=2, pin_memory=True)
    first, again = list(kept), list(kept)
    assert [len(batch) for batch in first] == [2, 1] and all(batch.input_NCHW.is_pinned() for batch in first)
    assert all(a is b for a, b in zip(first, again, strict=True))
