import numpy as np
import pytest

from p2p.report import gallery
from p2p.report.picture import contact_sheet, spread
from p2p.report.tables import scores_of


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
    entries = [gallery.Entry(f"<{i}>", plain(100), plain(120), plain(110), 22.1) for i in range(3)]
    gallery.write(entries, tmp_path, title="a & b", total=7)
    page = (tmp_path / "index.html").read_text()
    assert "a &amp; b" in page and "&lt;1&gt;  22.1 dB" in page
    assert "3 of 7 images, mean PSNR 22.10 dB (returning the input unchanged: 28.13 dB)" in page  # 20 log10(255 / 10)
    assert page.count('src="data:image/png;base64,') == 9
    assert "http" not in page
    gallery.write([gallery.Entry("x", plain(1), plain(2))], tmp_path, title="t", total=1)
    assert "PSNR" not in (tmp_path / "index.html").read_text()


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
    gallery.write([gallery.Entry("x", frame, plain(1))], tmp_path, title="t", total=1)
    assert (tmp_path / "index.html").read_text().count("data:image/png;base64,") == 2
