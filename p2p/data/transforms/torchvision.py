"""Resize, crop, flip and normalize with torchvision on the CPU: the transform that runs everywhere."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import v2


class Torchvision:
    """The geometry of pix2pix (Isola et al. 2017, appendix 6.2), through Pillow's bicubic resize.

    Args:
        image_size: side of what the networks see, in pixels.
        load_size: side that training images are resized to before the random crop; None keeps the paper's
            ratio, 286 to 256.
        flip: mirror half of the training pairs.
    """

    def __init__(self, *, image_size: int, load_size: int | None = None, flip: bool = True):
        load_size = load_size or round(image_size * 286 / 256)
        if load_size < image_size:
            raise ValueError(f"load_size={load_size} is smaller than image_size={image_size}: nothing is left to crop")
        self._train = v2.Compose(
            [
                v2.Resize((load_size, load_size), v2.InterpolationMode.BICUBIC),
                v2.RandomCrop(image_size),
                v2.RandomHorizontalFlip(0.5 if flip else 0.0),
            ]
        )
        self._eval = v2.Resize((image_size, image_size), v2.InterpolationMode.BICUBIC)

    def train(self, input_HWC: np.ndarray, target_HWC: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Two uint8 frames -> two float32 (C, size, size) in [-1, 1], cropped and mirrored alike.

        Draws from torch's global generator, which Lightning seeds in every worker.
        """
        return tuple(map(_normalize, self._train(_to_pil(input_HWC), _to_pil(target_HWC))))

    def eval(self, frame_HWC: np.ndarray) -> torch.Tensor:
        """uint8 (H, W, C) -> float32 (C, size, size) in [-1, 1], nothing random."""
        return _normalize(self._eval(_to_pil(frame_HWC)))


def _to_pil(frame_HWC: np.ndarray) -> Image.Image:
    return Image.fromarray(frame_HWC.squeeze(2) if frame_HWC.shape[2] == 1 else frame_HWC)


def _normalize(image: Image.Image) -> torch.Tensor:
    return v2.functional.pil_to_tensor(image).float().div_(127.5).sub_(1.0)
