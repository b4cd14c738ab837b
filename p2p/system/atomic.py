"""Files and folders that replace others: written atomically, even if the process is killed.

A file is written under a temporary name beside its target and renamed when it is complete, so a reader sees the old
contents or the new ones, never a part. The temporary name is random: two processes that write one file never share
it. It is also short, so every name that the file system takes can be written. The process that writes holds a lock
on the temporary file (flock, which the system releases when a process dies): `sweep` removes what dead ones left.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX, SUFFIX = ".p2p-", ".partial"
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO)  # what write() reports without a name
NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK)


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
        _name(error, path)
        raise


def write(path: Path, data: bytes | str, *, durable: bool = True) -> None:
    """Replace a file's contents, text in UTF-8; see `replacing`."""
    with replacing(path, durable=durable) as partial:
        partial.write_bytes(data.encode() if isinstance(data, str) else data)


def link(source: Path, path: Path) -> None:
    """Make `path` another name of a whole file, or a copy of it where the file system has no hard links.

    Raises:
        OSError: it cannot be made; its `filename` is `path`.
    """
    if path.exists() and path.samefile(source):  # a rename would leave both names
        return
    partial = path.with_name(f"{PREFIX}{secrets.token_hex(6)}{SUFFIX}")
    try:
        os.link(source, partial)
    except OSError as error:
        if error.errno not in NO_LINKS:
            _name(error, path)
            raise
        with replacing(path) as copy:
            shutil.copyfile(source, copy)
    else:
        partial.replace(path)
        flush_folder(path.parent)


def write_at_once(path: Path, data: bytes) -> None:
    """The same for one of many files: not flushed to the disk, at which each would take milliseconds.

    Raises:
        OSError: the file cannot be written; its `filename` is `path`.
    """
    try:
        done = nameless(path, data)
    except OSError as error:
        _name(error, path)
        raise
    if not done:
        write(path, data, durable=False)


def nameless(path: Path, data: bytes) -> bool:
    """Write a new file that gets its name when it is whole, or return False where that cannot be done.

    Where the system (Linux) and the file system can, a folder is changed once a file in place of twice, by a rename;
    workers wait for each other at that. Nor does one that is killed leave anything behind.
    """
    if not hasattr(os, "O_TMPFILE"):
        return False
    try:
        fd = os.open(path.parent, os.O_TMPFILE | os.O_WRONLY, 0o666)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
            return False
        raise
    try:
        with memoryview(data) as left:
            while left:
                left = left[os.write(fd, left) :]
        try:
            os.link(f"/proc/self/fd/{fd}", path, src_dir_fd=fd)  # given any folder, Python follows the link
        except OSError as error:
            # It is to be replaced; the file system or the user may not link; there is no /proc.
            if error.errno in (errno.EEXIST, errno.EPERM, errno.EXDEV, errno.EOPNOTSUPP, errno.ENOENT):
                return False
            raise
        return True
    finally:
        os.close(fd)


@contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """Yield a new folder beside `path`, to be filled and renamed; what has its name in the end is removed.

    Raises:
        OSError: the disk refuses; its `filename` is `path` where it would name what is temporary, or nothing.
    """
    try:
        partial, descriptor = _make(path.parent, directory=True)
        try:
            yield partial
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            os.close(descriptor)
    except OSError as error:
        _name(error, path)
        raise


@contextmanager
def disk_of(folder: Path) -> Iterator[None]:
    """Raise errors of the disk that a library's log, say, met there as what they are, and with a name.

    A write has none to tell, and Lightning (2.6) says of a figure that cannot be written that it "is not supported".

    Raises:
        OSError: of the disk; its `filename` is `folder` where it had none.
    """
    try:
        yield
    except (OSError, ValueError) as error:
        cause = error.__cause__ if isinstance(error, ValueError) else error
        if not isinstance(cause, OSError) or cause.errno not in DISK:
            raise
        cause.filename = cause.filename or str(folder)
        raise cause from None


def sweep(folder: Path) -> None:
    """Remove temporary files and folders that no living process writes to; of a folder that is not there, none."""
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


def _make(folder: Path, *, directory: bool = False) -> tuple[Path, int]:
    """A new temporary file, or folder, and a descriptor that holds its lock."""
    while True:
        path = folder / f"{PREFIX}{secrets.token_hex(6)}{SUFFIX}"
        if directory:
            path.mkdir()
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:  # removed by `sweep` of another process
                continue
        else:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # `sweep` of another process was here before us: it removes what we made
            os.close(descriptor)
            continue
        except OSError:  # a file system without locks, where `sweep` removes nothing
            return path, descriptor
        if path.exists():
            return path, descriptor
        os.close(descriptor)  # removed between its creation and our lock


def _name(error: OSError, path: Path) -> None:
    """Have an error of the disk name the file or folder that was to be made."""
    if error.errno is not None and (error.filename is None or PREFIX in str(error.filename)):
        error.filename, error.filename2 = str(path), None


def _remove_if_abandoned(path: Path) -> None:
    with suppress(OSError):  # it was renamed meanwhile, is in use, or cannot be locked
        is_folder = path.is_dir() and not path.is_symlink()
        descriptor = os.open(path, (os.O_RDONLY if is_folder else os.O_RDWR) | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path) if is_folder else path.unlink()
        finally:
            os.close(descriptor)
