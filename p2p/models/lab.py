"""A U-Net that adds colours to a grey image: it sees the lightness L of CIE 1976 L*a*b*, and predicts a and b.

As with `--model colorization` of pytorch-CycleGAN-and-pix2pix, L / 50 - 1 goes in, and a / 110 and b / 110 come out.
RGB is sRGB (IEC 61966-2-1), of which D65 is the white. A grey pixel of sRGB has a = b = 0, and its L depends on its
level alone.
"""

from __future__ import annotations

from typing import Any

import torch

from p2p.models.unet import UNet

LUMINANCE = (0.2126, 0.7152, 0.0722)  # of linear red, green and blue
# Linear sRGB from X, Y and Z as shares of the white: Y + first * (X - Y) + second * (Z - Y), so that grey stays grey.
# The inverse of IEC 61966-2-1's matrix, whose rows are divided by their sums.
FROM_XYZ = ((3.080215, -0.543007), (-0.920969, 0.045213), (0.052952, 1.151069))
LARGEST = 110.0  # of a and b; sRGB's own lie in [-108, 99]
DELTA = 6 / 29  # CIE 15: where the cube root goes over into a line
DARKEST = 0.0031308  # IEC 61966-2-1: below this linear level, and this level of sRGB, the curve is a line
DARKEST_SRGB = 0.04045


class LabUNet(UNet):
    """A `UNet` between a grey image and the same image in colour: 1 channel to 3, by one of 1 channel to 2.

    The output keeps the lightness of the input, but where its colour lies outside of sRGB: there it is clipped. In
    training it is not, so that the losses see how far outside it is.

    Args:
        in_channels: 1.
        out_channels: 3.
        unet: see `UNet`.

    Raises:
        ValueError: the channels are others, and see `UNet`.
    """

    def __init__(self, *, in_channels: int = 1, out_channels: int = 3, **unet: Any):
        if (in_channels, out_channels) != (1, 3):
            raise ValueError(
                f"generator=unet_lab turns 1 channel into 3, not {in_channels} into {out_channels}: use"
                " data.input_channels=1 data.target_channels=3"
            )
        super().__init__(in_channels=1, out_channels=2, **unet)

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        """float (N, 1, H, W), grey in [-1, 1] -> (N, 3, H, W), RGB in [-1, 1]; H and W are multiples of `stride`.

        Colours are computed in float32, whatever the dtype of the network.
        """
        grey = x_NCHW.float()
        ab = super().forward(lightness(grey).to(x_NCHW.dtype)).float()
        rgb = coloured(grey, ab)
        return (rgb if self.training else rgb.clamp(-1.0, 1.0)).to(x_NCHW.dtype)


def lightness(grey_NCHW: torch.Tensor) -> torch.Tensor:
    """Grey levels of sRGB in [-1, 1] -> L / 50 - 1, in [-1, 1]."""
    return (116.0 * _root(_linear(grey_NCHW)) - 16.0) / 50.0 - 1.0


def coloured(grey_NCHW: torch.Tensor, ab_NCHW: torch.Tensor) -> torch.Tensor:
    """The lightness of a grey image with other colours.

    Args:
        grey_NCHW: float32 (N, 1, H, W) in [-1, 1].
        ab_NCHW: float32 (N, 2, H, W), a / 110 and b / 110 in [-1, 1].

    Returns:
        RGB, float32 (N, 3, H, W). It is outside of [-1, 1] where sRGB has no such colour.
    """
    luminance = _linear(grey_NCHW)
    root = _root(luminance)
    x = _cube(root + ab_NCHW[:, :1] * (LARGEST / 500.0)) - luminance
    z = _cube(root - ab_NCHW[:, 1:] * (LARGEST / 200.0)) - luminance
    rgb = torch.cat([luminance + first * x + second * z for first, second in FROM_XYZ], dim=1)
    return 2.0 * _srgb(rgb) - 1.0


def grey_of(rgb_NCHW: torch.Tensor) -> torch.Tensor:
    """RGB in [-1, 1], float32 (N, 3, H, W) -> the grey of the same lightness, (N, 1, H, W)."""
    red, green, blue = _linear(rgb_NCHW).split(1, dim=1)
    return 2.0 * _srgb(LUMINANCE[0] * red + LUMINANCE[1] * green + LUMINANCE[2] * blue) - 1.0


def _linear(levels: torch.Tensor) -> torch.Tensor:
    """Levels of sRGB in [-1, 1] -> linear light, [0, 1]."""
    shares = (levels + 1.0) / 2.0
    return torch.where(shares > DARKEST_SRGB, ((shares + 0.055) / 1.055) ** 2.4, shares / 12.92)


def _srgb(linear: torch.Tensor) -> torch.Tensor:
    """Linear light -> levels of sRGB in [0, 1]; below 0 the curve is mirrored, as in CSS Color 4."""
    size = linear.abs()
    # Clamped, because the slope of a power at 0 is infinite, also where another value is taken.
    curve = 1.055 * size.clamp(min=DARKEST) ** (1 / 2.4) - 0.055
    return torch.where(size > DARKEST, linear.sign() * curve, 12.92 * linear)


def _root(share: torch.Tensor) -> torch.Tensor:
    """f of CIE 15: of X, Y or Z as a share of the white."""
    line = share / (3 * DELTA**2) + 4 / 29
    return torch.where(share > DELTA**3, share.clamp(min=DELTA**3) ** (1 / 3), line)


def _cube(root: torch.Tensor) -> torch.Tensor:
    """The inverse of `_root`."""
    return torch.where(root > DELTA, root**3, 3 * DELTA**2 * (root - 4 / 29))
