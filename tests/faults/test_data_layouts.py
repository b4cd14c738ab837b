"""Images that are no A|B pairs are refused, and the layouts that data sets come in are understood."""

import numpy as np
import pytest
from PIL import Image

from p2p.codecs.pillow import decode
from p2p.data.datamodule import PairedImages
from p2p.data.halves import SAMPLE
from p2p.data.images import read_pair
from p2p.data.pairs import find_inputs, find_pairs
from p2p.data.transforms.torchvision import Torchvision
from p2p.pipelines.slots import PairTable, share_pairs
from tests.conftest import picture


def fill(folder, *sizes):
    folder.mkdir(parents=True, exist_ok=True)
    for index, size in enumerate(sizes):
        picture(*size, seed=index).save(folder / f"{index}.png")


def data(root, **options):
    return PairedImages(root=str(root), transform=Torchvision(image_size=16), **options)


LAYOUTS = {
    "side by side": ("train", "val"),
    "other case": ("Train", "VAL"),
    "valid": ("train", "valid"),
    "test for val": ("train", "test"),
    "A and B": ("train/A", "train/B", "val/A", "val/B"),
    "a and b": ("train/a", "train/b", "val/a", "val/b"),
    "input and target": ("train/input", "train/Target", "val/Input", "val/target"),
    "inputs and targets": ("train/inputs", "train/targets", "val/inputs", "val/targets"),
    "source and target": ("train/source", "train/target", "val/source", "val/target"),
    "trainA": ("trainA", "trainB", "valA", "valB"),
    "testA": ("trainA", "trainB", "testA", "testB"),
    "train_input": ("train_input", "train_target", "val_input", "val_target"),
    "A first": ("A/train", "B/train", "A/val", "B/val"),
    "input first": ("Input/Train", "Target/Train", "Input/Test", "Target/Test"),
}
QUIET = ("side by side", "A and B", "a and b", "input and target", "inputs and targets", "source and target")


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_understood(tmp_path, name, capsys):
    folders = LAYOUTS[name]
    two = len(folders) == 4
    for folder in folders:
        fill(tmp_path / folder, *[(24, 16) if two else (32, 16)] * 3)
    for split, (a, b) in {"train": (folders[0], folders[1]), "val": (folders[-2], folders[-1])}.items():
        if not two:
            a = b = folders[split == "val"]
        for direction, ends in {"AtoB": (a, b), "BtoA": (b, a)}.items():
            pairs = data(tmp_path, direction=direction).dataset(split).pairs
            assert [pair.name for pair in pairs] == ["0", "1", "2"]
            assert pairs[1].input.path == tmp_path / ends[0] / "1.png"
            assert pairs[1].target.path == tmp_path / ends[1] / "1.png"
    assert (capsys.readouterr().out == "") == (name in QUIET), "where they are is told unless it is the usual place"


@pytest.mark.parametrize(
    ("sizes", "which"),
    [
        ([(64, 64)] * 3, r"0\.png is 64 pixels wide and 64 high, which is too narrow"),
        ([(256, 255)] * 3, r"0\.png is 256 pixels wide and 255 high, which is too narrow"),
        ([(48, 32)] * 3, r"0\.png is 48 pixels wide and 32 high, which is too narrow"),  # photos of 3:2
        ([(32, 64)] * 3, r"0\.png is 32 pixels wide and 64 high, which is too narrow"),  # A above B
        ([(64, 32)] * 4 + [(32, 32)], r"4\.png is 32 pixels wide and 32 high, of another shape"),
        ([(64, 32)] * 4 + [(128, 32)], r"4\.png is 128 pixels wide and 32 high, of another shape"),
    ],
)
def test_images_that_are_no_pairs_are_refused(tmp_path, sizes, which):
    fill(tmp_path / "val", *sizes)
    with pytest.raises(ValueError, match=rf"val.{which}.* add data\.layout=side_by_side if"):
        data(tmp_path).dataset("val")
    assert len(data(tmp_path, layout="side_by_side").dataset("val")) == len(sizes)


