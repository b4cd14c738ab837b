"""Decode and encode with Pillow: every format, one core, no GPU. What the faster codecs are compared with."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image, UnidentifiedImageError

from p2p.codecs.depth import ALPHA, Bits, check_bits
from p2p.codecs.png import encode_png
from p2p.codecs.tiff_pixels import encode as encode_tiff
from p2p.system.memory import check_room
from p2p.system.plural import counted

# What is read: formats of pixels. Pillow would also start Ghostscript, of a page description in a file named x.png.
FORMATS: tuple[str, ...] = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "DIB", "GIF", "PPM", "JPEG2000", "QOI", "TGA")
SUFFIXES: tuple[str, ...] = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".tif", ".tiff", ".bmp", ".dib", ".gif"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".jp2", ".j2k", ".jpx", ".jpf", ".j2c", ".jpc", ".qoi", ".tga", ".npy"),
)
if find_spec("PIL._avif"):  # not in every build of Pillow
    FORMATS, SUFFIXES = (*FORMATS, "AVIF"), (*SUFFIXES, ".avif")

Format = Literal["png", "jpg", "webp", "tiff", "npy"]
Subsampling = Literal[444, 422, 420]
MODES = {1: "L", 3: "RGB"}
HIGH_DEPTH_MODES = ("I", "F")  # and "I;16" in its byte orders: what Pillow has for more than 8 bits, all of them grey
NUMPY = b"\x93NUMPY"  # the first bytes of an .npy file
LARGE = 89_478_485  # pixels; beyond, an image is read if the memory is there. Pillow calls these a bomb
BYTES = 10  # of memory that a pixel takes at the most: 4 in Pillow, and 3 in an array, twice while it is made
ORIENTATION = 0x0112  # EXIF 2.3, section 4.6.4
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

Image.MAX_IMAGE_PIXELS = None  # a photo of 300 megapixels is the user's own: `decode` goes by the free memory


def decode(data: bytes, *, channels: int = 3, background: str | None = None) -> np.ndarray:
    """The bytes of a file -> a frame (H, W, channels), in the depth that the file has.

    - Images of 8 bits: uint8 in [0, 255], converted to grey or RGB, turned upright as their EXIF says, if it can be
      read. Pillow reads colour of 16 bits as 8 bits, too.
    - Grey images of 16 bits (PNG, TIFF): uint16 in [0, 65535]; of floats (TIFF): float32 in [0, 1]. As RGB, three
      equal channels.
    - Arrays (.npy), (H, W) or (H, W, C): uint8, uint16, or float32 in [0, 1], with as many channels as asked for,
      since they are not converted. Other floats become float32.

    Args:
        data: a whole file: an array, or an image of one of FORMATS, of which the first frame is taken.
        channels: of an image 3 (RGB) or 1 (grey), of an array any number.
        background: a colour that transparent images are laid on, as `PIL.ImageColor` knows it; None: transparency is
            left out, and what lies under it is seen.

    Raises:
        ValueError: the bytes are neither, only a part of one, or have other channels or values; or more than LARGE
            pixels, and there is not so much memory.
        MemoryError: there is not so much memory.
    """
    if data.startswith(NUMPY):
        return _array(data, channels)
    if channels not in MODES:
        raise ValueError(
            f"it is an image, of which channels={channels} is not supported: use 1 (grey), 3 (RGB) or an .npy file"
        )
    return frame_of_image(open_image(data), channels=channels, background=background)


def open_image(data: bytes) -> Image.Image:
    """What Pillow makes of a file of one of FORMATS before it decodes it.

    Raises:
        ValueError: it is none, or too large for the memory.
    """
    if not data:
        raise ValueError("it is not an image: the file is empty")
    with sentences():
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    if image.width * image.height > LARGE:
        check_room(image.width * image.height * BYTES, what=f"it is {image.width}x{image.height} pixels")
    return image


def frame_of_image(image: Image.Image, *, channels: int, background: str | None = None) -> np.ndarray:
    """The frame of an image that Pillow has opened or made, as `decode` gives it; channels: 3 (RGB) or 1 (grey)."""
    with sentences():
        image = upright(image)
        high_depth = is_deep(image)
        if background is not None and not high_depth and image.has_transparency_data:
            image = Image.alpha_composite(Image.new("RGBA", image.size, background), image.convert("RGBA"))
        frame_HWC = np.asarray(image if high_depth or image.mode == MODES[channels] else image.convert(MODES[channels]))
    frame_HWC = frame_HWC.reshape(*frame_HWC.shape[:2], -1)
    return np.repeat(in_range(frame_HWC), channels, axis=2) if high_depth else frame_HWC


def is_deep(image: Image.Image) -> bool:
    """Whether Pillow has more than 8 bits a channel of it."""
    return image.mode in HIGH_DEPTH_MODES or image.mode.startswith("I;16")


def upright(image: Image.Image) -> Image.Image:
    """Turned as its EXIF says. ImageOps.exif_transpose also rewrites the EXIF, and fails at a broken entry."""
    image.load()
    turn = TURNS.get(orientation(image) or 1)
    return image if turn is None else image.transpose(turn)


def orientation(image: Image.Image) -> int | None:
    """The entry of its EXIF; None if there is none that can be read."""
    try:
        return image.getexif().get(ORIENTATION)
    except Exception:  # whatever a broken entry makes of it; the pixels are good
        return None


@contextmanager
def sentences() -> Iterator[None]:
    """Of damage, Pillow's readers raise whatever they come upon."""
    try:
        yield
    except MemoryError:  # true also of a good file
        raise
    except UnidentifiedImageError:
        raise ValueError("it is not an image") from None
    except Exception as error:
        raise damaged(error) from error


