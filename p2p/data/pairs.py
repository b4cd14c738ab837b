"""Find the images: pairs to train on, inputs to translate."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from p2p.data.halves import shape_of_halves, size_of
from p2p.data.lists import listed
from p2p.data.pages import Named, Pages, paged
from p2p.data.remote import images_at
from p2p.data.shards import images_in, is_shard
from p2p.data.tar import Member
from p2p.data.walk import Skipped, folders_in, images_below, images_like, is_image
from p2p.system.urls import is_url, located

Direction = Literal["AtoB", "BtoA"]
PairLayout = Literal["side_by_side", "two_folders"]
Layout = Literal["side_by_side", "two_folders", "inputs"]

# Names, in any case, of the folders that hold the two sides: what direction=AtoB takes for input and for target.
SIDES = (("A", "B"), ("input", "target"), ("inputs", "targets"), ("source", "target"), ("sources", "targets"))
BESIDE = "beside the two folders"


class Source(NamedTuple):
    """Where an image is: a file, or the left or right half of one; str() says it to the user.

    `shape` is the width over height that a half should have, within `p2p.data.halves.SAME`; None: any. `page` is the
    place of a page in a TIFF file of several, see `p2p.codecs.tiff.pages`; None: the first. `member` is the image's
    file in a tar file, which `path` is then.
    """

    path: Path
    half: Literal["left", "right"] | None = None
    shape: float | None = None
    page: int | None = None
    member: Member | None = None

    def __str__(self) -> str:
        return str(self.path) if self.member is None else f"{self.path} ({self.member.name})"


@dataclass(frozen=True, slots=True)
class Pair:
    """An input and, where it is known, the target that the generator should make of it.

    `name` is the input's path below the folder that was searched, without suffix: outputs mirror it.
    """

    name: str
    input: Source
    target: Source | None = None


def check_direction(direction: str, *, key: str = "direction") -> None:
    """Raise a ValueError, which names the setting, if it is none."""
    if direction not in get_args(Direction):
        raise ValueError(f"{key}={direction} is not known: use AtoB or BtoA")


def check_layout(layout: str | None, *, key: str = "layout", known: tuple[str, ...] = get_args(PairLayout)) -> None:
    """Raise a ValueError, which names the setting, if it is none."""
    if layout is not None and layout not in known:
        raise ValueError(f"{key}={layout} is not known: use {', '.join(known)} or null")


def check_outside(output: Path, folder: Path) -> None:
    """Raise a ValueError if what is written to `output` would be found among the images of `folder`."""
    if folder.resolve() in (output.resolve(), *output.resolve().parents):
        raise ValueError(f"{output} is in {folder}, where it would be read the next time: choose another output")


def sides_of(folder: Path) -> tuple[Path, Path] | None:
    """The two folders in a folder that hold the sides, by the names in SIDES; None if there are no such two."""
    folders = folders_in(folder)
    for a, b in SIDES:
        if a.lower() in folders and b.lower() in folders:
            return folders[a.lower()], folders[b.lower()]
    return None


def find_pairs(
    folder: Path | str,
    *,
    direction: Direction = "AtoB",
    layout: PairLayout | None = None,
    pages: Pages = "first",
    skipped: Skipped | None = None,
) -> list[Pair]:
    """The training pairs in a folder, sorted by name.

    Args:
        folder: holds two folders, named as in SIDES, whose images have equal relative paths without suffix
            ("two_folders"), or images with A in their left half and B in their right half ("side_by_side").
        direction: which side is the input.
        layout: None: two folders if there are such, else side by side, if the images' shapes agree with that, see
            `p2p.data.halves`. With "side_by_side" they may have any.
        pages: "all": each page of a TIFF is an image, x_p000, x_p001 and so on.
        skipped: is told what is there and not taken.

    Raises:
        ValueError: no such folder, one that cannot be opened, no images in it, an image of one side without its
            partner, or images that are no pairs.
    """
    folder, skipped = Path(folder), {} if skipped is None else skipped
    check_direction(direction)
    check_layout(layout)
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}: give one that holds A|B pairs, or folders A and B")
    sides = None if layout == "side_by_side" else sides_of(folder)
    if sides is not None:
        for path in sorted(folder.iterdir()):
            if path not in sides and (path.is_dir() or is_image(path.name)) and not path.name.startswith("."):
                skipped.setdefault(BESIDE, []).append(path.name)
        return pairs_of(*sides, direction=direction, pages=pages, skipped=skipped)
    if layout == "two_folders":
        raise ValueError(f"{folder} does not hold the two folders, A and B, that layout=two_folders asks for")
    files = images_below(folder, skipped)
    shape = None
    if layout is None:
        _check_one_sided(folder, files)
        shape = shape_of_halves(files, folder)
    return [_split(pair, direction, shape) for pair in _inputs(files, folder, pages)]


def pairs_of(
    a: Path, b: Path, *, direction: Direction, pages: Pages = "first", skipped: Skipped | None = None
) -> list[Pair]:
    """Pairs of the images of two folders, sorted by name: see `match`; with BtoA those of `b` are the inputs."""
    pairs = match(a, b, pages=pages, skipped=skipped)
    return pairs if direction == "AtoB" else [Pair(pair.name, pair.target, pair.input) for pair in pairs]


def match(a: Path, b: Path, *, pages: Pages = "first", skipped: Skipped | None = None) -> list[Pair]:
    """Pairs of the images of two folders that have equal relative paths without suffix; those of `a` are the inputs.

    Raises:
        ValueError: no image in a folder, or one without its partner.
    """
    skipped = {} if skipped is None else skipped
    sides = [
        {pair.name: pair.input for pair in _inputs(images_below(folder, skipped), folder, pages)} for folder in (a, b)
    ]
    for (this, inputs), (other, partners) in permutations(zip((a, b), sides, strict=True)):
        alone = sorted(inputs.keys() - partners.keys())
        if alone:
            raise ValueError(
                f"{inputs[alone[0]].path} has no partner of the same name in {other}"
                f" ({len(alone)} of {len(inputs)} images in {this} have none)"
            )
    return [Pair(name, sides[0][name], sides[1][name]) for name in sorted(sides[0])]


def find_inputs(
    source: str,
    *,
    layout: Layout | None = None,
    direction: Direction = "AtoB",
    pages: Pages = "first",
    skipped: Skipped | None = None,
) -> list[Pair]:
    """The images to translate, sorted by name; those of a list in its order.

    Args:
        source: a folder (searched recursively), a file, a glob such as `photos/*.jpg`, one of these at a URL such as
            `s3://bucket/photos`, or a list of files, one path a line: `@list.txt`, or `-` for standard input. The names
            of a list start below the folder that all share. What is there is taken by its name, also one with brackets
            or stars.
        layout: `inputs`: each file is an input; `side_by_side`: each is an A|B pair; `two_folders`: the
            folder holds `A/` and `B/`, or others of SIDES. None: two folders if it has them, else inputs.
        direction: which side of a pair is the input.
        pages: see `find_pairs`.
        skipped: is told what is there and not taken.

    Raises:
        ValueError: nothing is there, no image is among it, a line of a list is no image, or the layout does not fit.
    """
    check_layout(layout, known=("inputs", *get_args(PairLayout)))
    skipped = {} if skipped is None else skipped
    if source == "-" or source.startswith("@"):
        pairs = _find_listed(source, layout, pages)
    elif is_shard(source):
        if layout == "two_folders" or pages == "all":
            raise ValueError(f"layout=two_folders and pages=all need a folder of files, not input={source}")
        pairs = _in_shards(source, skipped)
    elif is_url(source):
        if layout == "two_folders" or pages == "all":
            raise ValueError(f"layout=two_folders and pages=all need a folder of this machine, not input={source}")
        pairs = _inputs(*images_at(source, skipped), pages)
    elif layout in (None, "two_folders") and sides_of(Path(source)) is not None:
        return find_pairs(source, direction=direction, layout="two_folders", pages=pages, skipped=skipped)
    elif layout == "two_folders":
        raise ValueError(
            f"input={source} does not hold the two folders A and B that layout=two_folders asks for: make them, or"
            " choose another layout"
        )
    elif Path(source).is_dir():
        pairs = _inputs(images_below(source, skipped), Path(source), pages)
    elif Path(source).is_file():
        folder, name = os.path.split(Path(source))
        pairs = _inputs([os.path.join(folder or ".", name)], Path(folder), pages)  # noqa: PTH118
    else:
        files, root = images_like(source, skipped)
        if not files:
            raise ValueError(f"input={source} is not a folder, not a file, and not a pattern that matches an image")
        pairs = _inputs(files, Path(root), pages)
    return [_split(pair, direction) for pair in pairs] if layout == "side_by_side" else pairs


def looks_side_by_side(pair: Pair) -> bool:
    """Whether a whole image that is to be an input is twice as wide as high, as A|B images of squares are."""
    if pair.target is not None or pair.input.path.suffix == ".npy":
        return False
    size = size_of(pair.input.path)
    return size is not None and size[0] == 2 * size[1]


def _find_listed(source: str, layout: Layout | None, pages: Pages) -> list[Pair]:
    if layout == "two_folders":
        raise ValueError(f"input={source} is a list of files, and layout=two_folders needs a folder that holds A and B")
    files = listed(source)
    if is_url(files[0]):
        scheme = str(files[0]).partition("://")[0]
        below = [os.path.dirname(str(path).removeprefix(f"{scheme}://")) for path in files]  # noqa: PTH120
        return _inputs([str(path) for path in files], f"{scheme}://{os.path.commonpath(below)}", pages)
    # Without `..` and `//`, so that folders can be compared; links are left alone, so that names are as written.
    whole = [os.path.abspath(path).replace("//", "/") for path in files]  # noqa: PTH100 - Path.resolve follows links
    root = Path(os.path.commonpath([os.path.dirname(path) for path in whole]))  # noqa: PTH120
    as_written = dict(zip(map(Path, whole), files, strict=True))
    pairs = _inputs(whole, root, pages)
    return [replace(pair, input=pair.input._replace(path=as_written[pair.input.path])) for pair in pairs]


def _in_shards(source: str, skipped: Skipped) -> list[Pair]:
    images = images_in(source, skipped)
    pairs = _inputs(list(images), "", "first")
    return [
        replace(pair, input=Source(path, member=member))
        for pair, (path, member) in zip(pairs, images.values(), strict=True)
    ]


def _inputs(files: list[str], root: Path | str, pages: Pages) -> list[Pair]:
    """Name each file by its path below `root`, which all begin with; of two that differ in suffix alone, with it.

    A page of several is named by its number, too. By text, because a million files would take half a minute by `Path`.
    """
    start = len(os.path.join(root, ""))  # noqa: PTH118
    below = [path[start:] for path in files]
    stems = [os.path.splitext(path)[0] for path in below]  # noqa: PTH122
    alike = Counter(stems)
    names = [stem if alike[stem] == 1 else path for stem, path in zip(stems, below, strict=True)]
    for name, path in zip(names, files, strict=True):
        if ".." in name and ".." in name.split("/"):  # of a URL in a list
            raise ValueError(f"{path} has .. in it, and outputs are named by their inputs: write it without")
    owners: dict[str, str] = {}
    for name, path in zip(names, files, strict=True):
        if owners.setdefault(name, path) != path:  # x.jpg beside x.png and x.jpg.webp
            raise ValueError(
                f"{owners[name]} and {path} would both be written as {Path(name).name}: rename one of them"
            )
    images: list[Named] = [(name, path, None) for name, path in zip(names, files, strict=True)]
    images = images if pages == "first" else paged(images)
    place = located if is_url(str(root)) else Path
    return [Pair(name.replace(os.sep, "/"), Source(place(path), page=page)) for name, path, page in images]


def _split(pair: Pair, direction: Direction, shape: float | None = None) -> Pair:
    a, b = (pair.input._replace(half=half, shape=shape) for half in ("left", "right"))
    return replace(pair, input=a, target=b) if direction == "AtoB" else replace(pair, input=b, target=a)


def _check_one_sided(folder: Path, files: list[str]) -> None:
    """Refuse what are sides of pairs by the names of their folders, or of all their images."""
    ways_out = f"rename them {folder / 'A'} and {folder / 'B'}, or add data.layout=side_by_side if each image is a pair"
    folders = folders_in(folder)
    for a, b in SIDES:
        for this, other in ((a, b), (b, a)):
            if this.lower() in folders:
                raise ValueError(f"{folders[this.lower()]} has no folder {other} beside it: {ways_out}")
    names: dict[str, set[str]] = {}
    for path in files:
        first, _, rest = path[len(os.path.join(folder, "")) :].partition(os.sep)  # noqa: PTH118
        names.setdefault(first, set()).add(os.path.splitext(rest)[0])  # noqa: PTH122
        if not rest or len(names) > 2:
            return
    if len(names) == 2 and len({frozenset(each) for each in names.values()}) == 1:
        first, second = names
        raise ValueError(
            f"the images in {folder / first} and {folder / second} have equal names, as inputs and targets do:"
            f" {ways_out}"
        )
