"""The tools that change pixels, against the formulas of Tensorflow's pix2pix, tools/process.py, written in NumPy."""

import numpy as np
import pytest
from PIL import Image

from p2p.codecs.pillow import decode
from p2p.commands.pair import main
from tests.commands.test_pair import fails
from tests.conftest import picture


def run(command, *arguments):
    main([command, *map(str, arguments)])


def made(path):
    return np.asarray(Image.open(path))


@pytest.fixture
def photos(tmp_path):
    """Below `photos`: train/wide.png of 90x60, train/deep/tall.jpg of 48x72, val/square.png of 64x64."""
    for name, size in (("train/wide.png", (90, 60)), ("train/deep/tall.jpg", (48, 72)), ("val/square.png", (64, 64))):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        picture(*size, seed=size[0]).save(tmp_path / "photos" / name)
    return tmp_path / "photos"


def test_resize_crops_the_middle(photos, tmp_path, capsys):
    run("resize", photos, tmp_path / "out", "--size", 32)
    assert "3 images written" in capsys.readouterr().out
    for name in ("train/wide.png", "train/deep/tall.jpg", "val/square.png"):
        photo = made(photos / name)
        height, width, _ = photo.shape
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        square = Image.fromarray(photo[top : top + side, left : left + side])
        expected = np.asarray(square.resize((32, 32), Image.Resampling.BICUBIC))
        np.testing.assert_array_equal(made((tmp_path / "out" / name).with_suffix(".png")), expected)


