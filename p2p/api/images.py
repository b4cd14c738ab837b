"""Convert images to a generator's input and back: PIL images, NumPy arrays, torch tensors and files."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import singledispatch
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from PIL import Image

from p2p.batch import from_frames, to_frames
from p2p.codecs.depth import fits_in_16
from p2p.codecs.pillow import BYTES, LARGE, MODES, decode, frame_of_image, in_range, is_deep
from p2p.codecs.values import labels_of_image
from p2p.data.images import frame_of, read_file
from p2p.data.pairs import Source
from p2p.data.reading import Reading
from p2p.data.transforms.letterbox import Letterbox
from p2p.data.transforms.sizing import Sizing, in_levels, to_size
from p2p.levels import WHITE, to_values
from p2p.pipelines.files import check_sized
from p2p.system.folders import from_home
from p2p.system.memory import check_room

BYTES_OF_A_LEVEL = 12  # of memory at the most: as it is sized, as the network takes it, and as it gives it
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)

ImageLike: TypeAlias = str | os.PathLike | bytes | Image.Image | np.ndarray | torch.Tensor
Output: TypeAlias = Image.Image | np.ndarray | torch.Tensor


class Expected(NamedTuple):
    """What a network takes and gives.

    Attributes:
        sizing: brings images to size; None leaves them at their own.
        input_shape: (C, H, W) that it takes; H and W are None if any will do that `sizing` gives.
        output_channels: that it gives.
        readings: what the numbers of inputs and of outputs mean.
    """

    sizing: Sizing | Letterbox | None
    input_shape: tuple[int, int | None, int | None]
    output_channels: int
    readings: tuple[Reading, Reading]


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """An image, or a batch of images of one size, as the network takes it.

    Attributes:
        input_NCHW: float32 in [-1, 1].
        size: height and width that it came with.
        high_depth: whether it comes back as float32 in [-1, 1], and not rounded to 8 bits.
        back: turns such an output, (N, H, W, C), into the kind that the input was of.
        box: where its image lies in what the network takes; None: everywhere.
    """

    input_NCHW: torch.Tensor
    size: tuple[int, int]
    high_depth: bool
    back: Callable[[torch.Tensor], Output]
    box: Letterbox | None = None

    @property
    def image_shape(self) -> torch.Size:
        """(C, H, W) of each."""
        return self.input_NCHW.shape[1:]

    def __len__(self) -> int:
        return len(self.input_NCHW)

    def output(self, output_NCHW: torch.Tensor, *, restore_size: bool) -> Output:
        """The network's output, float32 in [-1, 1] -> the kind that the input was of, in memory of its own."""
        pixels_NHWC = output_NCHW.clamp(-1.0, 1.0).permute(0, 2, 3, 1) if self.high_depth else to_frames(output_NCHW)
        if restore_size and tuple(pixels_NHWC.shape[1:3]) != self.size:
            frames = pixels_NHWC.cpu().numpy()
            shown = frames if self.box is None else [self.box.cut(each, self.size) for each in frames]
            pixels_NHWC = torch.from_numpy(np.stack([to_size(each, *self.size) for each in shown]))
        return self.back(pixels_NHWC)


@singledispatch
def prepare(image: object, expected: Expected) -> Prepared:
    """An image or a batch, of one of the kinds that are registered below.

    Raises:
        ValueError: it is none, or does not suit the network; half a sentence, unless it is a file.
    """
    raise ValueError(
        f"it is of type {type(image).__name__}: use a PIL image, a NumPy array, a torch tensor, the path of a file, or"
        " one flat list of them"
    )


