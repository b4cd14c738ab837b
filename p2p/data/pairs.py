"""Which images there are: pairs to train on, inputs to translate."""

from __future__ import annotations

import glob
import os
import sys
from collections import Counter
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path
from typing import Literal, NamedTuple

from PIL import Image

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".npy")

Direction = Literal["AtoB", "BtoA"]
Layout = Literal["side_by_side", "two_folders", "inputs"]


class Source(NamedTuple):
    """Where an image is: a file, or the left or right half of one."""

    path: Path
    half: Literal["left", "right"] | None = None


@dataclass(frozen=True)
class Pair:
    """An input and, where it is known, the target that the generator should make of it.

    `name` is the input's path below the folder that was searched, without suffix: outputs mirror it.
    """

    name: str
    input: Source
    target: Source | None = None


def check_direction(direction: str, *, key: str = "direction") -> None:
    """Raise a ValueError, which names the setting, if it is none."""
    if direction not in ("AtoB", "BtoA"):
        raise ValueError(f"{key}={direction} is not known: use AtoB or BtoA")


def check_outside(output: Path, folder: Path) -> None:
    """Raise a ValueError if what is written to `output` would be found among the images of `folder`."""
    if folder.resolve() in (output.resolve(), *output.resolve().parents):
        raise ValueError(f"{output} is in {folder}, where it would be read the next time: choose another output")


def find_pairs(folder: Path | str, *, direction: Direction = "AtoB") -> list[Pair]:
    """The training pairs in a folder, sorted by name.

    Two layouts are told apart by themselves: folders `A/` and `B/` whose images have equal stems, or else
    images that hold A in their left half and B in their right half.

    Raises:
        ValueError: no such folder, no images in it, or an image of one side without its partner.
    """
    folder = Path(folder)
    check_direction(direction)
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}: give one that holds A|B pairs, or folders A and B")
    if (folder / "A").is_dir() and (folder / "B").is_dir():
        return _two_folders(folder, direction)
    return [_split(pair, direction) for pair in _inputs(_images_below(folder), folder)]


