"""Find the pairs of a data set's splits, in each of the common folder layouts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from p2p.data.pages import Pages, left_out
from p2p.data.pairs import SIDES, Direction, Pair, PairLayout, find_pairs, pairs_of, sides_of
from p2p.data.walk import Skipped, folders_in, summary
from p2p.system.plural import counted

OTHER_NAMES = {"val": ("valid", "validation", "test")}  # of a split, where it is not there by its own


def find_split(
    root: Path,
    split: str,
    *,
    key: str,
    direction: Direction,
    layout: PairLayout | None = None,
    pages: Pages = "first",
) -> tuple[list[Pair], str | None]:
    """The pairs of a split, sorted by name, and a line about them if there is something to say.

    That is where they are, if it is not `root/split`, and what was skipped. Names are taken in any case. A split is

    - `root/split`, with A|B images or with two folders, see `p2p.data.pairs.find_pairs`, or
    - two folders `root/splitA` and `root/splitB`, also with `_` or `-`, or
    - two folders `root/A/split` and `root/B/split`,

    with each of `p2p.data.pairs.SIDES` for A and B. Where there is no val, valid, validation or test stands for it.

    Args:
        root: the folder of the data set.
        split: name of the split's folder.
        key: the setting that names it, for messages.
        direction, layout, pages: see `p2p.data.pairs.find_pairs`.

    Raises:
        ValueError: it is in none of these places, or what is there is refused by `find_pairs`.
    """
    if not split:
        raise ValueError(f"{key} has no value: name the folder of {root} that holds these pairs")
    if not root.is_dir():
        raise ValueError(f"there is no folder {root}, named by data.root: point it at a folder of image pairs")
    skipped: Skipped = {}
    for name in (split, *OTHER_NAMES.get(split, ())):
        folders = next(_places(root, name, layout), None)
        if folders is None:
            continue
        if len(folders) == 2:
            pairs = pairs_of(*folders, direction=direction, pages=pages, skipped=skipped)
        else:
            pairs = find_pairs(*folders, direction=direction, layout=layout, pages=pages, skipped=skipped)
        more = left_out(pair.input.path for pair in pairs) if pages == "first" else None
        if folders == [root / split] and not skipped and not more:
            return pairs, None
        said = f"{counted(len(pairs), 'pair')} in {' and '.join(map(str, folders))}{summary(skipped)}"
        return pairs, said + (f"; {more}: data.pages=all takes each" if more else "")
    raise ValueError(
        f"there is no folder {root / split}: put the {key.removeprefix('data.')} pairs there, or name another folder of"
        f" {root} with {key}=...; {split}A and {split}B, or A/{split} and B/{split}, will do, too"
    )


def _places(root: Path, split: str, layout: PairLayout | None) -> Iterator[list[Path]]:
    """What there is of the places where a split can be: a folder, or the two folders of its sides."""
    folders = folders_in(root)
    if (root / split).is_dir():  # also one with parts, or elsewhere
        yield [root / split]
    elif split.lower() in folders:
        yield [folders[split.lower()]]
    if layout == "side_by_side":
        return
    for a, b in SIDES:
        for between in ("", "_", "-"):
            names = [f"{split}{between}{side}".lower() for side in (a, b)]
            if all(name in folders for name in names):
                yield [folders[name] for name in names]
    if (sides := sides_of(root)) is not None:
        below = [folders_in(side).get(split.lower()) for side in sides]
        if all(below):
            yield below