def damaged(error: Exception) -> ValueError:
    """The sentence for whatever a reader has raised."""
    return ValueError(f"it is damaged: {str(error) or type(error).__name__}")


def _array(data: bytes, channels: int) -> np.ndarray:
    frame_HWC = load_array(data)
    check_channels(frame_HWC, channels)
    return in_range(frame_HWC)


def check_channels(frame_HWC: np.ndarray, channels: int) -> None:
    """Raise a ValueError if a file whose channels are not converted has others than are asked for."""
    if frame_HWC.shape[2] != channels:
        raise ValueError(
            f"it has {counted(frame_HWC.shape[2], 'channel')} and {counted(channels, 'is', 'are')} asked for: set"
            " data.input_channels or data.target_channels"
        )


def load_array(data: bytes) -> np.ndarray:
    """The bytes of an .npy file -> what it holds, (H, W, C), in its own dtype.

    Raises:
        ValueError: it is damaged, or no image of numbers.
    """
    try:
        check_promise(data)
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except MemoryError:
        raise
    except Exception as error:  # the header is Python, so of damage it is a TokenError, say
        raise damaged(error) from error
    if array.dtype.kind not in "biuf":
        raise ValueError(f"it holds {array.dtype}: use uint8, uint16, or float32 in [0, 1]")
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise ValueError(f"it is an array of shape {array.shape}: an image is (H, W) or (H, W, C)")
    return array.reshape(*array.shape[:2], -1)


def check_promise(data: bytes) -> None:
    """Raise a ValueError if the header of an .npy file has more numbers than follow: numpy takes the memory first."""
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    promised, found = math.prod(shape) * dtype.itemsize, len(data) - stream.tell()
    if promised > found and not dtype.hasobject:
        raise ValueError(f"its header promises {promised:,} bytes, and {found:,} follow")


def in_range(frame_HWC: np.ndarray) -> np.ndarray:
    """Checked and brought to uint8, uint16 or float32 in the machine's byte order."""
    if frame_HWC.dtype == np.uint8:
        return frame_HWC
    if frame_HWC.dtype.kind == "f":
        if not (frame_HWC.min() >= 0 and frame_HWC.max() <= 1):  # also catches NaN
            raise ValueError("it holds floats outside of [0, 1]: scale them to that range, or set data.range")
        return frame_HWC.astype(np.float32, copy=False)
    low, high = frame_HWC.min(), frame_HWC.max()
    if frame_HWC.dtype.newbyteorder("=") not in (np.uint16, np.int32) or low < 0 or high > 65535:
        raise ValueError(
            f"it holds {frame_HWC.dtype.name} from {low} to {high}: use uint8, uint16, or float32 in [0, 1], or set"
            " data.range"
        )
    return frame_HWC.astype(np.uint16, copy=False)


