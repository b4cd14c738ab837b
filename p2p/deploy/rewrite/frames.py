"""The network with the conversions around it, so that an engine can fuse them into its first and last layer."""

from __future__ import annotations

import torch
from torch import nn

from p2p.batch import from_frames, to_frames


class Frames(nn.Module):
    """uint8 (N, H, W, C) in [0, 255] -> uint8 (N, H, W, C'): pixels as files hold them, in and out.

    To the last bit what the transform, the network and `p2p.batch.to_frames` compute one after another: level k
    becomes k / 127.5 - 1 in float32, then the dtype of the network's weights; its output becomes float32 and is
    rounded to the nearest level, half to even. Over the bus to a GPU that is a quarter of the bytes of float32.

    Args:
        network: float (N, C, H, W) in [-1, 1] -> the same with C' channels, in eval mode.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        assert not any(module.training for module in network.modules()), "a rewrite needs a network in eval mode"
        self.network = network
        self.eval()

    def forward(self, frames_NHWC: torch.Tensor) -> torch.Tensor:
        """See the class."""
        dtype = next(self.network.parameters()).dtype
        # Contiguous as outside: another layout may choose another convolution, with other last bits.
        return to_frames(self.network(from_frames(frames_NHWC).to(dtype)))
