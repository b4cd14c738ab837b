"""Two processes do what one does at the same global batch.

Started once, by spawn: autograd forbids a fork once it has used threads, as other tests do.
"""

import os
import socket
import time
from functools import partial

import lightning
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import nn
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from p2p.batch import Batch
from p2p.commands.run import settle_norm_stats
from p2p.config.cli import CONF
from p2p.data.datamodule import EpochLoader, PairedImages
from p2p.data.transforms.torchvision import Torchvision
from p2p.losses.adversarial import WassersteinGP
from p2p.models.patchgan import PatchGAN
from p2p.models.unet import UNet
from p2p.training import exchange
from p2p.training.callbacks.ema import EMA
from tests.conftest import ROOT, picture
from tests.test_commands import SMALL, run
from tests.test_resume import train
from tests.training.test_pix2pix import TinyDiscriminator, parameters_of, pix2pix, small_networks

pytestmark = pytest.mark.slow


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


def trainer_of(processes, **options):
    return lightning.Trainer(
        accelerator="cpu",
        devices=processes,
        strategy="each_network" if processes > 1 else "auto",  # as conf/trainer/ddp.yaml
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def scores_of(trainer):
    return {key: value.item() for key, value in trainer.callback_metrics.items() if key.startswith("val/")}


def three_steps(folder, processes, *, networks=small_networks, accumulate=1, **options):
    """Global batch 4, in float64: the weights before and after, their average, and the validation scores."""
    torch.manual_seed(1)
    model = pix2pix(*networks(), accumulate=accumulate, **options)
    before = parameters_of(model)
    ema, record = EMA(decay=0.5, validate=False), {}
    trainer = trainer_of(processes, precision="64-true", max_epochs=1, use_distributed_sampler=False, callbacks=[ema])
    trainer.fit(model, InOrder(4 // processes // accumulate))
    assert trainer.global_step == 3
    ema.on_save_checkpoint(trainer, model, record)
    average = list(record["ema"]["generator"].values())
    losses = {key: value.item() for key, value in trainer.callback_metrics.items() if key.startswith("train/")}
    found = {"before": before, "after": parameters_of(model), "average": average, "scores": scores_of(trainer)}
    return found | {"losses": losses}


def linear_critic():
    """The slope of a linear critic is the same everywhere, and so is its penalty, wherever it is taken."""
    generator, _ = small_networks()
    return generator, TinyDiscriminator().double()


WGANGP = {"networks": linear_critic, "adversarial": WassersteinGP(), "clip_norm": 0.5}
WGANGP["optimizer"] = partial(torch.optim.SGD, lr=0.1)  # of Adam's steps the clipping would change little


class Seen(lightning.Callback):
    def __init__(self):
        self.names = []

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        self.names += batch.names


def uneven_validation(folder, processes):
    """Five images, scored amid training and after it, with a BatchNorm, whose buffers DDP synchronizes."""
    torch.manual_seed(1)
    networks = UNet(image_size=32, width=4, dropout=0.0), PatchGAN(width=4, layers=1)
    model = pix2pix(*networks, norm_stats="instance", optimizer=partial(torch.optim.SGD, lr=0.0))
    data = PairedImages(root=str(folder / "pairs"), transform=Torchvision(image_size=32, flip=False))
    found = []
    for action in ("fit", "validate"):
        seen = Seen()
        trainer = trainer_of(processes, max_epochs=1, limit_train_batches=1, callbacks=[seen])
        getattr(trainer, action)(model, data)
        found.append({"names": seen.names, "scores": scores_of(trainer)})
    return found


def dropout_masks(folder, processes):
    """Two epochs in one go, and in two: the masks of every dropout, and the seeds of order and crops."""
    masks, seeds, iterate = [], [], EpochLoader.__iter__

    def note_mask(module, inputs, output):
        if isinstance(module, nn.Dropout) and module.training:
            masks.append(output == 0)

    def note_seed(loader):
        batches = iterate(loader)
        seeds.append(loader.dataset.epoch_seed.item())
        return batches

    nn.modules.module.register_module_forward_hook(note_mask)
    EpochLoader.__iter__ = note_seed
    ddp = ["trainer=ddp", "trainer.accelerator=cpu", f"trainer.devices={processes}", "batch_size=1", "epochs=2"]
    found = {}
    for name, parts in (("whole", [{}]), ("halves", [{"stop_after": 1}, {"resume": True}])):
        for part in parts:
            last = train(folder / name, folder / "pairs", *ddp, trainer=(), **part)
        found[name] = {"masks": [*masks], "seeds": [*seeds], "weights": last["state_dict"]}
        masks.clear(), seeds.clear()
    EpochLoader.__iter__ = iterate
    return found


def many_messages(folder, processes):
    """Gradients travel in several messages while the backward goes on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exchange, "MESSAGE_BYTES", 4096)
        return three_steps(folder, processes)


SCENARIOS = {
    "vanilla": three_steps,
    "many messages": many_messages,
    "accumulated": partial(three_steps, accumulate=2),
    "wgangp": partial(three_steps, **WGANGP),
    "uneven": uneven_validation,
    "dropout": dropout_masks,
}


def process(rank, folder, port):
    os.chdir(ROOT)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0", "LOCAL_RANK": str(rank)}
    torch.set_num_threads(1)
    for name, scenario in SCENARIOS.items():
        torch.save(scenario(folder, 2), folder / f"{name}_{rank}.pt")


def in_two_processes(folder):
    """What each scenario gave: (in the first process, in the second)."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = torch.multiprocessing.spawn(process, (folder, port), nprocs=2, join=False)
    try:
        deadline = time.monotonic() + 120
        while not processes.join(timeout=10):  # true when all have ended
            assert time.monotonic() < deadline, "the processes wait for each other"
    finally:
        for left in processes.processes:
            left.kill()
    return {
        name: [torch.load(folder / f"{name}_{rank}.pt", weights_only=True) for rank in (0, 1)] for name in SCENARIOS
    }


def test_two_processes(tmp_path):
    """One test, so that pytest-xdist does not start the two of them in each of its workers."""
    for split, count in (("train", 4), ("val", 5)):
        (tmp_path / "pairs" / split).mkdir(parents=True)
        for index in range(count):
            picture(128, 64, seed=index).save(tmp_path / "pairs" / split / f"{index}.png")
    of_two = in_two_processes(tmp_path)
    vanilla = three_steps(tmp_path, 1)
    for scenario in ("vanilla", "many messages", "accumulated", "wgangp"):
        one = SCENARIOS["wgangp"](tmp_path, 1) if scenario == "wgangp" else vanilla
        check_equal_to_one(of_two[scenario], one)
    moved = [(after - start).norm() for start, after in zip(one["before"], one["after"], strict=True)]
    assert 0.05 < torch.stack(moved).norm() < 3 * 0.1 * 0.5 * 2**0.5  # three clipped steps of two networks at rate 0.1
    check_each_image_is_scored_once(of_two["uneven"], uneven_validation(tmp_path, 1))
    check_dropout_is_their_own_and_resumes(of_two["dropout"])


def check_equal_to_one(of_two, one):
    """Weights, gradient clipping, their average and scores are equal but for rounding.

    Not equal is what each process draws for itself, dropout and the points of the gradient penalty, and BatchNorm
    without sync_batchnorm: hence instance norm, no dropout, and a critic whose penalty is the same at every point.
    """
    for two in of_two:
        for key in ("after", "average"):
            for ours, expected in zip(two[key], one[key], strict=True):
                torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)
        assert two["scores"] == pytest.approx(one["scores"], rel=1e-6)
        assert two["losses"] == pytest.approx(one["losses"], rel=1e-6) and "train/D" in two["losses"]
    for start, after in zip(one["before"], one["after"], strict=True):
        assert start.dim() == 1 or not torch.allclose(after, start, atol=1e-4)
    assert not torch.allclose(one["average"][0], one["after"][0], atol=1e-4)


def check_each_image_is_scored_once(of_two, alone):
    for one, mine, other in zip(alone, *of_two, strict=True):
        assert one["names"] == ["0", "1", "2", "3", "4"]
        assert (mine["names"], other["names"]) == (["0", "2", "4"], ["1", "3"])
        assert mine["scores"] == other["scores"] == pytest.approx(one["scores"], rel=1e-5)


def check_dropout_is_their_own_and_resumes(of_two):
    for rank in of_two:
        whole, halves = rank["whole"], rank["halves"]
        assert len(whole["masks"]) >= 4 and len(whole["seeds"]) == 2
        assert whole["seeds"] == halves["seeds"] == of_two[0]["whole"]["seeds"]  # order and crops are common to both
        for one, other in zip(whole["masks"], halves["masks"], strict=True):
            assert torch.equal(one, other)
        weights = zip(whole["weights"].values(), halves["weights"].values(), strict=True)
        assert all(torch.equal(one, other) for one, other in weights)
    for mine, others in zip(*(rank["whole"]["masks"] for rank in of_two), strict=True):
        assert mine.shape == others.shape and not torch.equal(mine, others)


def test_norm_stats_go_by_the_images_that_batch_norm_sees_together():
    """(batch_size, processes, overrides) -> what the record says, and what validation uses."""
    for batch_size, processes, overrides, expected in (
        (1, 1, [], "instance"),
        (2, 1, [], "running"),
        (1, 2, ["trainer=ddp"], "instance"),
        (1, 2, ["trainer=ddp", "trainer.sync_batchnorm=true"], "running"),
        (1, 1, ["trainer=ddp", "trainer.sync_batchnorm=true"], "instance"),
        (1, 2, ["trainer=ddp", "trainer.sync_batchnorm=true", "norm_stats=instance"], "instance"),
        (4, 1, ["norm_stats=instance"], "instance"),
    ):
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("train", [f"batch_size={batch_size}", "run_dir=unused", *overrides])
        settle_norm_stats(cfg, processes=processes)
        assert cfg.norm_stats == cfg.model.norm_stats == expected


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
    two += ["trainer.sync_batchnorm=true", "generator.norm=instance", "discriminator.norm=instance"]  # it needs GPUs
    out, err = run("train", f"name={name}", *SMALL, *two, "epochs=1", "data.workers=0")
    assert err.strip() == ""
    assert [out.count(word) for word in ("training on cpu", "epoch   1/1", "after training", "next:")] == [1] * 4
    assert [path.name for path in (tmp_path / "csv").iterdir()] == ["version_0"]
    assert torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 2
    record = OmegaConf.load(tmp_path / "train.yaml")
    assert record.norm_stats == record.model.norm_stats == "running"  # two images a step, were there a BatchNorm
