"""What files mean: ranges against the formula, labels and edges against loops, sizes against Pillow."""

import io

import numpy as np
import pytest
from PIL import Image

from p2p.codecs.pillow import Pillow
from p2p.data.pairs import Source
from p2p.data.percentile import percentiles
from p2p.data.reading import Reading, edges_of, readings
from p2p.data.transforms.sizing import Sizing, resize
from p2p.deploy.fields import MANIFEST
from p2p.levels import to_shares, to_values

RNG = np.random.default_rng(0)


def file_of(array, format, **options):
    buffer = io.BytesIO()
    if format == "npy":
        np.save(buffer, array)
    else:
        (array if isinstance(array, Image.Image) else Image.fromarray(array)).save(buffer, format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("range", [(0.0, 4095.0), (100.0, 3000.0), (-1000.0, 3000.0)])
@pytest.mark.parametrize("format", ["png", "tiff", "npy"])
def test_a_range_is_black_and_white(range, format):
    values = RNG.integers(0, 4096, (6, 7), np.uint16)
    frame = Reading(1, range).frame(file_of(values, format))
    assert frame.dtype == np.float32
    expected = np.clip((values.astype(np.float64) - range[0]) / (range[1] - range[0]), 0, 1)
    assert np.abs(frame[..., 0] - expected).max() < 1e-6
    seen = Sizing(image_size=8, preprocess="none", multiple=1)(frame)
    assert np.abs(seen[..., 0] - (2 * expected - 1)).max() < 1e-6
    assert (Reading(3, range).frame(file_of(values, format)) == np.repeat(frame, 3, axis=2)).all()


def test_there_and_back_is_the_same_number():
    values = np.arange(65536, dtype=np.uint16)
    for low, high in ((0, 65535), (0, 4095), (100, 3000)):
        inside = values[low : high + 1]
        levels = to_shares(inside, low, high) * np.float32(2) - np.float32(1)
        assert (to_values(levels, low, high, np.dtype(np.uint16)) == inside).all()


def test_floats_and_signed_numbers_have_a_range_too():
    floats = RNG.normal(0, 40, (5, 6)).astype(np.float32)
    signed = RNG.integers(-3000, 3000, (5, 6)).astype(np.int16)
    for array, format in ((floats, "tiff"), (floats.astype(np.float64), "npy"), (signed, "npy")):
        frame = Reading(1, (-50.0, 50.0)).frame(file_of(array, format))
        assert np.abs(frame[..., 0] - np.clip((array.astype(np.float64) + 50) / 100, 0, 1)).max() < 1e-6


def test_16_bits_in_colour_are_whole_or_refused():
    colour = RNG.integers(0, 4096, (5, 6, 3), np.uint16)
    for format in ("png", "tiff"):
        data = Pillow(format=format, bits=16).encode(colour)
        assert (Reading(3, (0.0, 4095.0)).frame(data) == to_shares(colour, 0, 4095)).all()
    with pytest.raises(ValueError, match=r"^it has 3 channels and 1 is asked for"):
        Reading(1, (0.0, 4095.0)).frame(data)


def test_what_is_no_number_is_refused():
    holes = np.zeros((4, 4), np.float32)
    holes[1, 2] = np.nan
    with pytest.raises(ValueError, match=r"^it holds NaN or infinity: replace them by numbers$"):
        Reading(1, (0.0, 1.0)).frame(file_of(holes, "tiff"))
    with pytest.raises(ValueError, match=r"^it holds floats outside of \[0, 1\]: scale .* or set data\.range$"):
        Reading(1).frame(file_of(holes + 3, "tiff"))


@pytest.mark.parametrize("mode", ["L", "P", "I;16", "npy"])
def test_labels_become_a_channel_each(mode):
    labels = RNG.integers(0, 5, (9, 7)).astype(np.uint8)
    if mode == "P":
        image = Image.fromarray(labels)
        image = image.convert("P")
        image.putdata(labels.reshape(-1).tolist())
        image.putpalette([7, 7, 7] * 256)  # colours do not count, nor does transparency
        data = file_of(image, "png", transparency=2)
    else:
        data = file_of(labels if mode == "L" else labels.astype(np.uint16), "npy" if mode == "npy" else "png")
    reading = Reading(5, labels=5)
    planes = reading.planes(reading.frame(data))
    assert planes.shape == (9, 7, 5)
    assert planes.dtype == np.uint8
    for row in range(9):
        for column in range(7):
            assert planes[row, column].tolist() == [255 * (label == labels[row, column]) for label in range(5)]


def test_labels_are_resized_as_pillow_takes_the_nearest():
    labels = RNG.integers(0, 200, (61, 43)).astype(np.int32)
    for height, width in ((32, 32), (100, 99), (61, 20), (7, 43)):
        nearest = Image.fromarray(labels).resize((width, height), Image.Resampling.NEAREST)
        assert (resize(labels[..., None], height, width)[..., 0] == np.asarray(nearest)).all()


def test_an_instance_map_has_labels_and_edges():
    instances = RNG.choice([7, 1001, 1002, 3], (9, 11)).astype(np.uint16)
    instances[2:6, 3:8] = 7
    reading = Reading(9, labels=8, edges=True)
    frame = reading.frame(file_of(instances, "png"))
    planes = reading.planes(frame)
    assert (planes[..., 7] == 255 * (instances == 7)).all()
    assert (planes[..., 1] == 255 * (instances > 1000)).all()
    edges = np.zeros((9, 11), bool)
    for row in range(9):
        for column in range(11):
            for down, across in ((0, 1), (1, 0), (0, -1), (-1, 0)):
                other = (row + down, column + across)
                if 0 <= other[0] < 9 and 0 <= other[1] < 11:
                    edges[row, column] |= instances[row, column] != instances[other]
    assert (planes[..., 8] == 255 * edges).all()
    for alone in np.ndindex(5, 5):  # a pixel of its own: itself and its neighbours, whichever side they are on
        one = np.zeros((5, 5, 1), np.int32)
        one[alone] = 1
        marked = [at for at in np.ndindex(5, 5) if abs(at[0] - alone[0]) + abs(at[1] - alone[1]) <= 1]
        assert [*zip(*np.nonzero(edges_of(one)[..., 0]), strict=True)] == marked
    assert reading.frame(file_of(np.full((3, 3), 7, np.uint8), "png")).dtype == np.int32  # 8 bits have no 1000


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (
            np.full((3, 3), 5, np.uint8),
            r"^it holds the label 5, and data\.labels=5 are 0 to 4: set data\.labels=6, or ",
        ),
        (
            np.full((3, 3), 4002, np.uint16),
            r"^it holds the label 4002, .* add data\.edges=true if it is an instance",
        ),
        (np.zeros((3, 3, 3), np.uint8), r"^it has colours \(RGB\), and labels are one number a pixel: save grey or"),
    ],
)
def test_what_is_no_label_is_refused(array, message):
    with pytest.raises(ValueError, match=message):
        Reading(5, labels=5).frame(file_of(array, "png"))


