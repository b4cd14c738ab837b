"""Frames in and out: what the conversions outside would do, to the last bit."""

import numpy as np
import torch
from torch import nn

from p2p.batch import to_frames
from p2p.data.transforms.torchvision import Torchvision
from p2p.deploy.rewrite import (
    Frames,
    SpaceToDepthConv2d,
    SubPixelConv2d,
    apply,
)
from p2p.models.unet import UNet
from tests.deploy.networks import count, randomized


def test_frames_are_the_conversions_outside_to_the_last_bit():
    network = randomized(UNet(image_size=32, width=4)).float()
    frames_NHWC = torch.randint(0, 256, (3, 32, 64, 3), dtype=torch.uint8)
    transform = Torchvision(image_size=32, preprocess="none")
    with torch.inference_mode():
        outside = to_frames(network(torch.stack([transform.eval(frame.numpy()) for frame in frames_NHWC])))
        inside = Frames(network)(frames_NHWC)
    assert (inside.dtype, inside.shape) == (torch.uint8, (3, 32, 64, 3))
    assert torch.equal(inside, outside)


class Affine(nn.Module):
    """A network of which the output is known: factor * x + shift."""

    def __init__(self, factor: float, shift: float):
        super().__init__()
        self.factor, self.shift = (nn.Parameter(torch.tensor(value)) for value in (factor, shift))

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        return self.factor * x_NCHW + self.shift


def test_rewrites_reach_the_network_inside_of_frames():
    network = Frames(randomized(UNet(image_size=32, width=4)).float())
    frames_NHWC = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
    rewritten = apply(network, ["last", "blocks"])
    assert (count(network, SubPixelConv2d), count(rewritten, SubPixelConv2d)) == (0, 1)
    assert count(rewritten, SpaceToDepthConv2d) == 1 and count(rewritten, Frames) == 1
    difference = (rewritten(frames_NHWC).int() - network(frames_NHWC).int()).abs()
    assert difference.max() <= 1 and difference.float().mean() < 1e-3


def test_frames_round_half_to_even():
    levels = torch.arange(255, dtype=torch.uint8).view(1, 15, 17, 1)
    got = Frames(Affine(1.0, 1 / 255).eval())(levels).numpy()
    # Half a level more, in NumPy's float32; where that is a half to the last bit, rint goes to the even level.
    one, half_range = np.float32(1), np.float32(127.5)
    raised = (levels.numpy().astype(np.float32) / half_range - one + np.float32(1 / 255) + one) * half_range
    halves = np.floor(raised[raised % 1 == 0.5])
    assert len(set(halves % 2)) == 2  # below an odd level and below an even one
    assert np.array_equal(got, np.rint(raised).astype(np.uint8))


def test_frames_compute_in_the_dtype_of_the_network_and_clip():
    seen = []

    class Probe(Affine):
        def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
            seen.append((x_NCHW.dtype, x_NCHW.is_contiguous(), x_NCHW.min().item(), x_NCHW.max().item()))
            return super().forward(x_NCHW)

    levels = torch.tensor([0, 100, 155, 255], dtype=torch.uint8).view(1, 2, 2, 1).repeat(1, 1, 1, 3)
    got = Frames(Probe(3.0, 0.0).half().eval())(levels)
    assert seen == [(torch.float16, True, -1.0, 1.0)]
    assert got[0, :, :, 0].flatten().tolist() == [0, 45, 210, 255]  # 127.5 + 3 * (k - 127.5), clipped
