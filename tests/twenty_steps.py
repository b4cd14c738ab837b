"""Twenty steps at a global batch of 8, by as many processes as asked for: `python -m tests.twenty_steps DEVICES ...`.

A process for each device, started by Lightning, as `train.py` starts them.
"""

import argparse
import json
from functools import partial
from pathlib import Path

import lightning
import torch
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler

from p2p.batch import Batch
from p2p.losses.adversarial import Vanilla
from p2p.losses.loss import Distance
from p2p.metrics import image
from p2p.models.patchgan import PatchGAN
from p2p.models.unet import UNet
from p2p.training import each_network  # noqa: F401 - the strategy
from p2p.training.pix2pix import Pix2Pix
from p2p.training.schedules import linear

STEPS, BATCH, SIDE = 20, 8, 64


class Watch(lightning.Callback):
    """The losses of every step, and whether it was replayed."""

    def __init__(self):
        self.losses, self.replayed = [], []

    def on_train_batch_end(self, trainer, pl_module, *rest):
        found = trainer.callback_metrics
        self.losses.append({name: value.item() for name, value in found.items() if name.startswith("train/")})
        self.replayed.append(pl_module._captured is not None and pl_module._captured.recorded)


def pairs():
    """Smooth images: noise in, the same turned by 90 degrees out."""
    noise = torch.rand(STEPS * BATCH, 1, 3, SIDE // 8, SIDE // 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
    images = [nn.functional.interpolate(each, scale_factor=8, mode="bilinear") for each in noise]
    return [Batch([str(number)], each, each.rot90(1, (2, 3)).contiguous()) for number, each in enumerate(images)]


class InOrder(lightning.LightningDataModule):
    """Step n sees images 8 n to 8 n + 7, whoever sees which of them."""

    def train_dataloader(self):
        world = {"num_replicas": self.trainer.world_size, "rank": self.trainer.global_rank}
        sampler = DistributedSampler(pairs(), shuffle=False, **world)
        batch = BATCH // self.trainer.world_size
        return DataLoader(pairs(), sampler=sampler, batch_size=batch, collate_fn=Batch.collate)


def train(devices, *, accelerator, capture, precision="32-true"):
    """Train; returns the losses of all steps, the weights of both networks, and which steps were replayed."""
    torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32 = True, False
    lightning.seed_everything(0, verbose=False)
    model = Pix2Pix(
        generator=UNet(image_size=SIDE, width=8, dropout=0.0, norm="none"),
        discriminator=PatchGAN(width=8, layers=2, norm="none"),
        adversarial=Vanilla(),
        losses={"l1": Distance(distance=nn.L1Loss())},
        metrics={"L1": image.l1()},
        # Of gradients that are rounding alone, such as those of biases before a norm, a small eps makes whole steps.
        optimizer=partial(torch.optim.Adam, lr=2e-4, betas=(0.5, 0.999), eps=1e-3, fused=True),
        scheduler=partial(linear, epochs=8, decay_fraction=0.0),
        capture=capture,
    )
    watch = Watch()
    trainer = lightning.Trainer(
        accelerator=accelerator,
        devices=devices,
        strategy="each_network" if devices > 1 else "auto",
        precision=precision,
        max_epochs=1,
        callbacks=[watch],
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        benchmark=False,
        log_every_n_steps=1,
    )
    trainer.fit(model, InOrder())
    weights = {name: value.cpu() for name, value in model.state_dict().items()}
    return trainer.global_rank, {"losses": watch.losses, "weights": weights, "replayed": watch.replayed}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("devices", type=int)
    parser.add_argument("folder", type=Path, help="rank_N.pt of each process")
    parser.add_argument("--accelerator", default="gpu")
    parser.add_argument("--capture", type=json.loads, default=False, help="true or false")
    args = parser.parse_args()
    rank, found = train(args.devices, accelerator=args.accelerator, capture=args.capture)
    torch.save(found, args.folder / f"rank_{rank}.pt")


if __name__ == "__main__":
    main()
