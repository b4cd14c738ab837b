import io

import numpy as np
import pytest
from PIL import Image

from p2p.codecs.fast import Fast
from p2p.codecs.pillow import Pillow, decode
from tests.conftest import picture


@pytest.mark.parametrize("channels", [1, 3])
def test_png_is_lossless(channels):
    frame = np.random.default_rng(0).integers(0, 256, (5, 7, channels), dtype=np.uint8)
    codec = Pillow(format="png")
    assert (codec.decode(codec.encode(frame), channels=channels) == frame).all()


@pytest.mark.parametrize(("format", "kind"), [("jpg", "JPEG"), ("webp", "WEBP")])
def test_lossy_formats_are_close_and_quality_is_obeyed(format, kind):
    frame = np.asarray(picture(64, 64))
    sizes = []
    for quality in (30, 95):
        data = Pillow(format=format, quality=quality).encode(frame)
        assert Image.open(io.BytesIO(data)).format == kind
        sizes.append(len(data))
    assert sizes[0] < sizes[1]
    assert np.abs(decode(data).astype(int) - frame).mean() < 2


def test_jpeg_keeps_the_full_chroma_resolution():
    data = Pillow(format="jpg").encode(np.asarray(picture(16, 16)))
    layers = Image.open(io.BytesIO(data)).layer
    assert {layer[1:3] for layer in layers} == {(1, 1)}


def test_photos_are_turned_upright():
    image, exif = picture(20, 10), Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate 270 degrees to show
    buffer = io.BytesIO()
    image.save(buffer, "PNG", exif=exif)
    assert (decode(buffer.getvalue()) == np.asarray(image.rotate(-90, expand=True))).all()


def test_modes_are_converted():
    for mode in ("L", "RGBA", "P", "1", "CMYK"):
        buffer = io.BytesIO()
        picture(8, 8).convert(mode).save(buffer, "TIFF")
        assert decode(buffer.getvalue()).shape == (8, 8, 3)
        assert decode(buffer.getvalue(), channels=1).shape == (8, 8, 1)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM"])
def test_every_format_is_read(kind):
    buffer = io.BytesIO()
    picture(96, 64).save(buffer, kind, **{"quality": 95} if kind in ("JPEG", "WEBP") else {})
    assert np.abs(decode(buffer.getvalue()).astype(int) - np.asarray(picture(96, 64))).mean() < 2


def test_mistakes():
    with pytest.raises(ValueError, match=r"codec\.format=gif"):
        Pillow(format="gif")
    with pytest.raises(ValueError, match=r"codec\.quality=0"):
        Pillow(quality=0)
    with pytest.raises(ValueError, match="channels=4"):
        decode(b"", channels=4)


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bit_grey_keeps_its_precision(format):
    grey = np.random.default_rng(0).integers(0, 65536, (5, 7), dtype=np.uint16)
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, format)
    frame = decode(buffer.getvalue(), channels=1)
    assert frame.dtype == np.uint16 and (frame[..., 0] == grey).all()
    assert (decode(buffer.getvalue()) == grey[..., None]).all() and decode(buffer.getvalue()).shape == (5, 7, 3)


def test_other_byte_orders_and_grey_floats():
    grey = np.array([[0, 258, 65535]], np.uint16)
    assert (decode(npy(grey.astype(">u2")), channels=1)[..., 0] == grey).all()
    buffer = io.BytesIO()
    Image.fromarray((grey / 65535).astype(np.float32)).save(buffer, "TIFF")
    frame = decode(buffer.getvalue(), channels=1)
    assert frame.dtype == np.float32
    np.testing.assert_allclose(frame[0, :, 0], grey[0] / 65535, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_arrays_come_back_as_they_are(dtype):
    array = (np.random.default_rng(0).random((4, 6, 5)) * (1 if dtype == np.float32 else 200)).astype(dtype)
    frame = decode(npy(array), channels=5)
    assert frame.dtype == dtype and (frame == array).all()
    assert (decode(npy(array[..., 0]), channels=1) == array[..., :1]).all()
    assert decode(npy(array.astype(np.float64) / 255), channels=5).dtype == np.float32


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (npy(np.zeros((2, 2, 4), np.uint8)), "it has 4 channels and 3 are asked for: set data.input_channels"),
        (npy(np.zeros(3, np.uint8)), r"an array of shape \(3,\): an image is \(H, W\)"),
        (npy(np.full((2, 2, 3), 1.5)), r"floats outside of \[0, 1\]"),
        (npy(np.full((2, 2, 3), np.nan)), r"floats outside of \[0, 1\]"),
        (npy(np.full((2, 2, 3), -1)), "it holds int64 from -1 to -1: use uint8"),
        (npy(np.zeros((20, 20, 3)))[:200], "it is damaged"),
        (npy(np.array([[object()]])), "it is damaged"),
        (npy(np.zeros((2, 2, 3), np.uint8)).replace(b"}", b"("), "it is damaged"),  # a tokenize.TokenError
        (npy(np.full((2, 2, 3), "a")), r"it holds <U1: use uint8, uint16, or float32 in \[0, 1\]"),
        (npy(np.zeros((2, 2, 3), [("x", "u1")])), r"it holds \[\('x', .*u1'\)\]: use uint8"),
    ],
)
def test_wrong_arrays(data, message):
    with pytest.raises(ValueError, match=message):
        decode(data)


def test_arrays_can_be_written_and_images_of_five_channels_cannot():
    frame = np.random.default_rng(0).integers(0, 256, (5, 7, 5), dtype=np.uint8)
    codec = Pillow(format="npy")
    assert codec.suffix == ".npy"
    assert (codec.decode(codec.encode(frame), channels=5) == frame).all()
    with pytest.raises(ValueError, match=r"\.png files have no 5 channels: use codec\.format=npy"):
        Pillow().encode(frame)


def with_exif(at=None, value=None):
    """A JPEG file that is to be turned, and in its EXIF a byte that is another."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010E], exif[0x011A] = 6, "hello", 72.0
    buffer = io.BytesIO()
    picture(24, 16).save(buffer, "JPEG", exif=exif)
    data = bytearray(buffer.getvalue())
    if at is not None:
        data[data.index(b"Exif") + at] = value
    return bytes(data)


@pytest.mark.parametrize(
    ("at", "value", "turned"),
    [
        (17, 0, True),  # the type of the first entry: struct.error in Pillow's writer, Pillow 12
        (41, 13, True),  # of the third: AttributeError
        (43, 1, True),  # how many there are: TypeError
        (6, 0, False),  # neither byte order: no EXIF at all
    ],
)
def test_a_photo_with_a_broken_exif_entry_is_read(at, value, turned):
    upright = decode(with_exif())
    data = with_exif(at, value)
    assert upright.shape == (24, 16, 3)
    for codec in (Pillow(), Fast()):
        assert (codec.decode(data) == (upright if turned else np.rot90(upright))).all()


@pytest.mark.parametrize("error", [TypeError("no integer"), IndexError("no such row")])
def test_whatever_a_reader_raises_is_damage(error, monkeypatch):
    def fail(image):
        raise error

    data = Pillow().encode(np.zeros((4, 4, 3), np.uint8))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    with pytest.raises(ValueError, match=f"it is damaged: {error}"):
        decode(data)
