"""The folder of an exported generator: which folders a new one may replace, and how it replaces them.

The new artifact is built in a temporary folder beside the old one. Then both change places in one step, and the old
one is removed. So there is a whole one at any moment, also if the process is killed or exports run at the same time.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from p2p.deploy.manifest import files_of
from p2p.system.atomic import PREFIX, flush_folder

Check = Callable[[Path, str], None]  # raises a ValueError, which calls the folder as told, if it may not be replaced
RENAME_EXCHANGE, AT_FDCWD = 2, -100  # of renameat2(2)


def place_for(output: Path, *, said: str | None = None, check: Check | None = None) -> Path:
    """The folder that `output` stands for, with links followed; raise a ValueError if no artifact may be put there.

    It may where nothing is, in the place of an empty folder, and of an earlier artifact.

    Args:
        output: the folder, or a link to it.
        said: what errors call it; None: output=...
        check: of a folder that is there; None: `check_replaceable`.
    """
    said = said or f"output={output}"
    folder = Path(os.path.realpath(output))
    recover(folder)
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir():
        which = "is a file" if there == folder else f"cannot be made, because {there} is a file"
        raise ValueError(f"{said} {which}: name another folder")
    if there == folder:
        if Path.cwd().is_relative_to(folder):
            raise ValueError(f"{said} is the folder that this runs in, or holds it: name another folder")
        if os.path.ismount(folder):
            raise ValueError(f"{said} is a mount point, which nothing can replace: name a folder inside of it")
        (check or check_replaceable)(folder, said)
    beside = folder.parent if there == folder else there
    if not os.access(beside, os.W_OK | os.X_OK):
        raise ValueError(f"{said} cannot be made, because {beside} may not be written to: name another folder")
    return folder


def check_replaceable(folder: Path, said: str) -> None:
    """Raise a ValueError, which calls it as `said`, if a folder holds what neither export.py nor a backend wrote."""
    ours = files_of(folder)
    strangers = [path for path in sorted(folder.iterdir()) if path.name not in ours or path.is_dir()]
    if strangers:
        raise ValueError(
            f"{said} holds {strangers[0].name}, which is not of an exported generator and would be lost:"
            " name another folder"
        )


def put(new: Path, folder: Path, *, check: Check | None = None) -> None:
    """Give a whole artifact the name `folder`; on return `new` is what was there before, or nothing.

    Raises:
        ValueError: the folder holds something else by now, see `check`; it stays as it was.
    """
    check = check or check_replaceable
    for path in (new, *new.rglob("*")):
        if path.is_dir():
            flush_folder(path)
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())
    while not _taken(new, folder):
        with _locked(folder.parent), _kept(folder) as there:
            if not there:
                continue
            if not exchange(new, folder):
                _replace_in_two_steps(new, folder, check)
                break
            try:
                check(new, f"output={folder}")
            except ValueError:
                exchange(new, folder)
                raise
            break
    flush_folder(folder.parent)


def _taken(new: Path, folder: Path) -> bool:
    """Rename to where nothing is, or an empty folder."""
    try:
        new.rename(folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


def exchange(one: Path, other: Path) -> bool:
    """Let two folders change names in one step; False where the system or the file system cannot."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    if renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), str(one), None, str(other))


def _replace_in_two_steps(new: Path, folder: Path, check: Check) -> None:
    """Move the old artifact aside and the new one in; a kill between them is what `recover` is for."""
    aside = _aside(folder)
    check(folder, f"output={folder}")
    shutil.rmtree(aside, ignore_errors=True)  # of an export that was killed before it could
    folder.rename(aside)
    new.rename(folder)
    shutil.rmtree(aside, ignore_errors=True)


def recover(folder: Path) -> None:
    """Bring back an artifact that an export had moved aside when it was killed."""
    aside = _aside(folder)
    if aside.is_dir() and not folder.exists():
        with _locked(folder.parent):
            if not folder.exists():  # no export was putting the new one in just then
                aside.rename(folder)


def _aside(folder: Path) -> Path:
    return folder.with_name(f"{PREFIX}{hashlib.sha1(os.fsencode(folder.name)).hexdigest()[:12]}.old")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _kept(folder: Path) -> Iterator[bool]:
    """Lock what is there, so that no other export's `sweep` removes it while it has a temporary name.

    Gives whether anything is there.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    try:
        with suppress(OSError):  # a file system without locks, where `sweep` removes nothing
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield True
    finally:
        os.close(descriptor)
