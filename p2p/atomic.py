"""Files that replace others: written atomically, even if the process is killed.

A file is written under a temporary name beside its target and renamed when it is complete, so a reader sees the old
contents or the new ones, never a part. The temporary name is random: two processes that write one file never share
it. It is also short, so every name that the file system takes can be written. The process that writes holds a lock
on the temporary file (flock, which the system releases when a process dies): `sweep` removes what dead ones left.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX, SUFFIX = ".p2p-", ".partial"


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield the path of an empty temporary file, to be filled; it replaces `path` when the block ends.

    If the block raises, the temporary file is removed and `path` stays as it was.

    Args:
        path: the file to be made or replaced; its folder exists.
        durable: flush the file and its folder to the disk (fsync), so that the file also survives a power cut.

    Raises:
        OSError: the file cannot be written; its `filename` is `path`.
    """
    try:
        partial, descriptor = _make(path.parent)
        try:
            yield partial
            if durable:
                os.fsync(descriptor)
            partial.replace(path)
        except BaseException:
            with suppress(OSError):  # the first error is the one to raise
                partial.unlink()
            raise
        finally:
            os.close(descriptor)
        if durable:
            flush_folder(path.parent)
    except OSError as error:
        if error.errno is not None and (error.filename is None or Path(error.filename).name.startswith(PREFIX)):
            error.filename, error.filename2 = str(path), None
        raise


def write(path: Path, data: bytes | str, *, durable: bool = True) -> None:
    """Replace a file's contents, text in UTF-8; see `replacing`."""
    with replacing(path, durable=durable) as partial:
        partial.write_bytes(data.encode() if isinstance(data, str) else data)


def sweep(folder: Path) -> None:
    """Remove temporary files that no living process writes to; of a folder that is not there, none."""
    with suppress(OSError), os.scandir(folder) as entries:
        for name in [entry.name for entry in entries if entry.name.startswith(PREFIX)]:
            if name.endswith(SUFFIX):
                _remove_if_abandoned(folder / name)


def flush_folder(folder: Path) -> None:
    """Flush a folder's list of names to the disk, where its file system can."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems refuse
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make(folder: Path) -> tuple[Path, int]:
    """A new temporary file, and a descriptor that holds its lock."""
    while True:
        path = folder / f"{PREFIX}{secrets.token_hex(6)}{SUFFIX}"
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # `sweep` of another process was here before us: it removes the file
            os.close(descriptor)
            continue
        except OSError:  # a file system without locks, where `sweep` removes nothing
            return path, descriptor
        if os.fstat(descriptor).st_nlink:
            return path, descriptor
        os.close(descriptor)  # removed between its creation and our lock


def _remove_if_abandoned(path: Path) -> None:
    with suppress(OSError):  # it was renamed meanwhile, is in use, or cannot be locked
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
        finally:
            os.close(descriptor)
