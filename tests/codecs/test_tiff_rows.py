"""Rows of TIFF files, against Pillow, which reads and writes whole images."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from p2p.codecs import tiff, tiff_pixels, tiff_rows
from tests.conftest import picture

RNG = np.random.default_rng(0)
FRAMES = {
    "colour": np.asarray(picture(70, 53)),
    "grey": np.asarray(picture(70, 53).convert("L")),
    "16 bits": RNG.integers(0, 65536, (53, 70), np.uint16),
    "floats": RNG.random((53, 70), np.float32),
}


def tiled(frame, side, *, packed):
    """A file of tiles of that side, each padded with 9, which Pillow does not write; no compression or deflate."""
    import zlib

    height, width, channels = frame.shape
    tiles = []
    for top in range(0, height, side):
        for left in range(0, width, side):
            tile = np.full((side, side, channels), 9, frame.dtype)
            part = frame[top : top + side, left : left + side]
            tile[: part.shape[0], : part.shape[1]] = part
            tiles.append(zlib.compress(tile.tobytes()) if packed else tile.tobytes())
    numbers = {
        **{tiff.WIDTH: [width], tiff.HEIGHT: [height], tiff.BITS: [8 * frame.dtype.itemsize] * channels},
        **{tiff.COMPRESSION: [8 if packed else 1], tiff.PHOTOMETRIC: [2 if channels == 3 else 1]},
        **{tiff.SAMPLES: [channels], tiff.TILE_WIDTH: [side], tiff.TILE_HEIGHT: [side]},
    }
    tags = {tag: (tiff.SHORT, len(n), struct.pack(f"<{len(n)}H", *n)) for tag, n in numbers.items()}
    return tiff.file_of("<", tags, {(tiff.TILES, tiff.TILE_BYTES): tiles})


@pytest.mark.parametrize("kind", FRAMES)
@pytest.mark.parametrize("options", [{}, {"compression": "tiff_adobe_deflate"}, {"big_tiff": True}], ids=str)
@pytest.mark.parametrize("rows_per_strip", [1, 7, 999])
def test_rows_in_any_order_are_those_that_pillow_reads(tmp_path, kind, options, rows_per_strip):
    path, tags = tmp_path / "x.tif", ImageFileDirectory_v2()
    tags[tiff.ROWS] = rows_per_strip
    Image.fromarray(FRAMES[kind]).save(path, tiffinfo=tags, strip_size=rows_per_strip * 70, **options)
    expected = np.asarray(Image.open(path)).reshape(53, 70, -1)
    with tiff_rows.opened(path) as rows:
        assert rows.shape == expected.shape
        for top, bottom in [(0, 9), (4, 13), (13, 14), (40, 60), (2, 3), (0, 53)]:
            assert (rows[top:bottom] == expected[top:bottom]).all()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ["colour", "grey"])
def test_tiles_are_read_as_rows_and_whole(tmp_path, kind, packed):
    frame = FRAMES[kind].reshape(53, 70, -1)
    data = tiled(frame, 16, packed=packed)
    assert (np.asarray(Image.open(io.BytesIO(data))).reshape(frame.shape) == frame).all()
    assert (tiff_pixels.decode(data)[0] == frame).all()
    (tmp_path / "x.tif").write_bytes(data)
    with tiff_rows.opened(tmp_path / "x.tif") as rows:
        for top, bottom in [(0, 20), (15, 33), (30, 53), (1, 2)]:
            assert (rows[top:bottom] == frame[top:bottom]).all()


def test_each_strip_is_read_once_from_top_to_bottom(tmp_path):
    Image.fromarray(FRAMES["colour"]).save(tmp_path / "x.tif", compression="tiff_adobe_deflate", strip_size=210 * 4)
    with tiff_rows.opened(tmp_path / "x.tif") as rows:
        read, seen = rows._read_bytes, []
        rows._read_bytes = lambda at, size: seen.append(at) or read(at, size)
        for top in range(0, 50, 6):
            rows[top : top + 10]
        assert len(seen) == len(set(seen)) == -(-53 // 4)


def test_what_is_damaged_or_of_another_kind(tmp_path):
    Image.fromarray(FRAMES["colour"]).save(tmp_path / "lzw.tif", compression="tiff_lzw")
    Image.fromarray(FRAMES["colour"]).save(tmp_path / "x.jpg")
    (tmp_path / "empty.tif").touch()
    for name in ("lzw.tif", "x.jpg", "empty.tif", "missing.tif"):
        with tiff_rows.opened(tmp_path / name) as rows:
            assert rows is None
    (tmp_path / "cut.tif").write_bytes(tiff_pixels.encode(FRAMES["colour"])[:-3000])
    with tiff_rows.opened(tmp_path / "cut.tif") as rows:
        assert (rows[:30] == FRAMES["colour"][:30]).all()
        with pytest.raises(ValueError, match=r"^it is damaged"):
            rows[30:53]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_a_file_that_is_filled_by_rows_is_the_one_that_is_written_at_once(tmp_path, dtype):
    frame = (RNG.random((13, 7, 3)) * 200).astype(dtype)
    with (tmp_path / "x.tif").open("wb") as file:
        rows = tiff_pixels.RowsFile(file.fileno(), frame.shape, frame.dtype)
        for top, bottom in [(4, 9), (0, 4), (9, 13)]:
            rows[top:bottom] = frame[top:bottom]
    assert (tmp_path / "x.tif").read_bytes() == tiff_pixels.encode(frame)


def test_a_file_of_four_gigabytes_is_a_bigtiff(tmp_path):
    """Written in places alone: the rest is a hole of the file."""
    shape = (40_000, 40_000, 3)
    with (tmp_path / "x.tif").open("wb") as file:
        rows = tiff_pixels.RowsFile(file.fileno(), shape, np.dtype(np.uint8))
        rows[39_990:40_000] = np.full((10, *shape[1:]), 7, np.uint8)
    with Image.open(tmp_path / "x.tif") as image:
        assert image.size == (40_000, 40_000) and image.mode == "RGB"
        assert image.tag_v2[tiff.STRIP_BYTES] == (40_000 * 40_000 * 3,)
    with tiff_rows.opened(tmp_path / "x.tif") as rows:
        assert (rows[39_985:39_995] == np.repeat([0, 7], 5)[:, None, None]).all()
    assert (tmp_path / "x.tif").stat().st_blocks * 512 < 10_000_000


@pytest.mark.parametrize(
    ("sides", "planar", "parts"),
    [((0, 16), 1, 1), ((16, 0), 1, 1), ((9000, 9000), 1, 1), (None, 2, 300)],
    ids=["no width", "no height", "a huge tile", "many planes"],
)
def test_a_small_file_does_not_take_much_memory(sides, planar, parts):
    """Zeros of 81 MB, or 300 times those of the image."""
    height = width = 16 if sides else 600
    kinds = {"H": tiff.SHORT, "I": tiff.LONG}
    values = {tiff.HEIGHT: ("I", height), tiff.WIDTH: ("I", width), tiff.BITS: ("H", 8), tiff.COMPRESSION: ("H", 8)}
    values |= {tiff.PHOTOMETRIC: ("H", 1), tiff.PLANAR: ("H", planar)}
    values |= {tag: ("I", side) for tag, side in zip((tiff.TILE_WIDTH, tiff.TILE_HEIGHT), sides or (), strict=False)}
    tags = {tag: (kinds[kind], 1, struct.pack(f"<{kind}", value)) for tag, (kind, value) in values.items()}
    zeros = zlib.compress(bytes(81_000_000 if sides else height * width))
    data = tiff.file_of(
        "<", tags, {(tiff.TILES, tiff.TILE_BYTES) if sides else (tiff.STRIPS, tiff.STRIP_BYTES): parts * [zeros]}
    )
    tracemalloc.start()
    try:
        if sides:
            with pytest.raises(ValueError, match="it is damaged"):
                tiff_pixels.decode(data)
        else:
            assert not tiff_pixels.decode(data)[0].any()
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()
