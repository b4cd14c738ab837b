"""Resize, crop, flip and normalize with torchvision on the CPU: the transform that runs everywhere."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from p2p.batch import from_frames
from p2p.data.transforms.sizing import LEVELS, Preprocess, Sizing


class Torchvision:
    """The geometry of pix2pix (Isola et al. 2017, appendix 6.2), through Pillow's bicubic resize.

    What becomes of a frame, by `preprocess`, whose names are those of the reference:

    | preprocess | training | evaluation |
    |---|---|---|
    | resize_and_crop | to load_size x load_size, random crop of image_size | to image_size x image_size |
    | crop | random crop of image_size | the crop in the middle |
    | scale_width | width to image_size | the same |
    | scale_width_and_crop | width to load_size, random crop of image_size | width to image_size, crop in the middle |
    | none | as it is | as it is |

    Scaling the width keeps the aspect ratio, except that before a crop the height becomes image_size at least, as
    in the reference. scale_width and none then bring the sides to the nearest multiple of `multiple`, because a
    U-Net halves them until 1 of that many pixels is left. The reference goes to multiples of 4, which suits its
    ResNets and lets its U-Nets fail. They give tensors of different sizes, so they need batch_size=1.

    Args:
        image_size: side of what the networks see, in pixels.
        load_size: side, or width, that training images are resized to before the random crop; None keeps the
            paper's ratio, 286 to 256.
        flip: mirror half of the training pairs.
        preprocess: see the table.
        multiple: what the sides are made a multiple of by scale_width and none; None for the stride of the U-Net of
            this image_size: the largest power of two that divides it, at most 256. 4 suits a ResNet.

    Raises:
        ValueError: an argument, or a frame smaller than the crop.
    """

    def __init__(
        self,
        *,
        image_size: int,
        load_size: int | None = None,
        flip: bool = True,
        preprocess: Preprocess = "resize_and_crop",
        multiple: int | None = None,
    ):
        self.sizing = Sizing(
            image_size=image_size, preprocess=preprocess, multiple=multiple or min(256, image_size & -image_size)
        )
        load_size = load_size or round(image_size * 286 / 256)
        if load_size < image_size:
            raise ValueError(f"load_size={load_size} is smaller than image_size={image_size}: nothing is left to crop")
        if multiple is not None and multiple < 1:
            raise ValueError(f"transform.multiple={multiple} is too small: use 1 or more")
        self._size = image_size
        self._load_size = load_size
        self._flip = flip

    def train(self, input_HWC: np.ndarray, target_HWC: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Two frames of equal size -> two float32 (C, H, W) in [-1, 1], cropped and mirrored alike.

        Frames as in `Sizing`. Draws from torch's global generator, which Lightning seeds in every worker.
        """
        height, width = self.sizing.scaled(*input_HWC.shape[:2], self._load_size)
        pair = [_resize(frame, height, width) for frame in (input_HWC, target_HWC)]
        if self.sizing.crops:
            self.sizing.check_crop(height, width)
            top, left = (int(torch.randint(side - self._size + 1, ())) for side in (height, width))
            pair = [_crop(image, top, left, self._size) for image in pair]
        if self._flip and torch.rand(()) < 0.5:
            pair = [image.flip(2) for image in pair]
        a, b = map(_normalize, pair, (input_HWC.dtype, target_HWC.dtype))
        return a, b

    def eval(self, frame_HWC: np.ndarray) -> torch.Tensor:
        """A frame -> float32 (C, H, W) in [-1, 1], nothing random. Frames as in `Sizing`."""
        return from_frames(torch.from_numpy(np.array(self.sizing(frame_HWC), order="C"))[None])[0]


def _resize(frame_HWC: np.ndarray, height: int, width: int) -> torch.Tensor:
    """Bicubic as Pillow does it; uint8 stays uint8, all else becomes float32 of the same range: (C, height, width)."""
    if frame_HWC.dtype == np.uint8 and frame_HWC.shape[2] in (1, 3):
        planes = [Image.fromarray(frame_HWC.squeeze(2) if frame_HWC.shape[2] == 1 else frame_HWC)]
    else:
        planes = [Image.fromarray(plane) for plane in np.moveaxis(frame_HWC, 2, 0).astype(np.float32)]
    resized = [F.resize(plane, [height, width], v2.InterpolationMode.BICUBIC) for plane in planes]
    return torch.cat([F.pil_to_tensor(plane) for plane in resized]) if len(planes) > 1 else F.pil_to_tensor(resized[0])


def _crop(image_CHW: torch.Tensor, top: int, left: int, size: int) -> torch.Tensor:
    return image_CHW[:, top : top + size, left : left + size]


def _normalize(image_CHW: torch.Tensor, dtype: np.dtype) -> torch.Tensor:
    """To [-1, 1] from the range of the frame's dtype, which bicubic overshoots where it is not held to 8 bits."""
    normal_CHW = image_CHW.float().div_(LEVELS[dtype] / 2).sub_(1.0)
    return normal_CHW if image_CHW.dtype == torch.uint8 else normal_CHW.clamp_(-1.0, 1.0)
