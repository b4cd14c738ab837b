import io
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageDraw

from p2p.data import emoji
from p2p.data.pairs import find_pairs
from tests.conftest import ROOT


def disc(colour, radius=100):
    image = Image.new("RGBA", (256, 256), (0, 0, 0, 0))
    ImageDraw.Draw(image).circle((128, 128), radius, colour)
    return image


def png(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_the_shipped_samples_are_of_the_same_split():
    for split in ("train", "val"):
        for path in (ROOT / "data/samples" / split).iterdir():
            assert emoji.split_of(path.stem) == split


def test_variants_of_one_glyph_stay_together():
    assert emoji.group_of("1f468-1f3fb-200d-1f680") == emoji.group_of("1f469-200d-1f680") == "p-1f680"
    assert emoji.group_of("1f3c3-1f3ff-200d-2642-fe0f") == emoji.group_of("1f3c3") == "1f3c3"


def test_overlap_of_two_discs():
    assert emoji.overlap(disc("red"), disc("blue")) == 1
    assert emoji.overlap(disc("red"), disc("red", radius=50)) == pytest.approx(0.25, rel=0.03)  # (50 / 100)^2


@pytest.fixture
def art(monkeypatch):
    """npm and resvg-py replaced: three renders, of which one has no drawing and one looks different."""

    def npm(command, *, cwd, **_):
        kind = "svg" if "flat" in command[-1] else "webp"
        with tarfile.open(Path(cwd, f"{kind}.tgz"), "w:gz") as archive:
            for name, radius in (("1f202-fe0f", 100), ("1f250", 40), ("1f30f", 100)):
                buffer = io.BytesIO()
                disc("blue", radius).save(buffer, "WEBP", lossless=True)
                if kind == "svg" and name == "1f30f":
                    continue
                info = tarfile.TarInfo(f"package/assets/{name}.{kind}")
                info.size = buffer.tell()
                archive.addfile(info, io.BytesIO(buffer.getvalue()))
        return SimpleNamespace(returncode=0, stdout=f"{kind}.tgz\n", stderr="")

    monkeypatch.setattr(emoji.shutil, "which", lambda _: "npm")
    monkeypatch.setattr(emoji.subprocess, "run", npm)
    resvg = SimpleNamespace(svg_to_bytes=lambda svg_path, width, height: list(png(disc("red"))))
    monkeypatch.setitem(sys.modules, "resvg_py", resvg)


def test_build(art, tmp_path):
    emoji.build(tmp_path / "emoji")
    assert [path.name for path in tmp_path.iterdir()] == ["emoji"]
    (pair,) = find_pairs(tmp_path / "emoji/train")
    assert pair.name == "1f202-fe0f"
    assert not (tmp_path / "emoji/val").exists()
    assert "MIT License. Copyright (c) Microsoft" in (tmp_path / "emoji/CREDITS.txt").read_text()
    frame = np.asarray(Image.open(pair.input.path)).astype(int)
    assert frame.shape == (256, 512, 3)
    for place, colour in (((2, 2), 255), ((128, 128), (255, 0, 0)), ((128, 384), (0, 0, 255))):
        assert np.abs(frame[place] - colour).max() < 4


def test_what_is_missing_is_said(art, tmp_path, monkeypatch):
    failed = SimpleNamespace(returncode=1, stdout="", stderr="npm ERR!\nnpm ERR! network\n")
    monkeypatch.setattr(emoji.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(ValueError, match=r"npm cannot fetch @lobehub/fluent-emoji-flat@1\.1\.0: npm ERR! network"):
        emoji.build(tmp_path / "emoji")
    monkeypatch.setattr(emoji.shutil, "which", lambda _: None)
    with pytest.raises(ValueError, match="npm, which is not installed"):
        emoji.build(tmp_path / "emoji")
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(ValueError, match=r"pip install resvg-py"):
        emoji.build(tmp_path / "emoji")
    assert list(tmp_path.iterdir()) == []
