"""Two processes do what one does at the same global batch."""

import os

import lightning
import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from p2p.batch import Batch
from p2p.models.unet import UNet
from tests.conftest import ROOT
from tests.test_commands import SMALL, run
from tests.test_pix2pix import parameters_of, pix2pix, small_networks


class Pairs(Dataset):
    def __init__(self):
        self.images = torch.rand(2, 12, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def __len__(self):
        return 12

    def __getitem__(self, index):
        return Batch([str(index)], *(self.images[:, index, None] * 2 - 1))


class InOrder(lightning.LightningDataModule):
    """One process sees images 0 to 3 first; of two processes, one sees 0 and 2, the other 1 and 3."""

    def __init__(self, batch_size):
        super().__init__()
        self._batch_size = batch_size

    def train_dataloader(self):
        world = {"num_replicas": self.trainer.world_size, "rank": self.trainer.global_rank}
        sampler = DistributedSampler(Pairs(), shuffle=False, **world)
        return DataLoader(Pairs(), sampler=sampler, batch_size=self._batch_size, collate_fn=Batch.collate)

    val_dataloader = train_dataloader


def end_of(tmp_path, *, processes, batch_size, accumulate=1):
    """The weights and the validation scores after three steps."""
    torch.manual_seed(1)
    model = pix2pix(*small_networks(), accumulate=accumulate)
    before = parameters_of(model)
    # Spawned: autograd forbids a fork once it has used threads, as other tests do. Else as conf/trainer/ddp.yaml.
    strategy = DDPStrategy(find_unused_parameters=True, start_method="spawn") if processes > 1 else "auto"
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=processes,
        strategy=strategy,
        precision="64-true",
        max_epochs=1,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        default_root_dir=tmp_path,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, InOrder(batch_size))
    assert processes > 1 or trainer.global_step == 3  # counted where the work is done, in the processes
    return before, parameters_of(model), {k: v.item() for k, v in trainer.callback_metrics.items() if "val/" in k}


@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_processes_equal_one(tmp_path, accumulate):
    before, one, scores_of_one = end_of(tmp_path, processes=1, batch_size=4)
    _, two, scores_of_two = end_of(tmp_path, processes=2, batch_size=2 // accumulate, accumulate=accumulate)
    for start, expected, ours in zip(before, one, two, strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)
        assert start.dim() == 1 or not torch.allclose(ours, start, atol=1e-4)
    assert scores_of_two == pytest.approx(scores_of_one, rel=1e-6)


def test_synchronized_batch_norm_is_deployed_like_the_plain_one():
    torch.manual_seed(0)
    model = pix2pix(UNet(image_size=32, width=4, dropout=0.0), small_networks()[1])
    images = torch.rand(3, 3, 32, 32)
    plain = model(images)
    model.generator = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model.generator)
    assert any(isinstance(module, torch.nn.SyncBatchNorm) for module in model.modules())
    assert torch.equal(model(images), plain)


def test_the_command_trains_in_two_processes(tmp_path):
    """The first alone speaks and writes."""
    two = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "+trainer.limit_train_batches=2"]
    name = os.path.relpath(tmp_path, ROOT / "runs")
    out, err = run("train", f"name={name}", *SMALL, *two, "epochs=1", "data.workers=0")
    assert err.strip() == ""
    assert [out.count(word) for word in ("training on cpu", "epoch   1/1", "after training", "next:")] == [1] * 4
    assert [path.name for path in (tmp_path / "csv").iterdir()] == ["version_0"]
    assert torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 2
