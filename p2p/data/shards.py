"""Images in tar (the layout of WebDataset) and Parquet files: a million small files are slow to list and to read."""

from __future__ import annotations

import glob
import re
from pathlib import Path
from typing import Any

from p2p.data import parquet
from p2p.data.tar import Member, members_of
from p2p.data.walk import Skipped, is_taken, summary
from p2p.system.urls import asked, is_url, located

SUFFIXES = (".tar", ".parquet", ".tar.gz", ".tgz")  # the last two to say that they are not read
RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
MOST = 100_000  # shards that a pattern may stand for


def is_shard(source: str) -> bool:
    """Whether that names one, or several by a pattern."""
    return source.lower().endswith(SUFFIXES)


def images_in(source: str, skipped: Skipped) -> dict[str, tuple[Path, Member]]:
    """All images in shards by their names, with the tar file that each is in, in the order of the shards.

    Args:
        source: a path or URL; {000000..000009} stands for these numbers, * for anything.
        skipped: is told what is there and not taken.

    Raises:
        ValueError: there is none, one cannot be read, or two have one name.
    """
    found: dict[str, tuple[Path, Member]] = {}
    owners: dict[str, Any] = {}
    shards = shards_at(source)
    for shard in shards:
        if (other := owners.setdefault(shard.stem, shard)) is not shard:
            raise ValueError(f"the images of {other} and {shard} would have the same names: rename one of the shards")
    packed = [shard for shard in shards if shard.suffix.lower() == ".parquet"]
    tars = dict(zip(packed, parquet.unpacked(packed), strict=True))
    for shard in shards:
        tar = tars.get(shard, shard)
        for member in members_of(tar, shard):
            if is_taken(member.name, skipped):  # of two with one name, the one that tar would leave there
                name = f"{shard.stem}/{member.name}"
                found[name] = tar, member._replace(name=name)
    if not found:
        raise ValueError(f"there is no image in input={source}{summary(skipped)}")
    return found


def shards_at(source: str) -> list[Any]:
    """The files that `input=` names, see `images_in`.

    Raises:
        ValueError: no file matches, or the pattern stands for too many.
    """
    texts = [source]
    if match := RANGE.search(source):
        first, last = match.groups()
        if (count := int(last) + 1 - int(first)) > MOST:
            raise ValueError(
                f"input={source} stands for {count:,} shards: use {MOST:,} or fewer, or * for what is there"
            )
        numbers = [f"{number:0{len(first)}}" for number in range(int(first), int(last) + 1)]
        texts = [source[: match.start()] + number + source[match.end() :] for number in numbers]
    found: list[Any] = []
    for text in texts:
        place = located(text)
        if not glob.has_magic(text):
            found.append(place)
        elif is_url(text):
            try:
                with asked(text):
                    found += [located(place.fs.unstrip_protocol(path)) for path in sorted(place.fs.glob(place.path))]
            except OSError as error:
                raise ValueError(f"input={source} cannot be read ({error.strerror})") from error
        else:
            found += [Path(path) for path in sorted(glob.glob(text))]  # noqa: PTH207
    if not found:
        raise ValueError(f"input={source} matches no file: is the pattern right?")
    return found
