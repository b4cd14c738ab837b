"""The module structure of the reference's networks, written anew: what its .pth files must load into with strict=True.

After its models/networks.py as of 2024-03 (github.com/junyanz/pytorch-CycleGAN-and-pix2pix), from a description of
which module stands where. Activations work in place there, so that a skip carries the LeakyReLU'd tensor: here, too.
"""

import torch
from torch import nn


def norm_of(kind, channels):
    return {"batch": nn.BatchNorm2d, "instance": nn.InstanceNorm2d, "none": lambda _: nn.Identity()}[kind](channels)


class Holder(nn.Module):
    """Anything below the attribute `model`."""

    def __init__(self, *layers, skip=False):
        super().__init__()
        self.model = layers[0] if len(layers) == 1 else nn.Sequential(*layers)
        self.skip = skip

    def forward(self, x):
        return torch.cat([x, self.model(x)], 1) if self.skip else self.model(x)


def unet(*, depth, width=4, into=3, out=3, norm="batch", dropout=True):
    bias = norm == "instance"

    def down(a, b, normed=True):
        return [nn.LeakyReLU(0.2, True), nn.Conv2d(a, b, 4, 2, 1, bias=bias)] + [norm_of(norm, b)] * normed

    def up(a, b):
        return [nn.ReLU(True), nn.ConvTranspose2d(a, b, 4, 2, 1, bias=bias), norm_of(norm, b)]

    wide = 8 * width
    block = Holder(*down(wide, wide, normed=False), *up(wide, wide), skip=True)
    for _ in range(depth - 5):
        drop = [nn.Dropout(0.5)] if dropout else []
        block = Holder(*down(wide, wide), block, *up(2 * wide, wide), *drop, skip=True)
    for outer in (4 * width, 2 * width, width):
        block = Holder(*down(outer, 2 * outer), block, *up(4 * outer, outer), skip=True)
    last = nn.ConvTranspose2d(2 * width, out, 4, 2, 1)
    first = nn.Conv2d(into, width, 4, 2, 1, bias=bias)
    return Holder(Holder(first, block, nn.ReLU(True), last, nn.Tanh()))


class Residual(nn.Module):
    def __init__(self, channels, norm, dropout):
        super().__init__()
        half = [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3, bias=norm == "instance")]
        other = [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3, bias=norm == "instance")]
        middle = [norm_of(norm, channels), nn.ReLU(True)] + [nn.Dropout(0.5)] * dropout
        self.conv_block = nn.Sequential(*half, *middle, *other, norm_of(norm, channels))

    def forward(self, x):
        return x + self.conv_block(x)


def resnet(*, blocks, width=4, into=3, out=3, norm="batch", dropout=True):
    bias = norm == "instance"
    layers = [nn.ReflectionPad2d(3), nn.Conv2d(into, width, 7, bias=bias), norm_of(norm, width), nn.ReLU(True)]
    for a in (width, 2 * width):
        layers += [nn.Conv2d(a, 2 * a, 3, 2, 1, bias=bias), norm_of(norm, 2 * a), nn.ReLU(True)]
    layers += [Residual(4 * width, norm, dropout) for _ in range(blocks)]
    for a in (4 * width, 2 * width):
        layers += [nn.ConvTranspose2d(a, a // 2, 3, 2, 1, 1, bias=bias), norm_of(norm, a // 2), nn.ReLU(True)]
    return Holder(*layers, nn.ReflectionPad2d(3), nn.Conv2d(width, out, 7), nn.Tanh())


def patchgan(*, layers=3, width=4, channels=6, norm="batch"):
    made = [nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.2, True)]
    sizes = [width * min(2**layer, 8) for layer in range(layers + 1)]
    for layer in range(1, layers + 1):
        a, b, stride = sizes[layer - 1], sizes[layer], 1 if layer == layers else 2
        made += [nn.Conv2d(a, b, 4, stride, 1, bias=norm == "instance"), norm_of(norm, b), nn.LeakyReLU(0.2, True)]
    return Holder(*made, nn.Conv2d(sizes[-1], 1, 4, 1, 1))


class PixelHolder(nn.Module):
    """As Holder, below the attribute `net`."""

    def __init__(self, *layers):
        super().__init__()
        self.net = nn.Sequential(*layers)

    def forward(self, x):
        return self.net(x)


def pixelgan(*, width=4, channels=6, norm="batch"):
    bias = norm == "instance"
    middle = [nn.Conv2d(width, 2 * width, 1, bias=bias), norm_of(norm, 2 * width), nn.LeakyReLU(0.2, True)]
    return PixelHolder(
        nn.Conv2d(channels, width, 1), nn.LeakyReLU(0.2, True), *middle, nn.Conv2d(2 * width, 1, 1, bias=bias)
    )
