"""What a transform is: frames to what the networks see. Another one is one file and one YAML."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from p2p.data.transforms.sizing import Sizing
from p2p.levels import WHITE, normalize

if TYPE_CHECKING:
    import torch


class View(NamedTuple):
    """What a training step sees of an image: a window, in pixels, and whether it is mirrored left to right."""

    top: int
    left: int
    height: int
    width: int
    mirrored: bool

    def of(self, image_CHW: torch.Tensor, dtype: np.dtype) -> torch.Tensor:
        """A resized image -> float32 (C, height, width) in [-1, 1].

        Args:
            image_CHW: as `Transform.load` gives it.
            dtype: of the frame that it was, which says where white is.
        """
        image_CHW = image_CHW[:, self.top : self.top + self.height, self.left : self.left + self.width]
        in_8_bits = not image_CHW.is_floating_point()
        image_CHW = normalize((image_CHW.flip(2) if self.mirrored else image_CHW).float(), WHITE[dtype])
        return image_CHW if in_8_bits else image_CHW.clamp_(-1.0, 1.0)  # bicubic overshoots


class Transform(Protocol):
    """Brings frames, as `Sizing` takes them, to what the networks see.

    Its class takes the arguments of `p2p.data.transforms.torchvision.Torchvision`, by which infer.py makes it.

    Attributes:
        sizing: of an evaluation. It travels to worker processes, so it can be pickled, and has no torch.
    """

    sizing: Sizing

    def train(self, input_HWC: np.ndarray, target_HWC: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Two frames of equal size -> two float32 (C, H, W) in [-1, 1], cropped and mirrored alike at random."""

    def load(self, frame_HWC: np.ndarray) -> torch.Tensor:
        """The part of `train` before anything random: (C, H, W), in the frame's range."""

    def draw(self, height: int, width: int, generator: torch.Generator | None = None) -> View:
        """The random part of `train`: what is shown of a loaded pair of this size."""

    def eval(self, frame_HWC: np.ndarray) -> torch.Tensor:
        """A frame -> float32 (C, H, W) in [-1, 1], nothing random."""