class Pillow:
    """Files in and out.

    Args:
        format: "png" (lossless), "jpg", "webp", or, for any number of channels, "tiff" or "npy", an array.
        bits: of a channel: 8, of png, tiff and npy 16, of tiff and npy 32, which are floats. None: see
            `p2p.codecs.depth`.
        quality: of JPEG and WebP, 1 to 100.
        subsampling: of JPEG's colour: 444, at every pixel; 422, half as wide; 420, half as wide and half as high.
        png_level: zlib's effort, 0 to 9. 1 is 3 times as fast as Pillow's own 6, for files a tenth larger.
        lossless: of WebP, which then takes `quality` for its effort.
    """

    def __init__(
        self,
        *,
        format: Format = "png",
        quality: int = 95,
        subsampling: Subsampling = 444,
        png_level: int = 1,
        lossless: bool = False,
        bits: Bits | None = None,
    ):
        self.suffix, self.bits, self.keeps_alpha = f".{format}", bits, format in ALPHA
        self._png_level: Literal[0, 1] = 1 if png_level else 0
        match format:
            case "png":
                self._options: dict[str, Any] | None = {"format": "PNG", "compress_level": png_level}
            case "jpg":
                # 4:4:4: most encoders halve the chroma resolution unasked, which blurs flat colours.
                self._options = {"format": "JPEG", "quality": quality, "subsampling": ":".join(str(subsampling))}
            case "webp":
                self._options = {"format": "WEBP", "quality": quality, "lossless": lossless}
            case "npy" | "tiff":
                self._options = None
            case _:
                raise ValueError(f"codec.format={format} is not known: use png, jpg, webp, tiff or npy")
        check_bits(format, bits)
        if not 1 <= quality <= 100:
            raise ValueError(f"codec.quality={quality} is out of range: use 1 to 100")
        if subsampling not in get_args(Subsampling):
            raise ValueError(f"codec.subsampling={subsampling} is not known: use 444, 422 or 420")
        if not 0 <= png_level <= 9:
            raise ValueError(f"codec.png_level={png_level} is out of range: use 0 to 9")

    def decode(self, data: bytes, *, channels: int = 3) -> np.ndarray:
        """See `decode`."""
        return decode(data, channels=channels)

    def check_channels(self, channels: int) -> None:
        """Raise a ValueError if the format has no images of so many channels."""
        if self._options is not None and channels not in MODES:
            raise ValueError(f"{self.suffix} files have no {channels} channels: use codec.format=npy or tiff")

    def encode(self, frame_HWC: np.ndarray, *, alpha: bool = False) -> bytes:
        """A frame (H, W, 1 or 3), as tiff and npy (H, W, C), and one channel more of alpha -> the bytes of a file.

        Args:
            frame_HWC: uint8; of a format that has 16 bits uint16, of one that has 32 float32.
            alpha: its last channel is how opaque it is.

        Raises:
            ValueError: the format has no images of so many channels.
        """
        channels = frame_HWC.shape[2]
        self.check_channels(channels - alpha)
        if self.suffix == ".tiff":
            return encode_tiff(frame_HWC, alpha=alpha)
        if self.suffix == ".png" and frame_HWC.dtype != np.uint8:  # of which Pillow writes grey alone
            return encode_png(frame_HWC, level=self._png_level)
        buffer = io.BytesIO()
        if self._options is None:
            np.save(buffer, frame_HWC)
        else:
            Image.fromarray(frame_HWC.squeeze(2) if channels == 1 else frame_HWC).save(buffer, **self._options)
        return buffer.getvalue()
