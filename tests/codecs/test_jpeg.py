"""Which JPEG files a GPU may decode."""

import io
import struct

import pytest
from PIL import Image

from p2p.codecs import jpeg
from p2p.codecs.jpeg import gpu_size
from tests.codecs.test_fast import JPEGS, saved
from tests.conftest import ROOT, picture


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(picture(24, 16), exif=exif)


def test_baseline_colour_has_its_size():
    for name in ("4:4:4", "4:2:2", "4:2:0", "restart markers"):
        assert gpu_size(JPEGS[name]) == (43, 61)
    assert gpu_size(turned(1)) == (16, 24)
    assert gpu_size(saved(picture(24, 16), comment=b"x" * 9000)) == (16, 24)  # segments before the frame
    for path in (ROOT / "data/samples").glob("*/*.jpg"):
        assert gpu_size(path.read_bytes()) == (256, 512)


def test_what_turns_a_photo_is_found_before_its_pixels_alone():
    plain, marked = saved(picture(24, 16)), turned(6)
    assert jpeg.turned(marked) and not jpeg.turned(plain) and not jpeg.turned(turned(1))
    behind = plain[:-2] + marked[marked.index(b"Exif") :]  # of another picture; Pillow reads no EXIF there either
    assert not jpeg.turned(behind) and Image.open(io.BytesIO(behind)).getexif() == {}
    # A scan's marker within a segment, of a thumbnail say, is none; after a marker out of place all is searched.
    comment = b"\xff\xfe" + struct.pack(">H", 20) + b"\xff\xda" * 9
    for data in (marked[:2] + comment + marked[2:], marked[:2] + b"\xff" + marked[2:]):
        assert jpeg.turned(data) and Image.open(io.BytesIO(data)).getexif()[0x0112] == 6


def before_the_scan(data, segment):
    at = data.index(b"\xff\xda")
    return data[:at] + segment + data[at:]


def overwritten(data):
    """With noise, as by a bad disk."""
    scan = data.index(b"\xff\xda") + 14
    return data[: scan + 40] + b"\x12\xff\x34" * 20 + data[scan + 100 :]


def with_sampling(data, luma):
    at = data.index(b"\xff\xc0") + 11
    return data[:at] + bytes([luma]) + data[at + 1 :]


@pytest.mark.parametrize(
    "data",
    [
        with_sampling(JPEGS["4:4:4"], 0x41),
        before_the_scan(JPEGS["4:4:4"], JPEGS["4:4:4"][JPEGS["4:4:4"].index(b"\xff\xc0") :][:19]),
        before_the_scan(JPEGS["4:4:4"], b"\xff"),
        before_the_scan(JPEGS["4:4:4"], b"\xff\xd0"),
        before_the_scan(JPEGS["4:4:4"], b"\xff\xdc\0\4\xff\xff"),
        before_the_scan(
            JPEGS["4:4:4"], b"\xff\xde\0\x11" + JPEGS["4:4:4"][JPEGS["4:4:4"].index(b"\xff\xc0") + 4 :][:15]
        ),
        JPEGS["4:4:4"].replace(b"\xff\xc0\0\x11", b"\xff\xc0\0\x12"),
        JPEGS["4:4:4"] + JPEGS["4:4:4"],
        JPEGS["4:4:4"].replace(b"\xff\xda\0\x0c\3\1", b"\xff\xda\0\x08\1\1"),
        JPEGS["progressive"],
        JPEGS["grey"],
        JPEGS["stored as RGB"],
        turned(6),
        saved(picture(8, 8).convert("CMYK")),
        saved(picture(8, 8), "PNG"),
        JPEGS["4:4:4"][:-200],
        overwritten(JPEGS["4:4:4"]),
        JPEGS["4:4:4"][:20] + JPEGS["4:4:4"][-2:],
        b"",
        b"\xff\xd8\xff",
        b"\xff\xd8\xff\xe0\0\0" + b"\0" * 20 + b"\xff\xd9",
    ],
    ids=[
        "4:1:1",
        "two frames",
        "filled up",
        "no length",
        "more lines",
        "a hierarchy",
        "a longer frame",
        "two images",
        "a scan a colour",
        "progressive",
        "grey",
        "RGB",
        "turned",
        "CMYK",
        "PNG",
        "cut",
        "overwritten",
        "cut early",
        "empty",
        "start",
        "a length of nothing",
    ],
)
def test_the_others_are_the_cpus(data):
    assert gpu_size(data) is None


def test_an_image_of_too_many_pixels_is_the_cpus_to_refuse():
    data = JPEGS["4:4:4"]
    at = data.index(b"\xff\xc0") + 5
    assert gpu_size(data[:at] + struct.pack(">HH", 60000, 60000) + data[at + 4 :]) is None
