import pytest
import torch

from p2p.data.datamodule import PairedImages
from p2p.data.transforms.torchvision import Torchvision


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
    train = data.dataset("train")
    assert len({train[0].input_NCHW.sum().item() for _ in range(8)}) > 1


def test_worker_processes_deliver_the_same_validation_batches(pair_folder):
    alone, helped = (paired_images(pair_folder, workers=workers).val_dataloader() for workers in (0, 2))
    for a, b in zip(alone, helped, strict=True):
        assert a.names == b.names
        assert torch.equal(a.input_NCHW, b.input_NCHW)


def test_missing_folders_are_named(pair_folder):
    with pytest.raises(ValueError, match=r"no folder .*nowhere, named by data\.root"):
        paired_images(pair_folder / "nowhere").dataset("train")
    with pytest.raises(ValueError, match=r"no folder .*holdout: put the val pairs there, or .* data\.val="):
        paired_images(pair_folder, val="holdout").dataset("val")
    with pytest.raises(ValueError, match="batch_size=0"):
        paired_images(pair_folder, batch_size=0)
