import io

import numpy as np
import pytest
from PIL import Image

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
