"""What changes between the generator that trains and the one that is deployed, each function in a file of its own.

`inference_view` decides what a norm means. All others are exact: in float64 their outputs agree with the network's
own to 1e-10, so that they can change nothing but the time. They take a network in eval mode and leave it as it is.
"""

from p2p.deploy.rewrite.downsample import SpaceToDepthConv2d, space_to_depth
from p2p.deploy.rewrite.fold import fold_batch_norm
from p2p.deploy.rewrite.frames import Frames
from p2p.deploy.rewrite.norm import NormStats, inference_view, resolve_norm_stats
from p2p.deploy.rewrite.taps import drop_dead_taps
from p2p.deploy.rewrite.upsample import SubPixelConv2d, sub_pixel

__all__ = [
    "Frames",
    "NormStats",
    "SpaceToDepthConv2d",
    "SubPixelConv2d",
    "drop_dead_taps",
    "fold_batch_norm",
    "inference_view",
    "resolve_norm_stats",
    "space_to_depth",
    "sub_pixel",
]
