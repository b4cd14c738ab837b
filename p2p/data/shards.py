"""Images in tar files (the layout of WebDataset) and Parquet files: a million small files are slow to list and to read.

A tar file is read where it lies: what is known of an image is where its bytes begin and end in it. A Parquet file packs
them otherwise, and is unpacked into a tar file in the user's cache first.
"""

from __future__ import annotations

import glob
import hashlib
import io
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from p2p.data.mirror import cache
from p2p.data.walk import Skipped, is_image, is_taken, summary
from p2p.system import atomic
from p2p.system.urls import asked, changed_ns, is_url, located

SUFFIXES = (".tar", ".parquet", ".tar.gz", ".tgz")  # the last two to say that they are not read
RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
IMAGES, NAMES = ("image", "bytes", "jpg", "png", "content"), ("name", "__key__", "key", "path", "file_name")  # columns
ROWS = 64  # of a Parquet file that are in memory


class Member(NamedTuple):
    """A file in a tar file: its name, where its bytes begin, and how many they are."""

    name: str
    start: int
    size: int


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
    for shard in shards_at(source):
        if (other := owners.setdefault(shard.stem, shard)) is not shard:
            raise ValueError(f"the images of {other} and {shard} would have the same names: rename one of the shards")
        tar = _unpacked(shard) if shard.suffix.lower() == ".parquet" else shard
        for member in _members(tar, shard):
            if is_taken(member.name, skipped):  # of two with one name, the one that tar would leave there
                name = f"{shard.stem}/{member.name}"
                found[name] = tar, member._replace(name=name)
    if not found:
        raise ValueError(f"there is no image in input={source}{summary(skipped)}")
    return found


def shards_at(source: str) -> list[Any]:
    """The files that `input=` names, see `images_in`.

    Raises:
        ValueError: no file matches.
    """
    texts = [source]
    if match := RANGE.search(source):
        first, last = match.groups()
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


def _members(tar: Any, shard: Any) -> Iterator[Member]:
    """The files in a tar file, by their headers; errors name the shard that the user knows."""
    try:
        with _opened(tar) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            for info in archive:
                if info.isfile():
                    yield Member(info.name.removeprefix("./").lstrip("/"), info.offset_data, info.size)
            # A header that is damaged ends the loop as if it were the end, which has a block of zeros.
            file.seek(archive.offset)
            if file.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
                raise tarfile.ReadError(f"its end, or the header of a file, is missing at byte {archive.offset:,}")
    except tarfile.TarError as error:
        raise ValueError(f"{shard} is no tar file, or is damaged ({error}): pack it anew, without gzip") from error
    except OSError as error:
        raise ValueError(f"{shard} cannot be read ({error.strerror or error})") from error


def _opened(path: Any) -> BinaryIO:
    if not is_url(path):
        return path.open("rb")
    with asked(path):
        return path.open("rb")


def _unpacked(shard: Any) -> Path:
    """A tar file in the cache that holds the images of a Parquet file, made where it is not there."""
    try:
        facts = f"{shard} {changed_ns(shard)}"
    except OSError as error:
        raise ValueError(f"{shard} cannot be read ({error.strerror or error})") from error
    path = cache("shards") / f"{hashlib.sha256(facts.encode()).hexdigest()[:20]}.tar"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic.replacing(path) as partial, tarfile.open(partial, "w") as archive:
            for name, data in _rows(shard):
                add(archive, name, data)
    return path


def _rows(shard: Any) -> Iterator[tuple[str, bytes]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise ValueError(f"{shard} needs pyarrow, which is not installed: pip install pyarrow") from error
    try:
        with _opened(shard) as file:
            table = parquet.ParquetFile(file)
            columns = table.schema_arrow.names
            image = next((each for each in IMAGES if each in columns), None)
            name = next((each for each in NAMES if each in columns), None)
            if image is None:
                raise ValueError(f"{shard} has no column of images: name it one of {', '.join(IMAGES)}")
            names: set[str] = set()
            for batch in table.iter_batches(ROWS, columns=[each for each in (image, name) if each]):
                for row in batch.to_pylist():
                    data = row[image]
                    data = data.get("bytes", data) if isinstance(data, dict) else data  # Hugging Face's
                    if not isinstance(data, bytes | None):
                        raise ValueError(f"{shard} has no bytes of images in its column {image}: it holds {data!r:.40}")
                    text = f"{len(names):08d}" if name is None or row[name] is None else str(row[name])
                    if text in names:
                        raise ValueError(f"{shard} has two images of the name {text}: give each one of its own")
                    names.add(text)
                    data = data or b""  # none, of which whoever decodes it says that it is empty
                    yield text if is_image(text) else f"{text}.{suffix_of(data)}", data
    except ArrowException as error:
        raise ValueError(f"{shard} is no Parquet file, or is damaged ({error})") from error
    except OSError as error:  # pyarrow has it for damages, too
        raise ValueError(f"{shard} cannot be read, or is damaged ({error.strerror or error})") from error


def suffix_of(data: bytes) -> str:
    """Of a file without a name, by its first bytes."""
    kinds = {b"\xff\xd8": "jpg", b"\x89P": "png", b"RI": "webp", b"II": "tiff", b"MM": "tiff", b"GI": "gif"}
    return kinds.get(bytes(data[:2]), "png")


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    """Add a file to a tar file, whose bytes tell no time and no user."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))
