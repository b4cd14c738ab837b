import base64
import csv
import io
import time

import numpy as np
import pytest
import torch
from PIL import Image

from p2p.codecs.pillow import decode
from p2p.data.pairs import Pair, Source
from p2p.data.reading import RGB
from p2p.data.transforms.torchvision import Torchvision
from p2p.report import gallery
from p2p.report.page import data_of, publish
from p2p.report.picture import contact_sheet, spread
from p2p.report.tables import scores_of, show_considered
from p2p.report.thumbnails import PIXELS, longest_side, strip
from tests.conftest import picture


def plain(value, channels=3):
    return np.full((20, 30, channels), value, np.uint8)


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 210])
def test_what_is_shown_is_spread_evenly(length):
    shown = spread(range(length), 8)
    assert len(shown) == min(8, length) and shown == sorted(set(shown)) and shown[:1] == list(range(length))[:1]
    gaps = np.diff([*shown, length])
    assert not len(gaps) or gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize("across", [1, 2, 5])
def test_a_contact_sheet_shows_every_frame_whole(across):
    rows = [[plain(10 * row + column) for column in range(3)] for row in range(3)]
    sheet = np.asarray(contact_sheet(rows, header=["a", "b", "c"], captions=["x", "y", "z"], across=across))
    for row in range(3):
        for column in range(3):
            where = np.argwhere((sheet == 10 * row + column).all(axis=2))
            assert len(where) >= 20 * 30
            top, left = where.min(axis=0)
            assert (sheet[top : top + 20, left : left + 30] == 10 * row + column).all()


def test_grey_frames_stand_beside_colour():
    sheet = np.asarray(contact_sheet([[plain(7, channels=1), plain(9)]], header=["", ""]))
    assert (sheet == 7).all(axis=2).sum() == 600


def test_the_page_is_self_contained_and_says_what_is_on_it(tmp_path):
    scores = {"PSNR": 22.1, "SSIM": 0.5}
    files = [Source(tmp_path / "in/a b.jpg", "left"), Source(tmp_path / "run/images/a b.png")]
    entries = [gallery.Entry(f"<{i}>", plain(100), plain(120), plain(110), scores, files, 28.13) for i in range(3)]
    run = tmp_path / "run"
    index = gallery.write(entries, run, title="a & b", count=9, total=7, settings={"codec.format": "png"})
    page = index.read_text()
    assert "<title>a &amp; b</title>" in page and "<0>" not in page
    assert page.count("http") == page.count("http://www.w3.org/2000/svg") == 1
    data = data_of(page)
    assert data["summary"] == (
        "3 of 7 images, mean PSNR 22.10 dB (returning the input unchanged: 28.13 dB), SSIM 0.5000"
    )
    assert (data["columns"], data["settings"]) == (["input", "output", "target"], {"codec.format": "png"})
    assert [image["name"] for image in data["images"]] == ["<0>", "<1>", "<2>"]
    image = data["images"][1]
    assert (image["width"], image["height"], image["scores"]) == (30, 20, scores)
    assert image["files"] == [
        {"address": "../in/a%20b.jpg", "half": "left"},
        {"address": "images/a%20b.png", "half": None},
    ]
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(image["picture"]))))
    assert picture.shape == (24, 3 * 32, 3)  # whole blocks of JPEG
    means = [picture[:, 32 * at : 32 * at + 32].mean() for at in range(3)]
    assert means == pytest.approx([100, 120, 110], abs=1)
    rows = list(csv.DictReader((run / "scores.csv").open()))
    assert {row["target"] for row in rows} == {""}  # a column of each row, and not None
    assert [(row["name"], row["PSNR"], row["output"]) for row in rows][2] == ("<2>", "22.1", str(files[1].path))
    assert (
        "PSNR" not in data_of(gallery.write(entries_without(), run, title="t", count=1, total=1).read_text())["summary"]
    )


def entries_without():
    return [gallery.Entry("x", plain(1), plain(2))]


@pytest.mark.parametrize("restored", [False, True])
def test_what_was_written_at_its_own_size_is_shown_in_its_own_shape(tmp_path, restored):
    """Scores are those of the network's view in both cases."""
    photo, target = picture(600, 200), picture(600, 200, seed=1)
    transform, size = Torchvision(image_size=32), (600, 200) if restored else (32, 32)
    for folder, image in {"A": photo, "B": target, "out": photo.resize(size, Image.Resampling.BICUBIC)}.items():
        (tmp_path / folder).mkdir()
        image.save(tmp_path / folder / "x.png")
    entry, *_ = gallery.collect(
        [Pair("x", Source(tmp_path / "A/x.png"), Source(tmp_path / "B/x.png"))],
        [tmp_path / "out/x.png"],
        count=1,
        decode=decode,
        read_back=decode,
        eval=transform.eval,
        readings=(RGB, RGB),
        restored=restored,
    )
    assert {frame.shape for frame in entry.frames} == {(171, 512, 3) if restored else (32, 32, 3)}
    views = [np.asarray(image.resize((32, 32), Image.Resampling.BICUBIC), float) for image in (photo, target)]
    assert entry.scores["PSNR"] == pytest.approx(
        10 * np.log10(255**2 / np.square(views[0] - views[1]).mean()), abs=0.01
    )
    assert entry.unchanged == pytest.approx(entry.scores["PSNR"], abs=0.01)
    if restored:
        shown = np.asarray(photo.resize((512, 171), Image.Resampling.BICUBIC))
        assert all((frame == shown).all() for frame in (entry.input, entry.output))


