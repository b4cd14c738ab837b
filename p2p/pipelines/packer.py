"""Outputs in shards, tar or Parquet files of many images: what the pipelines write is packed as the run goes.

A pipeline writes files to a folder beside, as ever. As soon as all images of a shard are there, or have failed, it is
packed, put in its place whole, and its files are removed: there is room on the disk for few shards at a time.
"""

from __future__ import annotations

import hashlib
import itertools
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

from p2p.data.pairs import Pair
from p2p.data.tar import add
from p2p.pipelines.outcome import Outcome
from p2p.system import atomic
from p2p.system.urls import asked, is_url

Format = Literal["tar", "parquet"]
LOOKS = 4  # at the files of a shard, while it is made


def check_format(format: str) -> None:
    """Raise a ValueError for another word than files, tar and parquet, or where a package is missing."""
    if format not in ("files", *get_args(Format)):
        raise ValueError(f"output_format={format} is not known: use files, tar or parquet")
    if format == "parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError as error:
            raise ValueError("output_format=parquet needs pyarrow: pip install pyarrow") from error


def shards_of(pairs: list[Pair], folder: Any, *, format: Format, size: int) -> list[Any]:
    """Of each pair the shard that its output is in: shard-000000.tar, of the first `size` images, and so on."""
    shards = [folder / f"shard-{number:06d}.{format}" for number in range(-(-len(pairs) // size))]
    return [shards[place // size] for place in range(len(pairs))]


def with_whole_shards(todo: list[Pair], pairs: list[Pair], shards: list[Any]) -> list[Pair]:
    """All pairs whose shard holds one of those that are to be done."""
    names = {pair.name for pair in todo}
    wanted = {shard for pair, shard in zip(pairs, shards, strict=True) if pair.name in names}
    return [pair for pair, shard in zip(pairs, shards, strict=True) if shard in wanted]


@contextmanager
def loose_files(run_dir: Path) -> Iterator[Path]:
    """A folder for what is not packed yet: removed with the block, or by the next run if this one is killed."""
    run_dir.mkdir(parents=True, exist_ok=True)
    atomic.sweep(run_dir)
    with atomic.folder_beside(run_dir / "loose") as folder:
        yield folder


def facts_of_shards(pairs: list[Pair], *, size: int) -> dict[str, Any]:
    """What the history of a folder keeps of its shards: of other images, or another number of them, all are others."""
    names = hashlib.sha256("\n".join(pair.name for pair in pairs).encode(errors="surrogateescape")).hexdigest()
    return {"size": size, "names": names}


@contextmanager
def packing(pairs: list[Pair], shards: dict[str, Any], path: Callable[[str], Path], outcome: Outcome) -> Iterator[None]:
    """Pack every shard as soon as all its images are there or have failed, while the block translates them.

    Args:
        pairs: what is translated: all of a shard.
        shards: by the names of pairs, see `shards_of`.
        path: where a pipeline writes the output of that name.
        outcome: hears of every image; it is then told on.

    Raises:
        OSError: a shard cannot be written.
        ValueError: images are through, and their files are not here.
    """
    names: dict[Any, list[str]] = {}
    for pair in pairs:
        names.setdefault(shards[pair.name], []).append(pair.name)
    left = {shard: each.copy() for shard, each in names.items()}  # of which no file was seen yet
    every = max(1, max(map(len, left.values()), default=1) // LOOKS)
    through, tell = itertools.count(1), outcome.on_image

    def pack() -> None:
        for shard, unseen in list(left.items()):
            while unseen and (unseen[-1] in outcome.failures or path(unseen[-1]).is_file()):
                unseen.pop()
            if unseen:
                continue
            there = {name: path(name) for name in names[shard] if name not in outcome.failures}
            if there:
                write({f"{name}{each.suffix}": each for name, each in there.items()}, shard)
            for each in there.values():
                each.unlink()
            del left[shard]

    def on_image() -> None:
        tell()
        if next(through) % every == 0:
            pack()

    outcome.on_image = on_image
    yield
    pack()
    if left:
        shard, unseen = next(iter(left.items()))
        raise ValueError(
            f"{shard} cannot be written, because this machine has no {path(unseen[-1])}: with pipeline=ray all machines"
            " must share the folder run_dir="
        )


def write(files: dict[str, Path], shard: Any) -> None:
    """Make or replace a shard of files by their names in it. It is there whole, or as it was.

    Raises:
        OSError: it cannot be written.
    """
    if not is_url(shard):
        with atomic.replacing(shard, durable=False) as partial:
            _fill(partial, files, shard.suffix)
        return
    whole = next(iter(files.values())).with_name(shard.name)
    _fill(whole, files, shard.suffix)
    with asked(shard):
        shard.fs.put_file(str(whole), shard.path)
    whole.unlink()


def _fill(path: Path, files: dict[str, Path], suffix: str) -> None:
    if suffix == ".tar":
        with tarfile.open(path, "w") as archive:
            for name, each in files.items():
                add(archive, name, each.read_bytes())
        return
    import pyarrow
    from pyarrow import parquet

    columns = {"name": list(files), "image": [each.read_bytes() for each in files.values()]}
    types = {"name": pyarrow.string(), "image": pyarrow.large_binary()}
    table = pyarrow.table({key: pyarrow.array(column, types[key]) for key, column in columns.items()})
    parquet.write_table(table, path, compression="none")
