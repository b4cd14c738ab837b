"""Resize, crop, flip and normalize on the CPU, bit by bit as torchvision does: the transform that runs everywhere.

torchvision resizes images by Pillow; `p2p.data.transforms.sizing` does that by itself, in training, too, because
`import torchvision` takes as long as torch. The name stays: records of runs and of outputs have it, and the tests
compare with torchvision. torch is imported where there are tensors: a config is checked and files are found before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from p2p.data.transforms.sizing import Preprocess, Sizing, check_sides, resize
from p2p.data.transforms.transform import View
from p2p.image_size import ImageSize, height_and_width, shown

if TYPE_CHECKING:
    import torch


class Torchvision:
    """The geometry of pix2pix (Isola et al. 2017, appendix 6.2), through Pillow's bicubic resize.

    What becomes of a frame, by `preprocess`, whose names are those of pytorch-CycleGAN-and-pix2pix (the
    reference):

    | preprocess | training | evaluation |
    |---|---|---|
    | resize_and_crop | to load_size, random crop of image_size | to image_size |
    | crop | random crop of image_size | the crop in the middle |
    | scale_width | width to load_size | width to image_size |
    | scale_width_and_crop | width to load_size, random crop of image_size | width to image_size, crop in the middle |
    | none | as it is | as it is |

    image_size and load_size are one number for a square, or [height, width]; the reference has squares alone. What
    scales the width goes by the width of image_size.

    Scaling the width keeps the aspect ratio, except that the height becomes that of image_size at least, as in the
    reference: images wider than that are stretched. Evaluation is the reference's test, whose load_size is its
    crop_size. scale_width and none then bring the sides to the nearest multiple of `multiple`, because a U-Net halves
    them until 1 of that many pixels is left. With none the reference goes to multiples of 4, which suits its ResNets
    and lets its U-Nets fail, and with scale_width to no multiple. Both give tensors of different sizes, so they need
    batch_size=1.

    Args:
        image_size: side of what the networks see, in pixels, or [height, width].
        load_size: side or [height, width], or width alone, that training images are resized to, before the random crop
            if there is one; None keeps the paper's ratio, 286 to 256.
        flip: mirror half of the training pairs.
        preprocess: see the table.
        multiple: see `Sizing`.

    Raises:
        ValueError: an argument is out of range or has no effect in this mode, or a frame is smaller than the crop.
    """

    def __init__(
        self,
        *,
        image_size: ImageSize,
        load_size: ImageSize | None = None,
        flip: bool = True,
        preprocess: Preprocess = "resize_and_crop",
        multiple: int | None = None,
    ):
        self.sizing = Sizing(image_size=image_size, preprocess=preprocess, multiple=multiple)
        height, width = self.sizing.sides
        by_width = preprocess.startswith("scale_width")
        if load_size is None:
            load_size = [round(side * 286 / 256) for side in (height, width)]
        elif preprocess in ("crop", "none"):
            raise ValueError(
                f"transform.load_size={load_size} has no effect with preprocess={preprocess}: leave it out"
            )
        else:
            check_sides("load_size", load_size)
            if by_width and not isinstance(load_size, int):
                raise ValueError(
                    f"transform.load_size={shown(load_size)} is a width alone with preprocess={preprocess}: use one"
                    " number"
                )
        rows, columns = height_and_width(load_size)
        if (columns < width or (rows < height and not by_width)) and self.sizing.crops:
            raise ValueError(
                f"load_size={shown(load_size)} is smaller than image_size={shown(image_size)}: nothing is left to crop"
            )
        if multiple is not None and self.sizing.crops:
            raise ValueError(f"transform.multiple={multiple} has no effect with preprocess={preprocess}: leave it out")
        self._load_size = load_size
        self._flip = flip

    def train(self, input_HWC: np.ndarray, target_HWC: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Two frames of equal size -> two float32 (C, H, W) in [-1, 1], cropped and mirrored alike.

        Frames as in `Sizing`. Draws from torch's global generator, which Lightning seeds in every worker.
        """
        a, b = self.load(input_HWC), self.load(target_HWC)
        view = self.draw(*a.shape[1:])
        return view.of(a, input_HWC.dtype), view.of(b, target_HWC.dtype)

    def load(self, frame_HWC: np.ndarray) -> torch.Tensor:
        """The part of `train` before anything random: a frame, as in `eval`, resized to (C, H, W)."""
        import torch

        height, width, _ = frame_HWC.shape
        sized_HWC = resize(frame_HWC, *self.loaded_size(height, width))
        image_CHW = torch.from_numpy(np.array(sized_HWC, order="C")).permute(2, 0, 1)
        return image_CHW if image_CHW.dtype == torch.uint8 else image_CHW.contiguous()

    def loaded_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width that `load` brings a frame of this size to, by Pillow's bicubic; see `Sizing.scaled`."""
        return self.sizing.scaled(height, width, self._load_size)

    def draw(self, height: int, width: int, generator: torch.Generator | None = None) -> View:
        """The random part of `train`: what is shown of a loaded pair of this size.

        Args:
            height, width: of both images, in pixels.
            generator: to draw from; None for torch's global one.

        Raises:
            ValueError: the pair is smaller than the crop.
        """
        import torch

        top, left, size = 0, 0, (height, width)
        if self.sizing.crops:
            self.sizing.check_crop(height, width)
            sides, size = (height, width), self.sizing.sides
            top, left = (
                int(torch.randint(side - seen + 1, (), generator=generator))
                for side, seen in zip(sides, size, strict=True)
            )
        mirrored = self._flip and bool(torch.rand((), generator=generator) < 0.5)
        return View(top, left, *size, mirrored)

    def eval(self, frame_HWC: np.ndarray) -> torch.Tensor:
        """A frame -> float32 (C, H, W) in [-1, 1], nothing random. Frames as in `Sizing`."""
        import torch

        from p2p.batch import from_frames

        return from_frames(torch.from_numpy(np.array(self.sizing(frame_HWC), order="C"))[None])[0]