def test_transparent_images_are_laid_on_a_colour():
    opaque = np.array([[0, 128, 255]], np.uint8)
    image = Image.fromarray(np.dstack([np.full((1, 3, 3), 100, np.uint8), opaque]))
    data = file_of(image, "png")
    for name, colour in (("white", 255), ("black", 0), ("#3c3c3c", 60)):
        share = opaque[0] / 255
        expected = 100 * share + colour * (1 - share)
        for channels in (1, 3):
            frame = Reading(channels, background=name).frame(data)
            assert np.abs(frame[0, :, 0] - expected).max() <= 1
    assert (Reading(3).frame(data) == 100).all()  # what lies under it
    palette = Image.new("P", (2, 1), 1)
    palette.putpalette([0, 0, 0, 200, 10, 10])
    palette.putpixel((0, 0), 0)
    data = file_of(palette, "png", transparency=0)
    assert Reading(3, background="white").frame(data).tolist() == [[[255, 255, 255], [200, 10, 10]]]


def test_an_export_keeps_a_colour_as_its_manifest_has_it():
    for name in ("White", "white", "#FFF", "rgb(255,255,255)"):
        background = readings(input_channels=3, target_channels=3, alpha=name)[0].background
        assert MANIFEST["background"](background), background


def test_percentiles_are_numpys(tmp_path):
    arrays = [RNG.normal(size=(20, 10)).astype(np.float32) for _ in range(5)]
    for number, array in enumerate(arrays):
        np.save(tmp_path / f"{number}.npy", array)
    sources = [Source(tmp_path / f"{number}.npy", "left") for number in range(5)]
    found = percentiles(sources, Reading(1), [1, 98])
    assert found == pytest.approx(np.percentile(np.stack(arrays)[:, :, :5], [1, 98]))
    np.save(tmp_path / "0.npy", np.full((4, 4), 3.0))
    with pytest.raises(
        ValueError, match=r"^data\.range=percentile finds 3 at 1 and 3 at 98 per cent .* leaves no range"
    ):
        percentiles(sources[:1], Reading(1), [1, 98])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"range": [5, 1]}, r"^data\.range=\[5,1\] is not valid: use auto, percentile, or black and white"),
        ({"target_range": [0, float("nan")]}, r"^data\.target_range=\[0,nan\] is not valid"),
        ({"range": "full"}, r"^data\.range=full is not valid"),
        ({"range": "percentile"}, r"^data\.range=percentile is measured by train\.py"),
        ({"edges": True}, r"^data\.edges=true needs data\.labels"),
        ({"labels": 8}, r"^data\.input_channels=3 does not suit data\.labels=8, which make 8: leave it out$"),
        ({"alpha": 3}, r"^data\.alpha=3 is not known: use drop, white, black, or another colour$"),
        ({"alpha": "pinkish"}, r"^data\.alpha=pinkish is not known: use drop, white, black, or another colour$"),
    ],
)
def test_what_cannot_be_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        readings(input_channels=3, target_channels=3, **settings)