def test_resize_within_borders(photos, tmp_path):
    run("resize", photos, tmp_path / "out", "--size", "48x40", "--pad", "--colour", "#0a141e")
    wide = made(tmp_path / "out/train/wide.png")
    whole = Image.open(photos / "train/wide.png").resize((48, 32), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(wide[4:36], np.asarray(whole))
    assert (wide[:4] == (10, 20, 30)).all() and (wide[36:] == (10, 20, 30)).all()


def test_pad_makes_squares_and_changes_no_pixel(photos, tmp_path):
    run("pad", photos, tmp_path / "out")
    for name in ("train/wide.png", "train/deep/tall.jpg", "val/square.png"):
        photo = made(photos / name)
        rows, columns = (max(photo.shape) - np.array(photo.shape[:2])).tolist()
        sides = [(each // 2, each - each // 2) for each in (rows, columns)]
        expected = np.pad(photo, [*sides, (0, 0)], constant_values=255)
        np.testing.assert_array_equal(made((tmp_path / "out" / name).with_suffix(".png")), expected)


def test_halves_are_kept_apart(tmp_path, capsys):
    (tmp_path / "pairs").mkdir()
    a, b = picture(60, 60, seed=1), picture(60, 60, seed=2)
    Image.fromarray(np.hstack([np.asarray(a), np.asarray(b)])).save(tmp_path / "pairs/1.png")
    sentence = fails(capsys, "resize", tmp_path / "pairs", tmp_path / "out")
    assert "twice as wide as high" in sentence and "--layout=side_by_side" in sentence
    run("resize", tmp_path / "pairs", tmp_path / "out", "--size", 20, "--layout", "side_by_side")
    expected = [np.asarray(half.resize((20, 20), Image.Resampling.BICUBIC)) for half in (a, b)]
    np.testing.assert_array_equal(made(tmp_path / "out/1.png"), np.hstack(expected))
    run("pad", tmp_path / "pairs", tmp_path / "padded", "--size", 62, "--layout", "side_by_side", "--colour", "black")
    expected = [np.pad(np.asarray(half), [(1, 1), (1, 1), (0, 0)]) for half in (a, b)]
    np.testing.assert_array_equal(made(tmp_path / "padded/1.png"), np.hstack(expected))


def test_grayscale_of_the_same_lightness(photos, tmp_path, capsys):
    run("grayscale", photos, tmp_path / "grey", "--lightness")
    assert "train experiment=colorization data.root=" in capsys.readouterr().out
    photo, pair = made(photos / "val/square.png"), made(tmp_path / "grey/val/square.png")
    assert (pair[:, 64:] == photo).all() and (np.ptp(pair[:, :64], axis=2) == 0).all()

    def luminance(levels):  # Y of CIE XYZ, by IEC 61966-2-1
        shares = levels / 255
        linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
        return linear @ (0.2126, 0.7152, 0.0722)

    grey, wanted = pair[:, :64].astype(float), luminance(photo)
    assert (luminance(grey - 0.51) <= wanted).all() and (wanted <= luminance(grey + 0.51)).all()


def test_grayscale_and_blank(photos, tmp_path, capsys):
    run("grayscale", photos, tmp_path / "grey")
    run("blank", photos, tmp_path / "blank")
    assert capsys.readouterr().out.count("data.layout=side_by_side") == 2
    photo = made(photos / "val/square.png")
    grey, blank = (made(tmp_path / name / "val/square.png") for name in ("grey", "blank"))
    assert (grey[:, 64:] == photo).all() and (blank[:, 64:] == photo).all()
    assert np.abs(grey[:, :64] - (photo @ (0.299, 0.587, 0.114))[..., None]).max() <= 0.51
    assert (np.ptp(grey[:, :64], axis=2) == 0).all()
    size = int(64 * 0.3)
    offset = int(64 / 2 - size / 2)
    expected = photo.copy()
    expected[offset : offset + size, offset : offset + size, :] = 255
    np.testing.assert_array_equal(blank[:, :64], expected)


def test_labels_keep_their_numbers(tmp_path):
    (tmp_path / "maps").mkdir()
    labels = np.random.default_rng(0).choice([0, 3, 17], (30, 30)).astype(np.uint8)
    indexed = Image.fromarray(labels)
    indexed.putpalette([200, 100, 50] * 256)
    indexed.save(tmp_path / "maps/palette.png")
    Image.fromarray(labels.astype(np.uint16) * 1000).save(tmp_path / "maps/instances.png")
    run("resize", tmp_path / "maps", tmp_path / "out", "--size", 45, "--labels")
    nearest = np.floor((np.arange(45) + 0.5) * 30 / 45).astype(int)
    expected = labels[nearest[:, None], nearest]
    np.testing.assert_array_equal(made(tmp_path / "out/palette.png"), expected)
    np.testing.assert_array_equal(made(tmp_path / "out/instances.png"), expected.astype(int) * 1000)
    run("pad", tmp_path / "maps", tmp_path / "padded", "--size", "30x32", "--labels", "--colour", 5)
    np.testing.assert_array_equal(
        made(tmp_path / "padded/palette.png"), np.pad(labels, [(1, 1), (0, 0)], constant_values=5)
    )


def test_grey_of_16_bits_keeps_them(tmp_path):
    (tmp_path / "scans").mkdir()
    scan = np.random.default_rng(0).integers(0, 65536, (40, 60)).astype(np.uint16)
    Image.fromarray(scan).save(tmp_path / "scans/1.png")
    run("pad", tmp_path / "scans", tmp_path / "out")
    padded = np.pad(scan, [(10, 10), (0, 0)], constant_values=65535)
    np.testing.assert_array_equal(made(tmp_path / "out/1.png"), padded)
    run("resize", tmp_path / "scans", tmp_path / "small", "--size", 20)
    found = decode((tmp_path / "small/1.png").read_bytes(), channels=1)
    square = Image.fromarray(scan[:, 10:50].astype(np.float32))
    expected = np.asarray(square.resize((20, 20), Image.Resampling.BICUBIC))
    assert found.dtype == np.uint16 and np.abs(found[..., 0] - expected.clip(0, 65535)).max() <= 0.5


def test_what_exists_is_skipped_on_request(photos, tmp_path, capsys):
    (tmp_path / "out/val").mkdir(parents=True)
    (tmp_path / "out/val/square.png").write_bytes(b"mine")
    run("resize", photos, tmp_path / "out", "--skip-existing")
    assert "1 file exists already" in (out := capsys.readouterr().out) and "2 images written" in out
    assert (tmp_path / "out/val/square.png").read_bytes() == b"mine"
    run("resize", photos, tmp_path / "out")
    assert made(tmp_path / "out/val/square.png").shape == (256, 256, 3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["resize", "photos", "out", "--size", "0"], "--size=0 is not a size"),
        (["resize", "photos", "out", "--size", "1x2x3"], "--size=1x2x3 is not a size"),
        (["resize", "photos", "photos/out"], "choose another output"),
        (["resize", "nowhere", "out"], "there is no folder"),
        (["resize", "photos", "out", "--pad", "--colour", "whitish"], "--colour=whitish is not a colour"),
        (["resize", "photos", "out", "--colour", "whitish"], "--colour=whitish is not a colour"),
        (["pad", "photos", "out", "--labels", "--colour", "white"], "is not a label"),
        (["pad", "photos", "out", "--labels", "--format", "jpg"], "only png keeps labels"),
        (["pad", "photos", "out", "--labels"], "it has colours (RGB)"),
        (["pad", "photos", "out", "--size", "20"], "larger than 20x20"),
        (["blank", "photos", "out", "--share", "1.5"], "--share=1.5 is out of range"),
        (["blank", "photos", "out", "--colour", "whitish"], "--colour=whitish is not a colour"),
    ],
)
def test_mistakes(arguments, words, photos, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert words in fails(capsys, *arguments)
    assert not any(path.is_file() for path in tmp_path.glob("out/**/*"))
