"""TIFF: pages and pixels, against Pillow, or where it has no mode for them against what stands at their places."""

import io
import struct

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from p2p.codecs import tiff, tiff_pixels
from p2p.codecs.values import read_values

RNG = np.random.default_rng(0)


def pages_file(path, count=3, **options):
    """Pages of several heights, grey, 16 bits."""
    frames = [RNG.integers(0, 65536, (20 + number, 30), np.uint16) for number in range(count)]
    first, *others = map(Image.fromarray, frames)
    first.save(path, save_all=True, append_images=others, **options)
    return frames


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate"])
def test_each_page_is_a_file_of_its_own(tmp_path, compression):
    frames = pages_file(tmp_path / "x.tif", compression=compression)
    places = tiff.pages(tmp_path / "x.tif")
    assert len(places) == 3
    for frame, place in zip(frames, places, strict=True):
        data = tiff.page(tmp_path / "x.tif", place)
        image = Image.open(io.BytesIO(data))
        assert image.n_frames == 1
        assert (np.asarray(image) == frame).all()
        assert (read_values(data, channels=1)[..., 0] == frame).all()


def test_smaller_copies_are_no_pages_and_a_circle_ends(tmp_path):
    pages_file(tmp_path / "x.tif")
    data = bytearray((tmp_path / "x.tif").read_bytes())
    first, second, third = tiff.pages(tmp_path / "x.tif")
    entries = struct.unpack_from("<H", data, second)[0]
    struct.pack_into("<HHII", data, second + 2, 254, 4, 1, 1)  # in the place of its first tag, its width
    (tmp_path / "copies.tif").write_bytes(data)
    assert tiff.pages(tmp_path / "copies.tif") == [first, third]
    struct.pack_into("<I", data, second + 2 + 12 * entries, first)
    (tmp_path / "circle.tif").write_bytes(data)
    assert tiff.pages(tmp_path / "circle.tif") == [first]
    for name, broken in {"cut": data[: second + 30], "empty": b"", "other": b"no TIFF"}.items():
        (tmp_path / name).write_bytes(broken)
        assert tiff.pages(tmp_path / name) in ([], [first])
    with pytest.raises(ValueError, match=r"^its page at byte \d+ is damaged$"):
        tiff.page(tmp_path / "cut", second)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_what_is_written_stands_where_the_directory_says(dtype, channels):
    frame = (RNG.random((6, 7, channels)) * 200).astype(dtype)
    data = tiff_pixels.encode(frame)
    if channels == 1 or (channels == 3 and dtype == "uint8"):
        assert (np.asarray(Image.open(io.BytesIO(data))) == frame.squeeze()).all()
    tags = ImageFileDirectory_v2(data[:8])
    file = io.BytesIO(data)
    file.seek(tags.next)
    tags.load(file)
    assert (tags[256], tags[257], tags[277]) == (7, 6, channels)
    assert (tags[258], tags[339]) == ((frame.itemsize * 8,) * channels, ((3 if dtype == "float32" else 1),) * channels)
    (start,), (size,) = tags[273], tags[279]
    assert (np.frombuffer(data[start : start + size], dtype).reshape(frame.shape) == frame).all()
    found, alpha = tiff_pixels.decode(data)
    assert (found == frame).all()
    assert found.dtype == frame.dtype and not alpha


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", ["u2", "i2", "f2", "f4", "f8", "u4"])
def test_numbers_of_every_kind_are_read(order, kind):
    """Planes behind one another, of which Pillow takes no more than one channel of some kinds."""
    planes = (RNG.random((4, 5, 6)) * 100).astype(order + kind)
    tags = {
        256: 6,
        257: 5,
        259: 1,
        262: 1,
        277: 4,
        284: 2,
        339: {"u": 1, "i": 2, "f": 3}[kind[0]],
        258: 8 * int(kind[1]),
    }
    raw = {tag: (3, 1, struct.pack(f"{order}H", value)) for tag, value in tags.items()}
    data = tiff.file_of(order, raw, {(273, 279): [plane.tobytes() for plane in planes]})
    found = read_values(data, channels=4)
    assert (found == np.moveaxis(planes, 0, 2)).all()
    assert found.dtype == np.dtype(kind)
    with pytest.raises(ValueError, match="it is damaged"):
        read_values(data[:-20], channels=4)


def test_a_directory_beyond_all_bytes_is_damage(tmp_path):
    """A place of BigTIFF has 64 bits, more than any memory."""
    data = struct.pack("<2sHHHQ", b"II", 43, 8, 0, (1 << 64) - 1)
    with pytest.raises(ValueError, match="it is damaged: a part of its TIFF directory"):
        read_values(data, channels=3)
    (tmp_path / "x.tif").write_bytes(data)
    assert tiff.pages(tmp_path / "x.tif") == []
    with pytest.raises(ValueError, match="is damaged"):
        tiff.page(tmp_path / "x.tif", (1 << 64) - 1)