def test_rectangles_side_by_side_are_pairs(tmp_path):
    fill(tmp_path, (96, 32), (96, 32), (90, 32))
    assert len(find_pairs(tmp_path)) == 3


@pytest.mark.parametrize("stored", ["upright", "turned"])
def test_the_shape_is_that_of_the_upright_image(tmp_path, stored):
    exif = Image.Exif()
    exif[0x0112] = 6
    size, options = ((64, 32), {}) if stored == "upright" else ((32, 64), {"exif": exif})
    picture(*size).save(tmp_path / "x.jpg", **options)
    (pair,) = find_pairs(tmp_path)
    assert read_pair(pair, decode)[0].shape == (32, 32, 3)


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (("train/A",), r"train.A has no folder B beside it: rename them .*train.A and .*train.B"),
        (("train/target",), r"train.target has no folder input beside it"),
        (("train/images", "train/labels"), r"train.images and .*train.labels have equal names, as inputs and targets"),
    ],
)
def test_one_side_and_sides_of_other_names_are_refused(tmp_path, folders, message):
    for folder in folders:
        fill(tmp_path / folder, *[(64, 32)] * 3)  # such as Cityscapes' photos, twice as wide as high
    with pytest.raises(ValueError, match=message):
        data(tmp_path).dataset("train")
    assert len(data(tmp_path, layout="side_by_side").dataset("train")) == 3 * len(folders)


def test_a_layout_that_is_asked_for_must_be_there(tmp_path):
    fill(tmp_path / "train", (64, 32))
    with pytest.raises(ValueError, match=r"train does not hold the two folders, A and B, that layout=two_folders"):
        data(tmp_path, layout="two_folders").dataset("train")
    with pytest.raises(ValueError, match=r"^data\.layout=pairs is not known: use side_by_side, two_folders or null$"):
        data(tmp_path, layout="pairs")


def test_images_beside_the_two_folders_are_told(tmp_path, capsys):
    for folder in ("A", "B", "C", "."):
        fill(tmp_path / "train" / folder, (32, 32))
    assert len(data(tmp_path).dataset("train")) == 1
    assert "1 pair in" in (said := capsys.readouterr().out) and "2 beside the two folders (0.png, C)" in said


def test_one_odd_image_among_many_is_found_when_it_is_used(tmp_path):
    """The headers of so many are not all read at the start. Also in the workers of a pipeline, to which it travels."""
    fill(tmp_path, (64, 32))
    for index in range(1, 2 * SAMPLE):
        (tmp_path / f"{index:05}.png").hardlink_to(tmp_path / "0.png")
    (tmp_path / "00001.png").unlink()
    picture(32, 32).save(tmp_path / "00001.png")
    pairs = find_pairs(tmp_path)
    assert len(pairs) == 2 * SAMPLE
    odd = next(index for index, pair in enumerate(pairs) if pair.name == "00001")
    assert odd % 2, "or it would have been found at the start"
    shared = share_pairs(pairs)
    for pair in (pairs[odd], PairTable(shared["text"].array, shared["ends"].array)[odd]):
        assert pair.input.shape == 1.0
        with pytest.raises(ValueError, match=r"00001\.png is 32 pixels wide and 32 high, of another shape"):
            read_pair(pairs[odd], decode)


def test_arrays_side_by_side(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((16, 16, 3), np.uint8))
    with pytest.raises(ValueError, match=r"x\.npy is 16 pixels wide and 16 high, which is too narrow"):
        find_pairs(tmp_path)


def test_inputs_to_translate_of_two_folders(tmp_path):
    for folder in ("Input", "target"):
        fill(tmp_path / folder, (32, 32), (32, 32))
    assert [pair.input.path.parent.name for pair in find_inputs(str(tmp_path))] == ["Input", "Input"]
    assert len(find_inputs(str(tmp_path), layout="inputs")) == 4