@prepare.register(str)
@prepare.register(os.PathLike)
def _(path: str | os.PathLike, expected: Expected) -> Prepared:
    path = from_home(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give a list of its files, as sorted(Path(...).glob('*.jpg')) makes one")
    source = Source(path)
    frame_HWC = frame_of(read_file(source), source, decode, reading=expected.readings[0])
    try:
        return _picture(frame_HWC, expected)
    except ValueError as error:
        raise ValueError(f"cannot use {path}: {error}") from error


@prepare.register
def _(data: bytes, expected: Expected) -> Prepared:
    return _picture(expected.readings[0].frame(data, decode), expected)


@prepare.register
def _(image: Image.Image, expected: Expected) -> Prepared:
    reading = expected.readings[0]
    if reading.labels is not None:
        return _picture(reading.of_values(labels_of_image(image)), expected)
    if reading.channels not in MODES:
        raise ValueError(f"the model takes {reading.channels} channels, and it is a picture: use an array")
    if reading.range is not None and is_deep(image):
        return _picture(reading.of_values(np.repeat(np.asarray(image)[..., None], reading.channels, axis=2)), expected)
    frame_HWC = frame_of_image(image, channels=reading.channels, background=reading.background)
    return _picture(reading.of_values(frame_HWC), expected)


def _picture(frame_HWC: np.ndarray, expected: Expected) -> Prepared:
    """What comes back as a PIL image."""
    if expected.output_channels not in MODES:
        raise ValueError(
            f"the model gives {expected.output_channels} channels, which no PIL image has: use an array or a tensor"
        )

    # In the targets' numbers where Pillow has a mode for them: floats of one channel.
    range = expected.readings[1].range if expected.output_channels == 1 else None

    def back(pixels_NHWC: torch.Tensor) -> Image.Image:
        pixels_HWC = pixels_NHWC[0].cpu().numpy()
        pixels_HWC = pixels_HWC if range is None else to_values(pixels_HWC, *range, np.dtype(np.float32))
        return Image.fromarray(pixels_HWC.squeeze(2) if pixels_HWC.shape[2] == 1 else pixels_HWC)

    size, high_depth = frame_HWC.shape[:2], range is not None
    return Prepared(input_NCHW=_input([frame_HWC], expected), size=size, high_depth=high_depth, back=back)


@prepare.register
def _(array: np.ndarray, expected: Expected) -> Prepared:
    array, (reading, target) = np.asarray(array), expected.readings  # np.matrix would have no third dimension
    channels = reading.channels if reading.labels is None else 1
    if array.dtype.kind not in ("uf" if reading.of_pictures else "buif"):
        raise ValueError(f"it holds {array.dtype}: use uint8, uint16, or float32 in [0, 1]")
    grey = array.ndim == 2
    frames_NHWC = array[None, :, :, None] if grey else array[None] if array.ndim == 3 else array
    if frames_NHWC.ndim != 4 or frames_NHWC.shape[3] not in _accepted(channels) or not array.size:
        raise ValueError(
            f"it is an array of shape {array.shape}: an image is (H, W, {channels}), a batch (N, H, W, {channels})"
            + (", a grey image (H, W)" if channels in MODES else "")
        )
    if reading.of_pictures:
        frames_NHWC = in_range(frames_NHWC)
        dtype, span = array.dtype, (0.0, WHITE[frames_NHWC.dtype])
    else:
        frames_NHWC = np.stack([reading.of_values(each) for each in frames_NHWC])
        dtype, span = np.dtype(np.uint8), (0.0, 255.0)
    if frames_NHWC.shape[3] != channels:
        frames_NHWC = np.repeat(frames_NHWC, channels, axis=3)
    if target.range is not None:
        span = target.range
        kept = array.dtype.kind == "f" or (array.dtype == np.uint16 and fits_in_16(span))
        dtype = array.dtype if kept else np.dtype(np.float32)
    high_depth = dtype != np.uint8

    def back(pixels_NHWC: torch.Tensor) -> np.ndarray:
        pixels = pixels_NHWC.cpu().numpy()
        pixels = to_values(pixels, *span, dtype) if high_depth else pixels
        if array.ndim == 4:
            return pixels
        return pixels[0, :, :, 0] if grey and pixels.shape[3] == 1 else pixels[0]

    return Prepared(
        input_NCHW=_input(frames_NHWC, expected), size=frames_NHWC.shape[1:3], high_depth=high_depth, back=back
    )


@prepare.register
def _(tensor: torch.Tensor, expected: Expected) -> Prepared:
    channels = expected.input_shape[0]
    _check_tensor(tensor, channels)
    if tensor.dtype == torch.uint8 and not expected.readings[0].of_pictures:
        raise ValueError(
            "it is a tensor of 8 bits, and the model takes other numbers: use an array, or floats in [-1, 1]"
        )
    images_NCHW = (tensor if tensor.ndim == 4 else tensor[None]).expand(-1, channels, -1, -1)  # of a grey one
    size = images_NCHW.shape[2], images_NCHW.shape[3]
    high_depth = tensor.dtype != torch.uint8
    if _fits(size, expected):
        input_NCHW = images_NCHW.float() if high_depth else from_frames(images_NCHW.permute(0, 2, 3, 1))
    else:  # by way of the CPU, where Pillow resizes
        frames_NHWC = images_NCHW.permute(0, 2, 3, 1).cpu()
        frames_NHWC = frames_NHWC.float().add(1.0).div(2.0) if high_depth else frames_NHWC
        input_NCHW = _input(frames_NHWC.numpy(), expected)

    def back(pixels_NHWC: torch.Tensor) -> torch.Tensor:
        pixels_NCHW = pixels_NHWC.permute(0, 3, 1, 2).to(tensor.device, tensor.dtype).contiguous()
        return pixels_NCHW if tensor.ndim == 4 else pixels_NCHW[0]

    return Prepared(input_NCHW=input_NCHW, size=size, high_depth=high_depth, back=back)


def _fits(size: tuple[int, int], expected: Expected) -> bool:
    """Whether an image of that height and width is taken as it is."""
    sizing = expected.sizing
    if sizing is None:
        return True
    if isinstance(sizing, Letterbox):
        return size == sizing.size
    as_it_is = size == sizing.scaled(*size, sizing.size) == sizing.cropped(*size)
    return as_it_is and expected.input_shape[1:] in (size, (None, None))


def _check_tensor(tensor: torch.Tensor, channels: int) -> None:
    """Raise a ValueError if it is no image of a dtype, shape and range that is translated."""
    if tensor.dtype not in (torch.uint8, *FLOATS) or tensor.layout != torch.strided or tensor.device.type == "meta":
        kind = f"{tensor.layout}, {tensor.dtype} on {tensor.device}".replace("torch.", "")
        raise ValueError(f"it is a tensor of {kind}: use a dense one, uint8 in [0, 255] or floats in [-1, 1]")
    shape = tuple(tensor.shape)
    if tensor.ndim not in (3, 4) or shape[-3] not in _accepted(channels) or 0 in shape:
        raise ValueError(
            f"it is a tensor of shape {shape}: an image is ({channels}, H, W), a batch (N, {channels}, H, W)"
        )
    if tensor.requires_grad and torch.is_grad_enabled():
        raise ValueError("it requires a gradient, and a translation computes none: use image.detach()")
    if tensor.dtype != torch.uint8:
        low, high = torch.stack(tensor.aminmax()).tolist()
        if not (low >= -1 and high <= 1):  # also catches NaN
            raise ValueError(f"it holds floats from {low:g} to {high:g}: scale them to [-1, 1]")


def _accepted(channels: int) -> tuple[int, ...]:
    """Channels of inputs: what the network takes, and for RGB also grey, of which it gets three equal ones."""
    return (1, 3) if channels == 3 else (channels,)


def _input(frames_NHWC: Sequence[np.ndarray] | np.ndarray, expected: Expected) -> torch.Tensor:
    """Frames as `Sizing` takes them -> float32 (N, C, H, W) in [-1, 1], at the size that the network takes."""
    count, (height, width) = len(frames_NHWC), frames_NHWC[0].shape[:2]
    if height * width > LARGE:
        check_room(height * width * BYTES, what=f"it is {width}x{height} pixels")
    sizing = expected.sizing or (lambda frame_HWC: in_levels(frame_HWC, frame_HWC.dtype))
    reading = expected.readings[0]
    sized = [reading.planes(sizing(frames_NHWC[0]))]
    if expected.sizing and expected.input_shape[1:] != (None, None):
        check_sized(sized[0], expected.input_shape)
    if count * sized[0].size > LARGE:
        check_room(count * sized[0].size * BYTES_OF_A_LEVEL, what=f"it is a batch of {count:,} images")
    sized += [reading.planes(sizing(frame_HWC)) for frame_HWC in frames_NHWC[1:]]
    return from_frames(torch.from_numpy(np.stack(sized)))
