"""Which files are found, and that what cannot be read is that image's failure."""

import codecs
import io
import os
import resource
import socket
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from PIL import Image, features

from p2p.codecs.fast import Fast
from p2p.codecs.pillow import SUFFIXES, decode
from p2p.commands.run import inputs_to_translate
from p2p.config.cli import CONF
from p2p.data.images import MOST, read_file, read_input
from p2p.data.pairs import Pair, Source, find_inputs
from p2p.data.walk import summary
from p2p.system import memory
from tests.conftest import picture


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def found(source):
    skipped = {}
    return [pair.name for pair in find_inputs(str(source), skipped=skipped)], summary(skipped)


@contextmanager
def somebody():
    """As a user whom permissions hold; root may open everything."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_linked_folders_are_followed_and_a_loop_ends(tmp_path):
    touch(tmp_path, "in/0.png", "in/deep/er/1.png", "elsewhere/2.png", "elsewhere/more/3.png")
    (tmp_path / "in/day1").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in/day2").symlink_to("../elsewhere/more")
    (tmp_path / "in/self").symlink_to(".")
    (tmp_path / "in/deep/er/up").symlink_to(tmp_path)
    (tmp_path / "elsewhere/more/back").symlink_to(tmp_path / "in")
    (tmp_path / "in/4.png").symlink_to(tmp_path / "elsewhere/2.png")
    names = ["0", "4", "day1/2", "day1/more/3", "day2/3", "deep/er/1"]
    names[5:] = ["deep/er/1", "deep/er/up/elsewhere/2", "deep/er/up/elsewhere/more/3"]  # a link up is no loop by itself
    skipped = "5 leading back to a folder above (back, back, back, ...)"
    for source in ("in", "in/**/*.png", "in/**"):
        assert found(tmp_path / source) == (names, f"; skipped: {skipped}"), source
    assert found(f"{tmp_path}/in/*/*.png")[0] == ["day1/2", "day2/3", "self/0", "self/4"]  # as a shell has it


def test_a_closed_folder_is_refused(monkeypatch):
    with tempfile.TemporaryDirectory() as name:  # which is not below a folder of root
        folder = Path(name)
        folder.chmod(0o755)
        touch(folder, "a.png", "closed/b.png")
        (folder / "closed").chmod(0)
        for source in (name, f"{name}/**/*.png"):
            with (
                somebody(),
                pytest.raises(ValueError, match=r"folder .*closed cannot be opened \(Permission denied"),
            ):
                find_inputs(source)
        (folder / "closed").chmod(0o755)


def test_what_is_hidden_or_of_the_systems_is_skipped_and_told(tmp_path):
    touch(tmp_path, "a.jpg", "b/c.PNG", "._a.jpg", ".ipynb_checkpoints/a.jpg", "b/.DS_Store", "Thumbs.db", "notes.txt")
    touch(tmp_path, "__MACOSX/a.jpg", "@eaDir/a.jpg/x.jpg", "lost+found/a.jpg", "photo.heic", "no\nline.txt", "none")
    names, said = found(tmp_path)
    assert names == ["a", "b/c"]
    assert said == (
        "; skipped: 7 hidden (._a.jpg, .ipynb_checkpoints, @eaDir, ...),"
        " 4 of other formats ('no\\nline.txt', none, notes.txt, ...)"
    )
    assert found(f"{tmp_path}/*")[0] == ["a"]


def test_the_line_that_infer_prints(tmp_path, capsys):
    touch(tmp_path, "in/a.jpg", "in/b.txt")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("infer", overrides=[f"input={tmp_path}/in"])
    assert len(inputs_to_translate(cfg, direction="AtoB")) == 1
    assert capsys.readouterr().out == f"1 image in {tmp_path}/in; skipped: 1 of other formats (b.txt)\n"
    (tmp_path / "in/b.txt").unlink()
    inputs_to_translate(cfg, direction="AtoB")
    assert capsys.readouterr().out == ""


def test_the_runs_own_pairs_have_a_layout_already():
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("infer", overrides=["layout=side_by_side"])
    with pytest.raises(ValueError, match=r"^layout=side_by_side applies only to input=, and the run has the layout of"):
        inputs_to_translate(cfg, direction="AtoB")


def test_what_is_no_file_neither_blocks_nor_ends_a_run(tmp_path):
    touch(tmp_path, "a.png", "folder.png/b.png")
    os.mkfifo(tmp_path / "fifo.png")
    (tmp_path / "link.png").symlink_to("fifo.png")
    (tmp_path / "null.png").symlink_to("/dev/null")
    with socket.socket(socket.AF_UNIX) as server:
        os.chdir(tmp_path)
        server.bind("socket.png")
        names, said = found(tmp_path)
        assert names == ["a", "folder.png/b"]
        assert said == "; skipped: 4 no regular files (fifo.png, link.png, null.png, ...)"
        for name, why in (("fifo.png", "it is not a regular file"), ("null.png", "it is not a regular file")):
            with pytest.raises(ValueError, match=rf"cannot read .*{name}: {why}"):
                read_file(Source(tmp_path / name))
        for name in ("folder.png", "socket.png"):
            with pytest.raises(ValueError, match=rf"cannot read .*{name}: (it is a folder|No such device)"):
                read_file(Source(tmp_path / name))


def test_a_link_to_nothing_is_an_image_that_fails(tmp_path):
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    (tmp_path / "round.png").symlink_to("round.png")
    pairs = find_inputs(str(tmp_path))
    for pair, why in zip(pairs, ("No such file or directory", "Too many levels"), strict=True):
        with pytest.raises(ValueError, match=rf"cannot read .*{pair.name}\.png: {why}"):
            read_file(pair.input)


@pytest.mark.parametrize("suffix", sorted(set(SUFFIXES) - {".npy"}))
def test_every_format_that_is_taken_can_be_read(tmp_path, suffix):
    Image.init()
    formats = {".pnm": "PPM", ".pgm": "PPM", ".pbm": "PPM", ".pfm": "PPM"}
    kind = formats.get(suffix, Image.EXTENSION[suffix])
    image = picture(32, 16)
    if suffix in (".pgm", ".pbm", ".pfm"):
        image = image.convert({".pgm": "L", ".pbm": "1", ".pfm": "F"}[suffix])
    if suffix == ".pfm":
        image = Image.fromarray(np.asarray(image) / np.float32(255))
    path = tmp_path / f"x{suffix.upper()}"
    if kind in Image.SAVE:
        image.save(path, kind)
    else:
        pytest.skip(f"Pillow does not write {kind}")
    (pair,) = find_inputs(str(tmp_path))
    for codec in (decode, Fast().decode):
        frame = read_input(pair, codec)
        assert frame.shape == (16, 32, 3)
        if suffix != ".pbm":
            white = {np.dtype(np.uint8): 255, np.dtype(np.float32): 1}[frame.dtype]
            expected = np.asarray(picture(32, 16).convert("L" if suffix in (".pgm", ".pfm") else "RGB")) / 255
            assert np.abs(frame / white - expected.reshape(16, 32, -1)).mean() < 0.05


def test_the_first_frame_of_a_film(tmp_path):
    frames = [picture(16, 16, seed=seed) for seed in range(3)]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    assert np.abs(decode((tmp_path / "x.gif").read_bytes()) - np.asarray(frames[0]).astype(int)).mean() < 16


def test_avif_is_taken_where_pillow_reads_it():
    assert (".avif" in SUFFIXES) == features.check("avif")


def test_a_page_description_is_no_image():
    """Pillow would have Ghostscript run it."""
    buffer = io.BytesIO()
    picture(8, 8).save(buffer, "EPS")
    with pytest.raises(ValueError, match=r"^it is not an image$"):
        decode(buffer.getvalue())


def test_a_large_photo_is_read_and_one_larger_than_the_memory_is_not(monkeypatch):
    """180 megapixels, from where on Pillow speaks of a bomb."""
    buffer = io.BytesIO()
    Image.new("L", (20_000, 9_000)).save(buffer, "TIFF")
    assert decode(buffer.getvalue(), channels=1).shape == (9_000, 20_000, 1)
    monkeypatch.setattr(memory, "free_memory", lambda: 10**9)
    for codec in (decode, Fast().decode):
        with pytest.raises(ValueError, match=r"^it is 20000x9000 pixels, which takes 1\.8 GB of memory, and 1\.0 GB "):
            codec(buffer.getvalue())


def test_free_memory():
    assert 10**8 < memory.free_memory() < 10**14


def test_a_sparse_file_of_900_gb_is_that_images_failure(tmp_path, monkeypatch):
    with (tmp_path / "x.png").open("wb") as file:
        file.truncate(900 * 10**9)
    with pytest.raises(ValueError, match=r"cannot read .*x\.png: it has 900,000,000,000 bytes, and an image has 4,294"):
        read_file(Source(tmp_path / "x.png"))
    os.truncate(tmp_path / "x.png", MOST)
    monkeypatch.setattr(memory, "free_memory", lambda: 10**9)
    with pytest.raises(ValueError, match=r"x\.png: it has 4,294,967,296 bytes, which takes 4\.3 GB of memory"):
        read_file(Source(tmp_path / "x.png"))


@pytest.mark.parametrize("kind", ["file", "image"])
def test_too_little_memory_is_that_images_failure(tmp_path, kind):
    """Under a limit of the system on the address space, so that the memory really is not there."""
    path = tmp_path / {"file": "x.png", "image": "x.ppm"}[kind]
    if kind == "file":
        path.touch()
        os.truncate(path, 3 << 30)
    else:
        Image.new("1", (9_000, 9_000)).save(path)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + (100 << 20), limits[1]))
    try:
        with pytest.raises(ValueError, match=rf"cannot read .*{path.name}: there is not enough memory"):
            read_input(Pair("x", Source(path)), decode)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


LISTS = {
    "utf-8 with a byte order mark": lambda text: codecs.BOM_UTF8 + text.encode(),
    "utf-16 little end first": lambda text: codecs.BOM_UTF16_LE + text.encode("utf-16-le"),
    "utf-16 big end first": lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
}


@pytest.mark.parametrize("kind", LISTS)
def test_a_list_from_windows_with_a_home_folder(tmp_path, monkeypatch, kind):
    monkeypatch.setenv("HOME", str(tmp_path))
    touch(tmp_path, "ä/1.png", "ä/2.png")
    (tmp_path / "list.txt").write_bytes(LISTS[kind](f"{tmp_path}/ä/2.png\r\n~/ä/1.png\r\n"))
    for source in (f"@{tmp_path}/list.txt", "@~/list.txt"):
        assert [pair.input.path for pair in find_inputs(source)] == [tmp_path / "ä/2.png", tmp_path / "ä/1.png"]


def test_an_image_is_no_list(tmp_path):
    picture(8, 8).save(tmp_path / "x.png")
    with pytest.raises(ValueError, match=r"x\.png, named by input=@.*x\.png, is not a list of paths: write text"):
        find_inputs(f"@{tmp_path}/x.png")
