import io
import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_dir

from p2p.codecs.pillow import SUFFIXES
from p2p.config.cli import CONF
from p2p.data.pairs import Source, find_inputs, find_pairs


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def test_side_by_side_in_both_directions(tmp_path):
    touch(tmp_path, "b.png", "a.jpg", "notes.txt")
    a, b = find_pairs(tmp_path)
    assert (a.name, b.name) == ("a", "b")
    assert a.input == Source(tmp_path / "a.jpg", "left")
    assert a.target == Source(tmp_path / "a.jpg", "right")
    (back, _) = find_pairs(tmp_path, direction="BtoA")
    assert (back.input, back.target) == (a.target, a.input)


def test_two_folders_are_matched_by_stem_not_by_suffix(tmp_path):
    touch(tmp_path, "A/x.png", "A/y.jpg", "B/x.jpg", "B/y.webp")
    x, y = find_pairs(tmp_path, direction="BtoA")
    assert (x.input.path.name, x.target.path.name) == ("x.jpg", "x.png")
    assert (y.input.path.name, y.target.path.name) == ("y.webp", "y.jpg")
    assert x.input.half is None


@pytest.mark.parametrize("side", "AB")
def test_an_image_without_partner_is_named(tmp_path, side):
    touch(tmp_path, "A/x.png", "B/x.png", f"{side}/alone.png")
    with pytest.raises(ValueError, match=rf"{side}.alone\.png has no partner .* \(1 of 2 images"):
        find_pairs(tmp_path)


def test_an_empty_and_a_missing_folder_are_named(tmp_path):
    with pytest.raises(ValueError, match=f"there is no image in {tmp_path}"):
        find_pairs(tmp_path)
    with pytest.raises(ValueError, match=r"there is no folder .*nowhere"):
        find_pairs(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="direction=AB"):
        find_pairs(tmp_path, direction="AB")


def test_every_image_format_is_found_whatever_its_case(tmp_path):
    touch(tmp_path, *(f"{i}{suffix}" for i, suffix in enumerate(SUFFIXES)), "upper.JPG", "readme.md")
    assert len(find_inputs(str(tmp_path))) == len(SUFFIXES) + 1


def test_inputs_mirror_the_folder_they_are_in(tmp_path):
    touch(tmp_path, "one/a.jpg", "two/deep/b.jpg", "c.jpg")
    assert [pair.name for pair in find_inputs(str(tmp_path))] == ["c", "one/a", "two/deep/b"]
    assert all(pair.target is None for pair in find_inputs(str(tmp_path)))
    assert [pair.name for pair in find_inputs(f"{tmp_path}/**/*.jpg")] == ["c", "one/a", "two/deep/b"]
    assert [pair.name for pair in find_inputs(f"{tmp_path}/o*/*.jpg")] == ["one/a"]
    assert [pair.name for pair in find_inputs(f"{tmp_path}/one/a.jpg")] == ["a"]


def test_names_stay_different_where_only_the_suffix_differs(tmp_path):
    touch(tmp_path, "a.jpg", "a.png", "b.png")
    assert [pair.name for pair in find_inputs(str(tmp_path))] == ["a.jpg", "a.png", "b"]


def test_layouts_of_inputs(tmp_path):
    touch(tmp_path / "flat", "x.png")
    touch(tmp_path / "split", "A/x.png", "B/x.png")
    (pair,) = find_inputs(str(tmp_path / "flat"), layout="side_by_side", direction="BtoA")
    assert (pair.input.half, pair.target.half) == ("right", "left")
    (pair,) = find_inputs(str(tmp_path / "split"))
    assert pair.target.path == tmp_path / "split/B/x.png"
    (a, b) = find_inputs(str(tmp_path / "split"), layout="inputs")
    assert (a.name, b.name) == ("A/x", "B/x")
    with pytest.raises(ValueError, match="layout=pairs"):
        find_inputs(str(tmp_path / "flat"), layout="pairs")


@pytest.mark.parametrize("source", ["flat", "flat/x.png", "flat/*.png", "nowhere", "half"])
def test_two_folders_that_are_asked_for_must_be_there(tmp_path, source):
    touch(tmp_path, "flat/x.png", "half/A/x.png")
    with pytest.raises(ValueError, match=rf"input=.*{re.escape(source)} does not hold the two folders A and B that"):
        find_inputs(f"{tmp_path}/{source}", layout="two_folders")


