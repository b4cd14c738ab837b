import re
import shlex
import sys

import numpy as np
import pytest
from PIL import Image

from p2p.__main__ import main as p2p
from p2p.commands.pair import main
from p2p.commands.pair.options import TOOLS, parse
from p2p.data.edges import line_drawing
from p2p.data.pairs import find_pairs
from tests.conftest import ROOT, picture


def fails(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        main([*map(str, arguments)])
    assert "\n" not in stopped.value.code
    return stopped.value.code


def test_edges_keeps_the_splits(tmp_path, capsys):
    for name in ("train/a.png", "train/deep/b.jpg", "val/c.webp"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        picture(40, 30, seed=len(name)).save(tmp_path / "photos" / name)
    main(["edges", str(tmp_path / "photos"), str(tmp_path / "out"), "--sigma", "1"])
    assert "3 pairs written" in capsys.readouterr().out
    assert [pair.name for pair in find_pairs(tmp_path / "out/train")] == ["a", "deep/b"]
    assert [pair.name for pair in find_pairs(tmp_path / "out/val")] == ["c"]
    photo = np.asarray(Image.open(tmp_path / "photos/train/a.png"))
    made = np.asarray(Image.open(tmp_path / "out/train/a.png"))
    assert (made[:, 40:] == photo).all()
    assert (made[:, :40] == line_drawing(photo, sigma=1)).all()


def test_combine_joins_by_name(tmp_path):
    for side, colour, suffix in (("x", "red", "png"), ("y", "blue", "bmp")):
        (tmp_path / side / "train").mkdir(parents=True)
        Image.new("RGB", (8, 6), colour).save(tmp_path / side / f"train/1.{suffix}")
    main(["combine", str(tmp_path / "x"), str(tmp_path / "y"), str(tmp_path / "out"), "--format", "webp"])
    assert [path.name for path in (tmp_path / "out/train").iterdir()] == ["1.webp"]
    made = np.asarray(Image.open(tmp_path / "out/train/1.webp").convert("RGB")).astype(int)
    assert made.shape == (6, 16, 3)
    assert np.abs(made[:, :7] - (255, 0, 0)).mean() < 10 and np.abs(made[:, 9:] - (0, 0, 255)).mean() < 10


@pytest.mark.parametrize("command", ["edges", "combine", "split"])
def test_a_share_goes_to_val(command, tmp_path, capsys):
    for side in "xy":
        for number in range(20):
            path = tmp_path / side / f"{number % 3}/{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(24, 12, seed=number).save(path)
    inputs = [tmp_path / "x", tmp_path / "y"][: 1 + (command == "combine")]
    for out in ("out", "again"):
        main([command, *map(str, inputs), str(tmp_path / out), "--val", "0.15"])
    said = capsys.readouterr().out
    assert "20 pairs written" in said and "data.layout=side_by_side" in said
    found = {part: {pair.name for pair in find_pairs(tmp_path / "out" / part)} for part in ("train", "val")}
    assert len(found["val"]) == 3 and len(found["train"]) == 17
    assert found["train"] | found["val"] == {f"{number % 3}/{number}" for number in range(20)}
    assert found["val"] == {pair.name for pair in find_pairs(tmp_path / "again/val")}
    if command == "split":
        for path in (tmp_path / "x").rglob("*.png"):
            name = path.relative_to(tmp_path / "x")
            (copy,) = [tmp_path / "out" / part / name for part in found if (tmp_path / "out" / part / name).exists()]
            assert copy.read_bytes() == path.read_bytes()
    assert "in train/ or val/ already" in fails(capsys, "split", tmp_path / "out", tmp_path / "twice")
    assert fails(capsys, "split", tmp_path / "x", tmp_path / "z", "--val", "1").startswith("error: --val=1 is out of")


def test_mistakes(tmp_path, capsys):
    assert "there is no folder" in fails(capsys, "edges", tmp_path / "nowhere", tmp_path / "out")
    for side in "xy":
        (tmp_path / side).mkdir()
    assert "there is no image in" in fails(capsys, "combine", tmp_path / "x", tmp_path / "y", tmp_path / "out")
    Image.new("RGB", (8, 6)).save(tmp_path / "x/1.png")
    Image.new("RGB", (8, 6)).save(tmp_path / "y/2.png")
    assert "1.png has no partner" in fails(capsys, "combine", tmp_path / "x", tmp_path / "y", tmp_path / "out")
    Image.new("RGB", (8, 7)).save(tmp_path / "y/1.png")
    (tmp_path / "y/2.png").unlink()
    assert "is 8x6 but its partner" in fails(capsys, "combine", tmp_path / "x", tmp_path / "y", tmp_path / "out")
    assert "choose another output" in fails(capsys, "edges", tmp_path / "x", tmp_path / "x/out")
    assert fails(capsys, "edges", tmp_path / "x", tmp_path / "out", "--sigma", "0").startswith("error: sigma=0, low=")
    assert "quality=0" in fails(capsys, "edges", tmp_path / "x", tmp_path / "out", "--quality", "0")
    Image.fromarray(np.zeros((6, 8), np.uint16)).save(tmp_path / "x/1.png")
    assert "has more than 8 bits a channel" in fails(capsys, "edges", tmp_path / "x", tmp_path / "out")
    (tmp_path / "x/1.png").write_bytes(b"no")
    assert "1.png: it is not an image" in fails(capsys, "edges", tmp_path / "x", tmp_path / "out")
    assert not any(path.is_file() for path in tmp_path.glob("out/**/*"))


@pytest.mark.parametrize("command", ["edges", "combine"])
def test_images_that_cannot_be_read_do_not_stop_the_others(tmp_path, capsys, command):
    for side in "xy":
        (tmp_path / side).mkdir()
        for index in range(8):
            picture(40, 30, seed=index).save(tmp_path / side / f"{index}.png")
    for index in range(7):
        (tmp_path / f"x/{index}.png").write_bytes(b"no")
    folders = [tmp_path / "x", tmp_path / "y"][: 1 if command == "edges" else 2]
    sentence = fails(capsys, command, *folders, tmp_path / "out")
    assert sentence.startswith(f"error: 7 of 8 could not be made, the others are in {tmp_path}/out: cannot read")
    assert sentence.endswith("; and 2 more") and sentence.count("it is not an image") == 5
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["7.png"]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ([], ["COMMAND", "line drawing | photo", "p2p train data=folder data.root=OUT data.layout=side_by_side"]),
        (["edges"], ["PHOTOS OUT", "Canny's edge detector", "--sigma X", "(1.5)", "1 to 100", "(png)"]),
        (["combine"], ["A B OUT", "equal size and equal path", "(95)"]),
        (["split"], ["FOLDER OUT", "--val X", "(default: 0.15)"]),
    ],
)
def test_help(command, words, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    with pytest.raises(SystemExit) as stopped:
        main([*command, "--help"])
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert not [word for word in words if word not in out]


def test_the_docs_name_tools_and_options_that_exist():
    text = "".join(page.read_text() for page in (ROOT / "docs").glob("*.md"))
    lines = re.findall(r"^    p2p pair ([^#\n]*)|`p2p pair (\w+ \w+ [^`]*)`", text, re.MULTILINE)
    assert {parse(shlex.split(first or second)).command for first, second in lines} == set(TOOLS)


def test_ctrl_c_and_bugs_end_as_in_the_commands(tmp_path, monkeypatch, capfd):
    (tmp_path / "x").mkdir()
    monkeypatch.setattr(sys, "argv", ["p2p", "pair", "edges", str(tmp_path / "x"), str(tmp_path / "out")])
    for error in (KeyboardInterrupt, RuntimeError):

        def fail(*arguments, error=error, **options):
            raise error

        monkeypatch.setattr("p2p.commands.pair.pairs.edges", fail)
        with pytest.raises((SystemExit, RuntimeError)) as stopped:
            p2p()
        assert stopped.type is RuntimeError or stopped.value.code == 130
    assert capfd.readouterr().err.strip() == "stopped by Ctrl-C; every file that was written is complete"


def test_a_stack_trace_on_request(tmp_path, monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(ValueError, match="there is no folder"):
        main(["edges", str(tmp_path / "x"), str(tmp_path / "out")])
