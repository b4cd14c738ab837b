"""Which images could not be translated: a file of them, written as the run goes."""

from __future__ import annotations

import csv
import fcntl
import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from p2p.data.pairs import Pair
from p2p.system import urls
from p2p.system.urls import is_url

HEADER = ["path", "stage", "reason"]


@contextmanager
def listed(path: Path) -> Iterator[Callable[[Pair, str, str], None]]:
    """Remove what an earlier run has written to a file, and yield a function that adds a line to it.

    The file is CSV in UTF-8, with the bytes of names that are not; without a failure there is none. Lines are written
    one by one, so that a kill leaves all until then.

    Raises:
        ValueError: the file is not of this project.
    """
    if is_url(path):
        with _listed_at(path) as add:
            yield add
        return
    _remove(path)
    with ExitStack() as stack:
        write = None

        def add(pair: Pair, stage: str, reason: str) -> None:
            nonlocal write
            if write is None:
                # Appended: another run may write to the same folder.
                file = stack.enter_context(path.open("a", 1, encoding="utf-8", errors="surrogateescape", newline=""))
                with suppress(OSError):  # a file system without locks
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                write = csv.writer(file, lineterminator="\n").writerow
                if not file.tell():
                    write(HEADER)
            write([pair.input, stage, reason])

        yield add


@contextmanager
def _listed_at(url: Path) -> Iterator[Callable[[Pair, str, str], None]]:
    """The same at a URL, where an object cannot be added to: it is written when the block ends."""
    text = io.StringIO(newline="")
    write = csv.writer(text, lineterminator="\n").writerow
    with suppress(FileNotFoundError):
        if not urls.read(url).startswith(",".join(HEADER).encode()):
            raise ValueError(f"{url} is not p2p's, and would be written to: move it, or choose another output")
        urls.remove(url)
    try:
        yield lambda pair, stage, reason: write([pair.input, stage, reason])
    finally:
        if text.tell():
            lines = f"{','.join(HEADER)}\n{text.getvalue()}"
            urls.write(url, lines.encode(errors="surrogateescape"))


def _remove(path: Path) -> None:
    try:
        file = path.open(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return
    with file:
        if file.readline() not in ("", ",".join(HEADER) + "\n"):
            raise ValueError(f"{path} is not p2p's, and would be written to: move it, or choose another output")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # a run that writes to it keeps it
            return
        except OSError:  # a file system without locks
            pass
        path.unlink()
