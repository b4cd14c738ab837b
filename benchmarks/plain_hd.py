"""A plain training step of pix2pixHD, with the networks of p2p and no other code of it."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from p2p.batch import Batch
from p2p.models.init import initialize

LR, BETAS = 2e-4, (0.5, 0.999)


def plain_step(
    generator: nn.Module, discriminator: nn.Module, device: torch.device
) -> Callable[[Batch], dict[str, torch.Tensor]]:
    """LSGAN at several scales and 10 times feature matching, in fp32, NCHW, by Adam as torch makes it.

    In the order of p2p: the discriminator's step, then the generator's against the updated discriminator.
    """
    for network in (generator, discriminator):
        initialize(network)
        network.to(device)
    g_optimizer, d_optimizer = (
        torch.optim.Adam(network.parameters(), lr=LR, betas=BETAS) for network in (generator, discriminator)
    )

    def towards(scales: list, label: float) -> torch.Tensor:
        return sum(F.mse_loss(scale[-1], torch.full_like(scale[-1], label)) for scale in scales)

    def step(batch: Batch) -> dict[str, torch.Tensor]:
        a, b = batch.input_NCHW, batch.target_NCHW
        fake = generator(a)
        real_seen = discriminator(a, b, activations=True)
        fake_seen = discriminator(a, fake.detach(), activations=True)
        d_loss = 0.5 * (towards(real_seen, 1.0) + towards(fake_seen, 0.0))
        d_optimizer.zero_grad()
        d_loss.backward()
        d_optimizer.step()

        fake_seen = discriminator(a, fake, activations=True)
        with torch.no_grad():
            real_seen = discriminator(a, b, activations=True)
        gan = towards(fake_seen, 1.0)
        matching = sum(
            4.0 / (len(ours) - 1) * F.l1_loss(x, y) / len(real_seen)
            for ours, theirs in zip(fake_seen, real_seen, strict=True)
            for x, y in zip(ours[:-1], theirs[:-1], strict=True)
        )
        g_optimizer.zero_grad()
        (gan + 10.0 * matching).backward()
        g_optimizer.step()
        return {"D": d_loss.detach(), "G_gan": gan.detach(), "G_feature_matching": matching.detach()}

    return step
