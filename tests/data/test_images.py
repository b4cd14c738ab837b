import numpy as np
import pytest
from PIL import Image

from p2p.codecs.pillow import decode
from p2p.data.images import read_input, read_pair
from p2p.data.pairs import Pair, Source, find_pairs
from p2p.data.reading import RGB, Reading


def read(pair, input=RGB, target=RGB):
    return read_pair(pair, decode, input=input, target=target)


def test_halves_are_the_halves(tmp_path):
    image = np.zeros((4, 10, 3), np.uint8)
    image[:, :5] = 10
    image[:, 5:] = 200
    Image.fromarray(image).save(tmp_path / "x.png")
    (pair,) = find_pairs(tmp_path)
    a, b = read(pair)
    assert a.shape == b.shape == (4, 5, 3)
    assert (a == 10).all()
    assert (b == 200).all()
    grey, colour = read(pair, Reading(1))
    assert grey.shape == (4, 5, 1)
    assert (colour == b).all()
    assert (read_input(pair, decode) == a).all()


def test_an_odd_width_is_no_pair(tmp_path):
    Image.new("RGB", (7, 4)).save(tmp_path / "x.png")
    with pytest.raises(ValueError, match=r"x\.png is 7 pixels wide"):
        read(find_pairs(tmp_path)[0])


def test_unequal_sizes_are_named(tmp_path):
    for side, size in (("A", (8, 4)), ("B", (6, 4))):
        (tmp_path / side).mkdir()
        Image.new("RGB", size).save(tmp_path / side / "x.png")
    with pytest.raises(ValueError, match=r"A.x\.png is 8x4 but its partner .*B.x\.png is 6x4"):
        read(find_pairs(tmp_path)[0])


@pytest.mark.parametrize("content", [b"", b"not an image", "half"])
def test_an_unreadable_file_is_named(tmp_path, content):
    path = tmp_path / "broken.jpg"
    if content == "half":
        Image.new("RGB", (64, 64)).save(path)
        content = path.read_bytes()[:400]
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot read .*broken\.jpg: it is (not an image|damaged)"):
        read_input(Pair("broken", Source(path)), decode)


def test_a_file_that_is_gone_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"cannot read .*gone\.jpg: No such file"):
        read_input(Pair("gone", Source(tmp_path / "gone.jpg")), decode)


def test_arrays_of_many_channels_beside_images(tmp_path):
    for side in "AB":
        (tmp_path / side).mkdir()
    array = np.random.default_rng(0).random((4, 6, 5)).astype(np.float32)
    np.save(tmp_path / "A/x.npy", array)
    Image.new("RGB", (6, 4), "white").save(tmp_path / "B/x.png")
    (pair,) = find_pairs(tmp_path)
    a, b = read(pair, Reading(5))
    assert (a == array).all()
    assert b.shape == (4, 6, 3)
    with pytest.raises(ValueError, match=r"cannot read .*A.x\.npy: it has 5 channels and 3 are asked for"):
        read(pair)
    with pytest.raises(ValueError, match=r"cannot read .*B.x\.png: it is an image, of which channels=5"):
        read(pair, Reading(5), Reading(5))
