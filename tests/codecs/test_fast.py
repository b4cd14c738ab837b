import io
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.io import ImageReadMode, decode_image

from p2p.codecs import fast, pillow
from p2p.codecs.fast import Fast, decode_jpeg, encode_jpeg
from p2p.codecs.pillow import Pillow
from p2p.codecs.png import encode_png
from p2p.system import memory
from tests.conftest import picture


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def saved(image, kind="JPEG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(1, 1), (5, 7), (64, 48)])
def test_two_decoders_read_the_png_that_was_written(channels, size):
    frame = noise(*size, channels)
    data = encode_png(frame)
    image = Image.open(io.BytesIO(data))
    image.verify()  # every chunk's checksum
    image = Image.open(io.BytesIO(data))
    assert image.mode == {1: "L", 3: "RGB"}[channels]
    assert (np.asarray(image).reshape(frame.shape) == frame).all()
    other = decode_image(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.UNCHANGED)
    assert (other.permute(1, 2, 0).numpy() == frame).all()


def test_a_view_with_gaps_is_encoded_too():
    wide = noise(6, 20, 3)
    for frame in (wide[:, 10:], wide[::2], wide[:, ::-1]):
        assert (pillow.decode(encode_png(frame)) == frame).all()
        assert encode_jpeg(frame, quality=95) == encode_jpeg(frame.copy(), quality=95)


def test_the_up_filter_makes_a_smooth_picture_small():
    frame = np.asarray(picture(256, 256))
    assert len(encode_png(frame)) < 1.05 * len(Pillow(format="png").encode(frame))


def test_level_0_leaves_the_pixels_as_they_are():
    frame = noise(60, 400, 3)  # more than one of deflate's blocks of 65,535 bytes
    data = Fast(png_level=0).encode(frame)
    image = Image.open(io.BytesIO(data))
    assert (np.asarray(image) == frame).all() and (pillow.decode(data) == frame).all()
    assert frame[0].tobytes() in data and frame.nbytes < len(data) < frame.nbytes + 200
    assert Fast(png_level=1).encode(frame) == Fast().encode(frame) != data


JPEGS = {
    "4:4:4": saved(picture(61, 43), quality=95, subsampling="4:4:4"),
    "4:2:2": saved(picture(61, 43), quality=90, subsampling="4:2:2"),
    "4:2:0": saved(picture(61, 43), quality=70, subsampling="4:2:0"),
    "progressive": saved(picture(61, 43), quality=80, progressive=True),
    "grey": saved(picture(61, 43).convert("L"), quality=90),
    "stored as RGB": saved(picture(61, 43), quality=90, keep_rgb=True),
    "restart markers": saved(picture(61, 43), restart_marker_rows=1),
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", JPEGS)
def test_jpeg_is_decoded_to_pillows_pixels(name, channels):
    expected = pillow.decode(JPEGS[name], channels=channels)
    assert (Fast().decode(JPEGS[name], channels=channels) == expected).all()
    by_turbo = decode_jpeg(JPEGS[name], channels=channels)
    assert (by_turbo is None) == (channels == 1 and name != "grey")  # the test above is of turbo, and not of Pillow
    assert by_turbo is None or (by_turbo.shape == (43, 61, channels) and by_turbo.dtype == np.uint8)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_turned_upright(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(picture(24, 16), exif=exif)
    assert (Fast().decode(data) == pillow.decode(data)).all()
    assert (decode_jpeg(data, channels=3) is None) == (orientation > 1)


def test_an_orientation_in_xmp_counts():
    data = saved(picture(24, 16), xmp=b'<x:xmpmeta tiff:Orientation="6"></x:xmpmeta>')
    assert pillow.decode(data).shape == Fast().decode(data).shape == (24, 16, 3)


def test_what_turbo_cannot_do_is_pillows():
    for data in (saved(picture(8, 8).convert("CMYK")), saved(picture(8, 8), "PNG"), saved(picture(8, 8), "WEBP")):
        assert decode_jpeg(data, channels=3) is None
        assert (Fast().decode(data) == pillow.decode(data)).all()
    array = noise(4, 6, 5)
    assert (Fast().decode(Fast(format="npy").encode(array), channels=5) == array).all()


def test_a_picture_that_pillow_finds_too_large_is_left_to_pillow(monkeypatch):
    for module in (fast, pillow):
        monkeypatch.setattr(module, "LARGE", 61 * 43 - 1)
    assert decode_jpeg(JPEGS["4:4:4"], channels=3) is None
    assert Fast().decode(JPEGS["4:4:4"]).shape == (43, 61, 3)
    monkeypatch.setattr(memory, "free_memory", lambda: 20_000)
    with pytest.raises(ValueError, match=r"^it is 61x43 pixels, which takes 0\.0 GB of memory, and 0\.0 GB are free$"):
        Fast().decode(JPEGS["4:4:4"])


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff\xd8\xff", b"no image", JPEGS["4:2:0"][:300], JPEGS["progressive"][:-200], JPEGS["4:4:4"][:80]],
)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_damaged_files_get_pillows_sentence(data, channels):
    with pytest.raises(ValueError) as expected:
        pillow.decode(data, channels=channels)
    with pytest.raises(ValueError) as found:
        Fast().decode(data, channels=channels)
    assert str(found.value) == str(expected.value)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("quality", "more"), [(50, 1.1), (90, 1.3), (96, 1.0)])
def test_jpeg_is_as_close_as_pillows(channels, quality, more):
    """Its squared error is at most so many times Pillow's, on flat colours with edges."""
    frame = np.asarray(picture(96, 96)) // 64 * 64
    frame = np.ascontiguousarray(frame[..., :channels])
    files = [codec(format="jpg", quality=quality).encode(frame) for codec in (Fast, Pillow)]
    errors = [np.square(pillow.decode(data, channels=channels).astype(float) - frame).mean() for data in files]
    assert errors[0] <= errors[1] * more
    assert len(files[0]) <= len(files[1]) * 1.1
    layers = Image.open(io.BytesIO(files[0])).layer
    assert {layer[1:3] for layer in layers} == {(1, 1)} and len(layers) == channels


@pytest.mark.parametrize("codec", [Fast, Pillow])
@pytest.mark.parametrize(("subsampling", "luma"), [(444, (1, 1)), (422, (2, 1)), (420, (2, 2))])
def test_colour_may_be_stored_at_fewer_pixels(codec, subsampling, luma):
    frame = np.ascontiguousarray(np.asarray(picture(64, 48)) // 128 * 255)  # colours with edges
    frame[8::16] = (255, 0, 0)

    def file(**options):
        return codec(format="jpg", quality=96, **options).encode(frame)

    data = file(subsampling=subsampling)
    assert [layer[1:3] for layer in Image.open(io.BytesIO(data)).layer] == [luma, (1, 1), (1, 1)]
    by_pillow = saved(Image.fromarray(frame), quality=96, subsampling=":".join(str(subsampling)))
    assert (pillow.decode(data) == pillow.decode(by_pillow)).all()
    assert (data == file()) == (subsampling == 444)  # which is the default
    error, least = (np.abs(pillow.decode(each).astype(int) - frame).mean() for each in (data, file()))
    assert least < 1 and (error == least if subsampling == 444 else error > 3 and len(data) < 0.8 * len(file()))


def test_webp_lossy_and_lossless():
    frame = np.asarray(picture(48, 32))
    lossy, exact = (Fast(format="webp", lossless=lossless) for lossless in (False, True))
    assert (exact.decode(exact.encode(frame)) == frame).all()
    assert lossy.encode(frame) == Pillow(format="webp", quality=96).encode(frame)
    assert 0 < np.abs(lossy.decode(lossy.encode(frame)).astype(int) - frame).max() < 32


@pytest.mark.parametrize("format", ["png", "jpg", "webp", "npy"])
def test_a_codec_crosses_to_a_worker(format):
    codec = Fast(format=format, quality=80)
    copy = pickle.loads(pickle.dumps(codec))
    assert copy.suffix == f".{format}"
    assert copy.encode(noise(8, 8, 3)) == codec.encode(noise(8, 8, 3))


def test_mistakes_are_pillows():
    with pytest.raises(ValueError, match=r"codec\.format=gif"):
        Fast(format="gif")
    with pytest.raises(ValueError, match=r"codec\.quality=0"):
        Fast(quality=0)
    with pytest.raises(ValueError, match=r"^codec\.subsampling=411 is not known: use 444, 422 or 420$"):
        Fast(format="jpg", subsampling=411)
    with pytest.raises(ValueError, match=r"^codec\.png_level=2 is out of range: use 0 or 1, or codec=pillow"):
        Fast(png_level=2)
    with pytest.raises(ValueError, match=r"^codec\.png_level=10 is out of range: use 0 or 1, or codec=pillow"):
        Fast(png_level=10)
    for format in ("png", "jpg", "webp"):
        with pytest.raises(ValueError, match=rf"\.{format} files have no 5 channels: use codec\.format=npy"):
            Fast(format=format).encode(noise(2, 2, 5))
        with pytest.raises(ValueError, match=rf"\.{format} files have no 5 channels: use codec\.format=npy"):
            Fast(format=format).check_channels(5)
        Fast(format=format).check_channels(3)
    Fast(format="npy").check_channels(5)
