"""When a part waits, and that a recorded step is told of it; both stages by the commands are in tests/test_hd.py."""

from types import SimpleNamespace

from torch import nn

from p2p.training.callbacks.freeze import Freeze


def test_the_part_is_trained_from_the_named_epoch_on():
    generator = nn.ModuleDict({"coarse": nn.Linear(1, 1), "fine": nn.Linear(1, 1)})
    told = []
    model = SimpleNamespace(generator=generator, record_anew=lambda: told.append(epoch))
    for first in (0, 1, 3):  # of a run that is new, or resumed
        freeze, seen = Freeze(epochs=2, start="runs/default"), []
        told.clear()
        for epoch in range(first, 5):
            trainer = SimpleNamespace(current_epoch=epoch)
            if epoch == first:
                freeze.on_train_start(trainer, model)
            freeze.on_train_epoch_start(trainer, model)
            seen.append(generator["coarse"].weight.requires_grad)
            assert generator["fine"].weight.requires_grad
        assert seen == [epoch >= 2 for epoch in range(first, 5)]
        assert told == [2] * (first < 2)