def test_what_is_there_is_no_pattern(tmp_path):
    """Each name would match other files as a pattern, and not itself."""
    touch(tmp_path, "a[1].png", "a1.png", "b[1]/c[2].png", "b[1]/c2.png", "b[1]/deep/d.png", "b1/e.png")
    found = {
        source: [pair.input.path.relative_to(tmp_path).as_posix() for pair in find_inputs(f"{tmp_path}/{source}")]
        for source in ("a[1].png", "b[1]", "b[1]/c[2].png", "b[1]/*.png", "b[1]/c[0-9].png", "b[0-9]/*")
    }
    assert found == {
        "a[1].png": ["a[1].png"],
        "b[1]": ["b[1]/c2.png", "b[1]/c[2].png", "b[1]/deep/d.png"],
        "b[1]/c[2].png": ["b[1]/c[2].png"],
        "b[1]/*.png": ["b[1]/c2.png", "b[1]/c[2].png"],
        "b[1]/c[0-9].png": ["b[1]/c2.png"],
        "b[0-9]/*": ["b1/e.png"],
    }
    assert [pair.name for pair in find_inputs(f"{tmp_path}/b[1]/**/*.png")] == ["c2", "c[2]", "deep/d"]


@pytest.mark.parametrize("source", ["photos", "photos/*.jpg", "*.jpg", "*", "**/*.jpg"])
def test_relative_patterns(tmp_path, monkeypatch, source):
    touch(tmp_path, "photos/x.jpg", "y.jpg")
    monkeypatch.chdir(tmp_path)
    names = {"*.jpg": ["y"], "*": ["y"], "**/*.jpg": ["photos/x", "y"]}
    assert [pair.name for pair in find_inputs(source)] == names.get(source, ["x"])


def test_hydra_takes_a_quoted_name_with_brackets():
    with initialize_config_dir(str(CONF), version_base="1.3"):
        assert compose("infer", overrides=['input="odd/a[1].png"']).input == "odd/a[1].png"


def test_a_pattern_without_match_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"input=.*\*\.jpg is not a folder, not a file, and not a pattern"):
        find_inputs(f"{tmp_path}/*.jpg")


def test_three_suffixes_that_would_collide_are_refused(tmp_path):
    touch(tmp_path, "a.jpg", "a.png", "a.jpg.webp")
    with pytest.raises(ValueError, match=r"a\.jpg and .*a\.jpg\.webp would both be written as a\.jpg: rename one"):
        find_inputs(str(tmp_path))


def listed(tmp_path, *lines):
    (tmp_path / "list.txt").write_bytes(b"\n".join(os.fsencode(str(line)) for line in lines))
    return f"@{tmp_path}/list.txt"


def test_a_list_keeps_its_order_and_the_folders_below_the_shared_one(tmp_path, monkeypatch):
    touch(tmp_path, "in/one/x.jpg", "in/two/x.PNG", "in/two/y.npy")
    paths = [tmp_path / "in/two/x.PNG", "in/one/x.jpg", "in/one/../two/y.npy"]
    monkeypatch.chdir(tmp_path)
    pairs = find_inputs(listed(tmp_path, paths[0], "", f"{paths[1]}\r", paths[2], ""))
    assert [pair.name for pair in pairs] == ["two/x", "one/x", "two/y"]
    assert [pair.input for pair in pairs] == [Source(Path(path)) for path in paths]
    (pair,) = find_inputs(listed(tmp_path, "in/one/x.jpg"), layout="side_by_side", direction="BtoA")
    assert (pair.name, pair.input.half, pair.target.half) == ("x", "right", "left")


def test_a_list_on_standard_input_and_names_that_are_no_utf_8(tmp_path, monkeypatch):
    name = os.fsdecode(b"caf\xe9 1.png")
    touch(tmp_path, name)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(os.fsencode(tmp_path / name) + b"\n")))
    (pair,) = find_inputs("-")
    assert (pair.name, pair.input.path) == (name.removesuffix(".png"), tmp_path / name)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["x.png", "", "gone.png"], r"line 3 of .*list\.txt: gone\.png is not there: give one file a line"),
        (["x.png", "sub"], r"line 2 of .*list\.txt: sub is a folder: give one file a line"),
        (["list.txt"], r"line 1 of .*list\.txt: list\.txt is no image: it should end in \.jpg"),
        (["~nobody-here/x.png"], r"line 1 of .*list\.txt: ~nobody-here/x\.png is not there: give one file a line"),
        (["x.png", "sub/../x.png"], r"line 2 of .*list\.txt: sub/\.\./x\.png stands in line 1 already: name each"),
        (["", " "], r"there is no path in .*list\.txt, named by input=@.*list\.txt"),
    ],
)
def test_a_line_that_is_wrong_is_named(tmp_path, monkeypatch, lines, message):
    touch(tmp_path, "x.png", "sub/y.png")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        find_inputs(listed(tmp_path, *lines))


def test_no_list_and_no_folder(tmp_path):
    with pytest.raises(ValueError, match=r"there is no list gone\.txt, named by input=@gone\.txt"):
        find_inputs("@gone.txt")
    with pytest.raises(
        ValueError, match=r"input=@.*list\.txt is a list of files, and layout=two_folders needs a folder"
    ):
        find_inputs(listed(tmp_path, "x.png"), layout="two_folders")
