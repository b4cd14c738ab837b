"""The fastest encoder and decoder of each format on a CPU, and Pillow for what they cannot do."""

from __future__ import annotations

import numpy as np

from p2p.codecs import png, turbo
from p2p.codecs.pillow import Format, Pillow


class Fast:
    """Files in and out: JPEG by libjpeg-turbo, PNG out by `p2p.codecs.png`, all else by Pillow.

    Decodes to the same frames, and refuses with the same sentences, as `p2p.codecs.pillow`. PNG is as lossless and of
    Pillow's size. JPEG is Pillow's from quality 96 on; below, libjpeg-turbo takes a faster DCT, which costs 1 dB at 95
    and next to nothing at 75, and saves no time to speak of. Without simplejpeg and isal, Pillow and zlib do their
    work, slower; that is said once, when the codec is made.

    Args:
        format: "png" (lossless), "jpg" (4:4:4), "webp", or "npy", an array for any number of channels.
        quality: of JPEG and WebP, 1 to 100.
        lossless: of WebP.
    """

    def __init__(self, *, format: Format = "png", quality: int = 96, lossless: bool = False):
        self._pillow = Pillow(format=format, quality=quality, lossless=lossless)
        self._quality = quality
        self.suffix = self._pillow.suffix
        if turbo.simplejpeg is None:
            print("simplejpeg is not installed: Pillow reads and writes JPEG instead, slower; pip install simplejpeg")
        if format == "png" and png.deflater is png.zlib:
            print("isal is not installed: zlib writes PNG instead, 4 times slower; pip install isal")

    def decode(self, data: bytes, *, channels: int = 3) -> np.ndarray:
        """See `p2p.codecs.pillow.decode`."""
        frame_HWC = turbo.decode(data, channels=channels)
        return self._pillow.decode(data, channels=channels) if frame_HWC is None else frame_HWC

    def check_channels(self, channels: int) -> None:
        """Raise a ValueError if the format has no images of so many channels."""
        self._pillow.check_channels(channels)

    def encode(self, frame_HWC: np.ndarray) -> bytes:
        """uint8 (H, W, 1 or 3), as npy (H, W, C) -> the bytes of a file.

        Raises:
            ValueError: the format has no images of so many channels.
        """
        if frame_HWC.shape[2] in (1, 3):
            if self.suffix == ".png":
                return png.encode(frame_HWC)
            if self.suffix == ".jpg" and turbo.simplejpeg is not None:
                return turbo.encode(frame_HWC, quality=self._quality)
        return self._pillow.encode(frame_HWC)
