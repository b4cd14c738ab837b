"""Files in a tar file, which is read where it lies: what is known of one is where its bytes begin and end in it."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from p2p.system.urls import asked, is_url


class Member(NamedTuple):
    """A file in a tar file: its name, where its bytes begin, and how many they are."""

    name: str
    start: int
    size: int


def members_of(tar: Any, shard: Any) -> Iterator[Member]:
    """The files in a tar file, by their headers; errors name the shard that the user knows."""
    try:
        with opened(tar) as file, tarfile.open(fileobj=file, mode="r:") as archive:
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


def opened(path: Any) -> BinaryIO:
    """A file or object, to be read."""
    if not is_url(path):
        return path.open("rb")
    with asked(path):
        return path.open("rb")


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    """Add a file to a tar file, whose bytes tell no time and no user."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))
