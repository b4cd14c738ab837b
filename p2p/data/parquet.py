"""Images in Parquet files, which pack them otherwise than files: they are unpacked into tar files in the user's cache.

The cache keeps the copies that were used last. A process that uses any holds a lock on it, and removes none of others.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from p2p.data.mirror import cache
from p2p.data.tar import add, opened
from p2p.data.walk import is_image
from p2p.system import atomic
from p2p.system.urls import changed_ns

IMAGES, NAMES = ("image", "bytes", "jpg", "png", "content"), ("name", "__key__", "key", "path", "file_name")  # columns
ROWS = 64  # of a Parquet file that are in memory
KEPT_BYTES = 20 << 30  # of copies in the cache, without those of the run
LOCK = ".lock"
USED = ".used"  # an empty file beside each copy, of the time of its last use: the copy's own time says when it was made
_lock: int | None = None  # its descriptor, while this process may read copies


def unpacked(shards: list[Any]) -> list[Path]:
    """For each Parquet file a tar file in the cache that holds its images, made where it is not there.

    Raises:
        ValueError: one cannot be read.
    """
    if not shards:
        return []
    folder = cache("shards")
    paths = [folder / f"{_key(shard)}.tar" for shard in shards]
    folder.mkdir(parents=True, exist_ok=True)
    _use(folder, paths)
    for shard, path in zip(shards, paths, strict=True):
        if not path.is_file():
            with atomic.replacing(path) as partial, tarfile.open(partial, "w") as archive:
                for name, data in _rows(shard):
                    add(archive, name, data)
        path.with_suffix(USED).touch()
    return paths


def _key(shard: Any) -> str:
    try:
        facts = f"{shard} {changed_ns(shard)}"
    except OSError as error:
        raise ValueError(f"{shard} cannot be read ({error.strerror or error})") from error
    return hashlib.sha256(facts.encode()).hexdigest()[:20]


def _use(folder: Path, wanted: list[Path]) -> None:
    """Keep other processes from removing copies until this one ends; before that, where nobody reads any, make room."""
    global _lock
    if _lock is None:
        _lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    with suppress(OSError):  # another process reads, or the file system has no locks
        fcntl.flock(_lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        atomic.sweep(folder)
        trim(folder, wanted)
    with suppress(OSError):
        fcntl.flock(_lock, fcntl.LOCK_SH)


def trim(folder: Path, wanted: list[Path]) -> None:
    """Remove the copies that were used least recently, down to KEPT_BYTES of those that are not wanted."""
    others, held = set(folder.glob("*.tar")).difference(wanted), 0
    for path in sorted(others, key=_last_use, reverse=True):
        held += path.stat().st_size
        if held > KEPT_BYTES:
            path.unlink()
            path.with_suffix(USED).unlink(missing_ok=True)


def _last_use(path: Path) -> float:
    used = path.with_suffix(USED)
    return (used if used.exists() else path).stat().st_mtime


def _rows(shard: Any) -> Iterator[tuple[str, bytes]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise ValueError(f"{shard} needs pyarrow, which is not installed: pip install pyarrow") from error
    try:
        with opened(shard) as file:
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
