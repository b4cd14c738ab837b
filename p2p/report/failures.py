"""Which images could not be translated: a file of them, written as the run goes."""

from __future__ import annotations

import csv
import fcntl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from p2p.data.pairs import Pair

HEADER = ["path", "stage", "reason"]


@contextmanager
def listed(path: Path) -> Iterator[Callable[[Pair, str, str], None]]:
    """Remove what an earlier run has written to a file, and yield a function that adds a line to it.

    The file is CSV in UTF-8, with the bytes of names that are not; without a failure there is none. Lines are written
    one by one, so that a kill leaves all until then.

    Raises:
        ValueError: the file is not of this project.
    """
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
            write([pair.input.path, stage, reason])

        yield add


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
