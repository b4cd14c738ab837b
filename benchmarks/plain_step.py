"""A plain training step of pix2pix, and the same step in a form that a CUDA graph can record."""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from p2p.batch import Batch
from p2p.models.init import initialize
from p2p.models.patchgan import PatchGAN
from p2p.models.unet import UNet
from p2p.training.capture import beside

LR, BETAS = 2e-4, (0.5, 0.999)


def plain_step(
    size: int, device: torch.device, *, fast: bool, width: int = 64
) -> tuple[Callable[[Batch], dict[str, torch.Tensor]], list[nn.Module], list[torch.optim.Optimizer]]:
    """The step of Isola et al. 2017 without Lightning, its networks and optimizers.

    Args:
        size: side of the images.
        device: where to train.
        fast: bf16, channels_last, fused Adam and two streams, for the step that is to be captured.
        width: channels of each network's first convolution.
    """
    torch.manual_seed(0)
    networks = [UNet(image_size=size, width=width), PatchGAN(width=width)]
    for network in networks:
        initialize(network)
        network.to(device, memory_format=torch.channels_last if fast else torch.contiguous_format)
    generator, discriminator = networks
    options = {"fused": True} if fast else {}
    optimizers = [torch.optim.Adam(network.parameters(), lr=LR, betas=BETAS, **options) for network in networks]
    autocast = partial(torch.autocast, device.type, dtype=torch.bfloat16, enabled=fast, cache_enabled=False)

    def cross_entropy(logits: torch.Tensor, label: float) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))

    side = torch.cuda.Stream(device) if fast else None

    def step(batch: Batch) -> dict[str, torch.Tensor]:
        with autocast():
            with beside(lambda: discriminator(batch.input_NCHW, batch.target_NCHW), side) as real_logits:
                fake = generator(batch.input_NCHW)
            optimizers[1].zero_grad()
            fake_logits = discriminator(batch.input_NCHW, fake.detach())
            d_loss = 0.5 * (cross_entropy(fake_logits, 0.0) + cross_entropy(real_logits, 1.0))
        d_loss.backward()
        optimizers[1].step()
        optimizers[0].zero_grad()
        discriminator.requires_grad_(False)
        with autocast():
            gan = cross_entropy(discriminator(batch.input_NCHW, fake), 1.0)
            l1 = F.l1_loss(fake, batch.target_NCHW)
        (gan + 100.0 * l1).backward()
        optimizers[0].step()
        discriminator.requires_grad_(True)
        return {"D": d_loss.detach(), "G_gan": gan.detach(), "G_l1": l1.detach()}

    return step, networks, optimizers
