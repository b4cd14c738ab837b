"""Write many files at the same time, each atomically; one that cannot be made does not stop the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from p2p.config.cli import some_of
from p2p.data.pairs import Pair
from p2p.system import atomic
from p2p.system.cores import available_cores
from p2p.system.plural import counted

AHEAD = 64  # images for each thread that are handed out at once


def write_all(
    pairs: list[Pair], make: Callable[[Pair], bytes], out: Path, *, suffix: str | None = None, skip_existing: bool
) -> int:
    """Write what `make` returns for each pair below a folder, under its name, on all cores; returns how many files.

    Pillow and torch release Python's lock while they work, so threads are enough.

    Args:
        pairs: what to write.
        make: a pair -> the bytes of its file. It is called in several threads.
        out: the folder. It and those inside are made.
        suffix: of the files; None: that of the input.
        skip_existing: leave out pairs whose file exists.

    Raises:
        ValueError: when all others are written, up to five of the sentences that `make` raised.
        OSError: a file cannot be written, such as on a full disk.
    """
    todo = [(pair, out / f"{pair.name}{suffix or pair.input.path.suffix}") for pair in pairs]
    for folder in {path.parent for _, path in todo}:
        folder.mkdir(parents=True, exist_ok=True)
        atomic.sweep(folder)
    missing = [(pair, path) for pair, path in todo if not (skip_existing and path.exists())]
    if len(missing) < len(todo):
        print(
            f"{counted(len(todo) - len(missing), 'file exists already and is', 'files exist already and are')} skipped"
        )

    def write(job: tuple[Pair, Path]) -> str | None:
        pair, path = job
        try:
            atomic.write_at_once(path, make(pair))
        except ValueError as error:
            return str(error)
        return None

    reasons = [
        reason for reason in tqdm(_in_threads(write, missing), total=len(missing), unit="image", disable=None) if reason
    ]
    if reasons:
        raise ValueError(
            f"{len(reasons)} of {len(missing)} could not be made, the others are in {out}: {some_of(reasons)}"
        )
    return len(missing)


def _in_threads(
    write: Callable[[tuple[Pair, Path]], str | None], jobs: list[tuple[Pair, Path]]
) -> Iterator[str | None]:
    threads, left = available_cores(), iter(jobs)
    with ThreadPoolExecutor(threads) as pool:
        # A part at a time: a million futures would take a gigabyte, and Ctrl-C waits for those at work alone.
        while part := list(islice(left, AHEAD * threads)):
            yield from pool.map(write, part)
