"""How strong is the grid that transposed convolutions of stride 2 leave in flat areas of generated images?"""

import torch

SIDE = 8  # of a block, in pixels
FLAT = 6 / 127.5  # largest range in a block of the target: 6 levels of 255
WHITE = 0.96  # brighter blocks are background, where tanh hides what there is


def grid(output_NCHW: torch.Tensor, target_NCHW: torch.Tensor) -> float:
    """The pattern of periods 2 and 4 in the output where the target is flat and not white: root mean square, in levels.

    Blocks of 8x8 pixels by their Fourier transform, of which the coefficients 2, 4 and 6 of rows and columns have these
    periods. Of a target itself it is nearly 0.

    Args:
        output_NCHW, target_NCHW: floats in [-1, 1].
    """
    outputs, targets = (_blocks(image) for image in (output_NCHW, target_NCHW))
    high, low = targets.amax((1, 2, 3)), targets.amin((1, 2, 3))
    spans = (targets.amax((2, 3)) - targets.amin((2, 3))).amax(1)
    flat = outputs[(spans <= FLAT) & (low < WHITE) & (high > -WHITE)]
    if not len(flat):
        return 0.0
    power = torch.fft.fft2(flat).abs().square() / SIDE**4  # their sum is the mean square
    power = power[..., ::2, ::2].clone()
    power[..., 0, 0] = 0.0
    return 127.5 * power.sum((2, 3)).mean().sqrt().item()


def _blocks(image_NCHW: torch.Tensor) -> torch.Tensor:
    """(N, C, H, W) -> (blocks, C, 8, 8)."""
    blocks = image_NCHW.float().unfold(2, SIDE, SIDE).unfold(3, SIDE, SIDE)
    return blocks.permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
