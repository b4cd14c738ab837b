from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch.trainer.states import TrainerFn
from PIL import Image

from p2p.data import datamodule
from p2p.data.datamodule import PairedImages
from p2p.data.dataset import PairDataset
from p2p.data.kept import can_be_kept
from p2p.data.transforms.torchvision import Torchvision
from p2p.training.callbacks.samples import Samples
from p2p.training.writer import writer_of
from tests.conftest import picture


def paired_images(root, **options):
    return PairedImages(root=str(root), transform=Torchvision(image_size=32), **options)


def test_loaders(pair_folder):
    data = paired_images(pair_folder, batch_size=3)
    sizes = [len(batch) for batch in data.train_dataloader()]
    assert sizes == [3, 1]
    (batch,) = data.val_dataloader()
    assert batch.names == ["0", "1", "2"]
    assert batch.input_NCHW.shape == batch.target_NCHW.shape == (3, 3, 32, 32)
    assert not torch.equal(batch.input_NCHW, batch.target_NCHW)


def test_validation_is_the_same_every_time_and_training_is_not(pair_folder):
    data = paired_images(pair_folder)
    assert torch.equal(data.dataset("val")[0].input_NCHW, data.dataset("val")[0].input_NCHW)
    plain = data.dataset("train", augment=False)
    assert torch.equal(plain[0].input_NCHW, plain[0].input_NCHW)
    train = data.dataset("train")
    assert len({train[0].input_NCHW.sum().item() for _ in range(8)}) > 1


def test_worker_processes_deliver_the_same_validation_batches(pair_folder):
    alone, helped = (paired_images(pair_folder, workers=workers).val_dataloader() for workers in (0, 2))
    for a, b in zip(alone, helped, strict=True):
        assert a.names == b.names
        assert torch.equal(a.input_NCHW, b.input_NCHW)


def test_processes_share_the_validation_pairs(pair_folder):
    for processes, shares in ((1, [["0", "1", "2"]]), (2, [["0", "2"], ["1"]]), (3, [["0"], ["1"], ["2"]])):
        for rank, expected in enumerate(shares):
            data = paired_images(pair_folder, batch_size=2)
            data.trainer = SimpleNamespace(world_size=processes, global_rank=rank)
            assert [name for batch in data.val_dataloader() for name in batch.names] == expected
    data = paired_images(pair_folder, batch_size=2)
    data.trainer = SimpleNamespace(world_size=4, global_rank=0)
    with pytest.raises(ValueError, match=r"3 validation pairs are too few for 4 processes.* use trainer\.devices=3"):
        data.val_dataloader()


def test_missing_folders_are_named(pair_folder):
    with pytest.raises(ValueError, match=r"no folder .*nowhere, named by data\.root"):
        paired_images(pair_folder / "nowhere").dataset("train")
    with pytest.raises(ValueError, match=r"no folder .*holdout: put the val pairs there, or .* data\.val="):
        paired_images(pair_folder, val="holdout").dataset("val")
    with pytest.raises(ValueError, match="batch_size=0"):
        paired_images(pair_folder, batch_size=0)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"workers": -1}, r"^data\.workers=-1 is out of range: use 0 to 256$"),
        ({"direction": "sideways"}, r"^data\.direction=sideways is not known: use AtoB or BtoA$"),
    ],
)
def test_bad_options_are_named(pair_folder, option, message):
    with pytest.raises(ValueError, match=message):
        paired_images(pair_folder, **option)


def test_an_image_that_is_too_small_is_named(pair_folder):
    data = PairedImages(root=str(pair_folder), transform=Torchvision(image_size=128, preprocess="crop"))
    for split in ("train", "val"):
        with pytest.raises(ValueError, match=rf"cannot use .*{split}.0\.png: it is 64x64 pixels, smaller"):
            data.dataset(split)[0]


