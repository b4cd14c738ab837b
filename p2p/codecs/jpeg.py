"""What a JPEG file says about itself before its pixels: ITU-T T.81, annex B."""

from __future__ import annotations

import struct

from p2p.codecs.fast import JPEG, turned
from p2p.codecs.pillow import LARGE

BASELINE, SCAN, APP14 = 0xC0, 0xDA, 0xEE
OTHER_FRAMES = {*range(0xC1, 0xD0)} - {0xC4, 0xC8, 0xCC}  # progressive and so on; those three are no frames
END = b"\xff\xd9"


def gpu_size(data: bytes) -> tuple[int, int] | None:
    """Height and width of a JPEG file of which a GPU makes what a CPU would; None for all others.

    That is colour of the usual kind, baseline (what JPEG engines decode), whole, and not to be turned by its EXIF. A
    file that ends as a whole one does, but lacks some of its middle, is not found out by its header: of that, a GPU
    leaves the rest undefined where a CPU refuses it.
    """
    if not data.startswith(JPEG) or END not in data[-64:]:
        return None
    at = 2
    while at + 10 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == BASELINE:
            depth, height, width, components = struct.unpack_from(">BHHB", data, at + 4)
            names = bytes(data[at + 10 : at + 10 + 3 * components : 3])  # others than 1, 2, 3 can mean RGB
            usual = depth == 8 and names == b"\1\2\3" and 0 < height * width <= LARGE
            return (height, width) if usual and not turned(data) else None
        if marker in OTHER_FRAMES or marker == SCAN or length < 2:
            return None
        if marker == APP14 and data[at + 4 : at + 9] == b"Adobe" and data[at + 15 : at + 16] != b"\1":
            return None  # not YCbCr
        at += 2 + length
    return None
