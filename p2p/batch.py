"""A batch of training and validation, and what frames are to the networks.

Shape suffixes, here and everywhere: N images, C channels, H rows, W columns. `input_NCHW` is a float
tensor in [-1, 1] as the networks see it; `frames_NHWC` and `frame_HWC` are as files hold it:
uint8 in [0, 255]; what is read may also be uint16 in [0, 65535] or float32 in [0, 1] (`p2p.codecs.pillow.decode`).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch

from p2p.levels import normalize


@dataclass
class Batch:
    """Images that go through the networks together.

    Attributes:
        names: one per image: the path of its output, relative and without suffix.
        input_NCHW: float32 (N, C, H, W) in [-1, 1].
        target_NCHW: the same for the images to be reproduced, or None where none are known.
    """

    names: list[str]
    input_NCHW: torch.Tensor
    target_NCHW: torch.Tensor | None = None

    @classmethod
    def collate(cls, samples: list[Batch]) -> Batch:
        """Join samples of one image each, (1, C, H, W), in their order.

        Raises:
            ValueError: their sizes differ, as `transform.preprocess=scale_width` and `none` leave them.
        """
        first = samples[0]
        for sample in samples:
            if sample.input_NCHW.shape != first.input_NCHW.shape:
                sizes = ["x".join(map(str, each.input_NCHW.shape[:1:-1])) for each in (first, sample)]
                raise ValueError(
                    f"{first.names[0]} is {sizes[0]} and {sample.names[0]} is {sizes[1]} pixels, which makes no batch:"
                    " use batch_size=1 or transform.preprocess=resize_and_crop"
                )
        targets = [sample.target_NCHW for sample in samples]
        return cls(
            names=[name for sample in samples for name in sample.names],
            input_NCHW=torch.cat([sample.input_NCHW for sample in samples]),
            target_NCHW=None if None in targets else torch.cat(targets),
        )

    def __len__(self) -> int:
        return len(self.names)

    def to(self, device: torch.device | str) -> Batch:
        """A copy on `device`; from pinned memory without waiting."""
        return self._each_tensor(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """A copy in page-locked memory, as the data loader asks for."""
        return self._each_tensor(torch.Tensor.pin_memory)

    def channels_last(self) -> Batch:
        """The same values with the channels of a pixel side by side in memory, as a GPU's convolutions want them."""
        return self._each_tensor(lambda tensor: tensor.contiguous(memory_format=torch.channels_last))

    def _each_tensor(self, function) -> Batch:
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{k: function(v) for k, v in tensors.items() if isinstance(v, torch.Tensor)})


def from_frames(frames_NHWC: torch.Tensor) -> torch.Tensor:
    """uint8 (N, H, W, C), or float32 in [-1, 1] as it is -> float32 (N, C, H, W) in [-1, 1], contiguous."""
    images_NCHW = frames_NHWC.permute(0, 3, 1, 2)
    if frames_NHWC.dtype != torch.uint8:
        # Of one channel, `contiguous` leaves strides by which oneDNN may take the layout for channels last, and then
        # other kernels, whose last bits differ from one pipeline to the other.
        return images_NCHW.clone(memory_format=torch.contiguous_format)
    return normalize(images_NCHW.to(torch.float32, memory_format=torch.contiguous_format))


def to_frames(images_NCHW: torch.Tensor) -> torch.Tensor:
    """float (N, C, H, W) in [-1, 1], clipped, or frames as they are -> uint8 (N, H, W, C) on the same device, dense.

    Rounds to the nearest; pytorch-CycleGAN-and-pix2pix truncates, which darkens every image by half a
    level.
    """
    if images_NCHW.dtype == torch.uint8:
        return images_NCHW.contiguous()
    frames = images_NCHW.float().add(1.0).mul_(127.5).round_().clamp_(0, 255)
    return frames.to(torch.uint8).permute(0, 2, 3, 1).contiguous()
