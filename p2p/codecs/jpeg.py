"""What a JPEG file says about itself before its pixels: ITU-T T.81, annex B."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator

from PIL import Image

from p2p.codecs.pillow import LARGE, ORIENTATION

JPEG = b"\xff\xd8\xff"  # the first bytes of such a file
END = b"\xff\xd9"
BASELINE, SCAN, APP14 = 0xC0, 0xDA, 0xEE
# All that may stand before the scan, so that no other frame can hide from us: DHT, DQT, DRI, COM, APPn, and those two.
KNOWN = {0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0), BASELINE, SCAN}
# Of three colours: the frame's length, how its scan begins, and how its header ends, with all coefficients at once.
FRAME_LENGTH, SCAN_HEADER, BASELINE_SCAN = 17, b"\xff\xda\x00\x0c\x03", b"\x00\x3f\x00"
SHORTEST = 100  # bytes of a JPEG file: what is left behind one holds no other
TURNING = (b"Exif\0\0", b"tiff:Orientation")  # where a file can say that it is to be turned
IN_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7]")  # the first marker there that is no restart: 20 us for 20 KB
SAMPLINGS = {bytes([luma, 0x11, 0x11]) for luma in (0x11, 0x21, 0x12, 0x22)}  # 4:4:4, 4:2:2, 4:4:0, 4:2:0


def gpu_size(data: bytes) -> tuple[int, int] | None:
    """Height and width of a JPEG file of which a GPU makes what a CPU would; None for all others.

    That is what JPEG engines decode: colour of the usual kind, baseline, in one scan, its chroma whole or halved, not
    to be turned by its EXIF. The scan's bytes go on to the end marker, which a file that was cut lacks, and what was
    overwritten seldom has. But what lacks some of its middle, or has zeros there, is found by decoding alone: a GPU
    then makes up the rest, without a word, where a CPU refuses the file.
    """
    if not data.startswith(JPEG):
        return None
    size = None
    for marker, at in segments(data):
        if marker not in KNOWN:
            return None
        if marker == BASELINE:
            depth, height, width, components = struct.unpack_from(">BHHB", data, at + 4)
            names, samplings = (data[at + first : at + first + 3 * components : 3] for first in (10, 11))
            usual = depth == 8 and names == b"\1\2\3" and samplings in SAMPLINGS  # other names can mean RGB
            length = int.from_bytes(data[at + 2 : at + 4], "big")
            if size is not None or not usual or length != FRAME_LENGTH or not 0 < height * width <= LARGE:
                return None
            size = height, width
        if marker == SCAN:
            after = IN_SCAN.search(data, at + 14)
            whole = after is not None and after.group() == END and len(data) - after.end() < SHORTEST
            usual = data[at : at + 5] == SCAN_HEADER and data[at + 11 : at + 14] == BASELINE_SCAN
            return size if usual and whole and not turned(data) else None
        if marker == APP14 and data[at + 4 : at + 9] == b"Adobe" and data[at + 15 : at + 16] != b"\1":
            return None  # not YCbCr
    return None


def turned(data: bytes) -> bool:
    """Whether an EXIF or XMP entry says that the image is to be turned or mirrored."""
    # Before the first scan, where all of it is: to search the pixels, too, takes 5 % of what decoding does.
    end = next((at for marker, at in segments(data) if marker == SCAN), len(data))
    if all(data.find(mark, 0, end) < 0 for mark in TURNING):
        return False
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.getexif().get(ORIENTATION, 1) != 1
    except Exception:  # Pillow raises whatever it comes upon in a broken EXIF; it then reads the image itself
        return True


def segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Marker and place of each segment, that of the first scan at the end; no more after one that is out of place."""
    at = 2
    while at + 10 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if length < 2:
            return
        yield marker, at
        if marker == SCAN:
            return
        at += 2 + length