def find_inputs(source: str, *, layout: Layout | None = None, direction: Direction = "AtoB") -> list[Pair]:
    """The images to translate, sorted by name; those of a list in its order.

    Args:
        source: a folder (searched recursively), a file, a glob such as `photos/*.jpg`, or a list of files, one path a
            line: `@list.txt`, or `-` for standard input. The names of a list start below the folder that all share.
            What is there is taken by its name, also one with brackets or stars.
        layout: `inputs`: each file is an input; `side_by_side`: each is an A|B pair; `two_folders`: the
            folder holds `A/` and `B/`. None: two folders if it has them, else inputs.
        direction: which side of a pair is the input.

    Raises:
        ValueError: nothing is there, no image is among it, a line of a list is no image, or the layout does not fit.
    """
    if layout not in (None, "inputs", "side_by_side", "two_folders"):
        raise ValueError(f"layout={layout} is not known: use inputs, side_by_side or two_folders")
    if source == "-" or source.startswith("@"):
        return _find_listed(source, layout, direction)
    folder = Path(source)
    if layout is None and (folder / "A").is_dir() and (folder / "B").is_dir():
        layout = "two_folders"
    if layout == "two_folders":
        if not ((folder / "A").is_dir() and (folder / "B").is_dir()):
            raise ValueError(
                f"input={source} does not hold the two folders A and B that layout=two_folders asks for: make them, or"
                " choose another layout"
            )
        return find_pairs(folder, direction=direction)
    if folder.is_dir():
        pairs = _inputs(_images_below(folder), folder)
    elif folder.is_file():
        pairs = _inputs([folder], folder.parent)
    else:
        root = _glob_root(source)
        pattern = str(Path(glob.escape(str(root)), Path(source).relative_to(root)))
        matches = map(Path, glob.glob(pattern, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
        files = sorted(path for path in matches if path.suffix.lower() in SUFFIXES and path.is_file())
        if not files:
            raise ValueError(f"input={source} is no folder, no file, and no pattern that matches an image")
        pairs = _inputs(files, root)
    return [_split(pair, direction) for pair in pairs] if layout == "side_by_side" else pairs


def _find_listed(source: str, layout: Layout | None, direction: Direction) -> list[Pair]:
    if layout == "two_folders":
        raise ValueError(f"input={source} is a list of files, and layout=two_folders needs a folder that holds A and B")
    files = _listed(source)
    # Without `..`, so that folders can be compared; links are left alone, so that names are as written.
    whole = [Path(os.path.abspath(path)) for path in files]  # noqa: PTH100 - Path.resolve follows links
    pairs = _inputs(whole, Path(os.path.commonpath([path.parent for path in whole])))
    pairs = [replace(pair, input=Source(path)) for pair, path in zip(pairs, files, strict=True)]
    return [_split(pair, direction) for pair in pairs] if layout == "side_by_side" else pairs


def _listed(source: str) -> list[Path]:
    """The files that a list names, each checked. Empty lines are skipped."""
    name = "standard input" if source == "-" else source[1:]
    if source != "-" and not Path(name).is_file():
        raise ValueError(f"there is no list {name}, named by input={source}: write the paths into it, one a line")
    lines = os.fsdecode(sys.stdin.buffer.read() if source == "-" else Path(name).read_bytes()).split("\n")
    seen: dict[str, int] = {}
    files = []
    for number, line in enumerate(lines, start=1):
        if not (text := line.strip()):
            continue
        path, where = Path(text), f"line {number} of {name}: {text}"
        if not path.is_file():
            raise ValueError(f"{where} is {'a folder' if path.is_dir() else 'not there'}: give one file a line")
        if path.suffix.lower() not in SUFFIXES:
            raise ValueError(f"{where} is no image: it should end in {', '.join(SUFFIXES)}")
        first = seen.setdefault(os.path.abspath(path), number)  # noqa: PTH100
        if first != number:
            raise ValueError(f"{where} stands in line {first} already: name each file once")
        files.append(path)
    if not files:
        raise ValueError(f"there is no path in {name}, named by input={source}: write one a line")
    return files


def looks_side_by_side(pair: Pair) -> bool:
    """Whether a whole image that is to be an input is twice as wide as high, as A|B images of squares are."""
    if pair.target is not None or pair.input.path.suffix == ".npy":
        return False
    try:
        with Image.open(pair.input.path) as image:
            return image.width == 2 * image.height
    except OSError:  # whoever reads it will say so
        return False


def _images_below(folder: Path) -> list[Path]:
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not files:
        raise ValueError(f"there is no image in {folder}: it should hold files that end in {', '.join(SUFFIXES)}")
    return files


def _inputs(files: list[Path], root: Path) -> list[Pair]:
    """Name each file by its path below `root`; where two differ in their suffix alone, both keep it."""
    stems = Counter(path.with_suffix("") for path in files)
    named = [path.with_suffix("") if stems[path.with_suffix("")] == 1 else path for path in files]
    owners: dict[Path, Path] = {}
    for name, path in zip(named, files, strict=True):
        if owners.setdefault(name, path) != path:  # x.jpg beside x.png and x.jpg.webp
            raise ValueError(f"{owners[name]} and {path} would both be written as {name.name}: rename one of them")
    return [Pair(name.relative_to(root).as_posix(), Source(path)) for name, path in zip(named, files, strict=True)]


def _glob_root(pattern: str) -> Path:
    """The folder that a glob starts from: its parts before the first wildcard that is no folder's real name."""
    root, *parts = (Path(), *Path(pattern).parts)
    for part in parts:
        if glob.has_magic(part) and not (root / part).is_dir():
            break
        root = root / part
    return root


def _split(pair: Pair, direction: Direction) -> Pair:
    a, b = Source(pair.input.path, "left"), Source(pair.input.path, "right")
    return replace(pair, input=a, target=b) if direction == "AtoB" else replace(pair, input=b, target=a)


def _two_folders(folder: Path, direction: Direction) -> list[Pair]:
    pairs = match(folder / "A", folder / "B")
    return pairs if direction == "AtoB" else [Pair(pair.name, pair.target, pair.input) for pair in pairs]


def match(a: Path, b: Path) -> list[Pair]:
    """Pairs of the images of two folders that have equal relative paths without suffix; those of `a` are the inputs.

    Raises:
        ValueError: no image in a folder, or one without its partner.
    """
    sides = [{pair.name: pair.input for pair in _inputs(_images_below(folder), folder)} for folder in (a, b)]
    for (this, inputs), (other, partners) in permutations(zip((a, b), sides, strict=True)):
        alone = sorted(inputs.keys() - partners.keys())
        if alone:
            raise ValueError(
                f"{inputs[alone[0]].path} has no partner of the same name in {other}"
                f" ({len(alone)} of {len(inputs)} images in {this} have none)"
            )
    return [Pair(name, sides[0][name], sides[1][name]) for name in sorted(sides[0])]