def test_an_input_without_a_target_that_is_too_small_is_named(pair_folder):
    data = PairedImages(root=str(pair_folder), transform=Torchvision(image_size=96, preprocess="crop"))
    with pytest.raises(ValueError, match=r"cannot use .*val.0\.png: it is 128x64 pixels, smaller than the crop"):
        data.inputs(str(pair_folder / "val"))[0]
    (pair_folder / "val/0.png").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"cannot read .*val.0\.png: it is not an image"):
        data.inputs(str(pair_folder / "val"))[0]


def test_sizes_that_make_no_batch_are_named(pair_folder):
    picture(256, 64).save(pair_folder / "val/1.png")
    transform = Torchvision(image_size=64, preprocess="none")
    data = PairedImages(root=str(pair_folder), transform=transform, batch_size=3, layout="side_by_side")
    loader = data.val_dataloader()
    with pytest.raises(ValueError, match="0 is 64x64 and 1 is 128x64 pixels, which makes no batch: use batch_size=1"):
        list(loader)


def test_training_on_arrays_of_five_channels_draws_sample_pictures(tmp_path):
    """Through the callback, with a module that is no network: output is the first three channels."""
    for split in ("train", "val"):
        for side, channels in (("A", 5), ("B", 3)):
            (tmp_path / split / side).mkdir(parents=True)
            np.save(tmp_path / split / side / "x.npy", np.zeros((16, 16, channels), np.uint16))
    data = PairedImages(root=str(tmp_path), transform=Torchvision(image_size=16), input_channels=5)
    assert data.dataset("train")[0].input_NCHW.shape == (1, 5, 16, 16)
    trainer = SimpleNamespace(
        current_epoch=0,
        global_step=7,
        state=SimpleNamespace(fn=TrainerFn.FITTING),
        is_global_zero=True,
        datamodule=data,
        loggers=[],
        callbacks=[],
    )
    module = torch.nn.Conv2d(5, 3, 1)
    module.device = torch.device("cpu")
    Samples(folder=str(tmp_path / "samples")).on_validation_end(trainer, module)
    writer_of(trainer).wait()
    with Image.open(tmp_path / "samples/epoch_0001.png") as sheet:
        assert sheet.width > 3 * 16


def test_validation_batches_are_read_once_and_of_about_one_size(pair_folder, monkeypatch):
    for index in range(3, 9):
        picture(128, 64, seed=index).save(pair_folder / f"val/{index}.png")
    monkeypatch.setattr(datamodule, "TOGETHER", 4 * 32**2)
    data = paired_images(pair_folder)
    first = [*islice(data.val_dataloader(), 3)]  # as Lightning, which asks for no fourth
    assert [len(batch) for batch in first] == [3, 3, 3]  # and not 4, 4, 1
    alone = data.dataset("val")
    assert torch.equal(torch.cat([batch.input_NCHW for batch in first]), torch.cat([pair.input_NCHW for pair in alone]))
    monkeypatch.setattr(PairDataset, "__getitem__", lambda *_: pytest.fail("it reads again"))
    again = list(data.val_dataloader())
    assert all(a is b for a, b in zip(first, again, strict=True))


def test_validation_pairs_that_memory_is_not_to_hold_are_read_each_time(pair_folder, monkeypatch):
    kept = [*paired_images(pair_folder).val_dataloader()]
    monkeypatch.setattr(datamodule, "can_be_kept", lambda needed: needed < 3 * 2 * 3 * 32 * 32 * 4)  # in float32
    loader = paired_images(pair_folder).val_dataloader()
    assert isinstance(loader, torch.utils.data.DataLoader)
    for a, b in zip(kept, loader, strict=True):
        assert a.names == b.names and torch.equal(a.target_NCHW, b.target_NCHW)


def test_an_eighth_of_the_free_memory_is_taken_at_most(monkeypatch):
    for free, kept in ((800, True), (799, False), (None, False)):
        monkeypatch.setattr("p2p.data.kept.free_memory", lambda free=free: free)
        assert can_be_kept(100) == kept