def test_the_index_is_the_latest_page_and_leads_to_the_others(tmp_path):
    publish("training", tmp_path, title="t", data={"settings": {}})
    gallery.write(entries_without(), tmp_path, title="t", count=1, total=1)
    assert (tmp_path / "index.html").read_text() == (tmp_path / "gallery.html").read_text()
    assert data_of((tmp_path / "index.html").read_text())["pages"] == {"Training": "training.html"}
    assert data_of((tmp_path / "training.html").read_text())["pages"] == {}


def test_all_pictures_together_are_bounded():
    frames = [np.random.default_rng(0).integers(0, 256, (700, 900, 3), np.uint8)] * 3
    sizes = {
        count: Image.open(io.BytesIO(base64.b64decode(strip(frames, longest=longest_side(3 * count))))).size
        for count in (1, 10_000)
    }
    assert sizes[1] == (3 * 512, 400)
    assert 10_000 * sizes[10_000][0] * sizes[10_000][1] <= PIXELS
    assert sizes[10_000][0] / 3 > 50


def test_without_entries_there_is_no_page(tmp_path):
    assert gallery.write([], tmp_path / "run", title="t", count=9, total=0) is None
    assert not (tmp_path / "run").exists()


def test_scores_are_grouped_by_prefix():
    assert scores_of({"val/L1": 1.0, "val/PSNR": 2.0, "unchanged/L1": 3.0}) == {
        "val": {"L1": 1.0, "PSNR": 2.0},
        "unchanged": {"L1": 3.0},
    }


@pytest.mark.parametrize(("channels", "seen"), [(2, (0, 0, 0)), (5, (0, 10, 20))])
def test_many_channels_are_shown_by_the_first(tmp_path, channels, seen):
    frame = np.broadcast_to(10 * np.arange(channels, dtype=np.uint8), (20, 30, channels))
    sheet = np.asarray(contact_sheet([[frame, plain(200)[:8]]], header=["", ""]))
    assert (sheet == seen).all(axis=2).sum() == 600
    gallery.write([gallery.Entry("x", frame, plain(1))], tmp_path, title="t", count=1, total=1)
    (image,) = data_of((tmp_path / "index.html").read_text())["images"]
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(image["picture"]))))
    assert picture[8, 8] == pytest.approx(np.array(seen), abs=2)


def test_the_table_of_backends_fits_80_columns(capsys, monkeypatch):
    """Cells are whole; reasons, which are sentences, stand below; a long name takes two lines."""
    monkeypatch.setenv("COLUMNS", "80")
    row = {"precision": "float16", "build_s": 123.4, "batch_ms": 12.34, "images_per_s": 12345.0, "worst_psnr": 120.0}
    rows = [
        row | {"backend": "exported_program", "verdict": "kept"},
        row | {"backend": "mine.a_long_name.graphs", "verdict": "1.70x"},
        row | {"backend": "torch_tensorrt", "verdict": "30.9 dB is below min_psnr=40"},
        row | {"backend": "onnx", "batch_ms": None, "verdict": "onnxruntime cannot be imported"},
    ]
    show_considered(rows, batch_size=32)
    out = capsys.readouterr().out
    assert "…" not in out and all(len(line) <= 80 for line in out.splitlines())
    assert out.count("│ 123.4 │  12.34 │ 12,345 │ 120.0 │") == 3
    assert "exported_program" in out and "precision" in out and "1.70x" in out
    assert out.endswith(
        "torch_tensorrt refused: 30.9 dB is below min_psnr=40\nonnx left out: onnxruntime cannot be imported\n"
    )


def test_a_few_images_are_read_ahead_in_order_and_a_failure_is_that_images():
    begun = []

    def work(number):
        begun.append(number)
        assert torch.get_num_threads() == 1
        time.sleep(0.01 * (number % 3))  # out of order
        if number == 5:
            raise ValueError("five")
        return number * number

    found, threads = [], torch.get_num_threads()
    for number, made in gallery.ahead(work, range(20), threads=3):
        assert len(begun) <= number + 1 + 2 * 3
        found.append(str(made.exception()) if number == 5 else made.result())
    assert found == [number * number if number != 5 else "five" for number in range(20)]
    assert torch.get_num_threads() == threads
