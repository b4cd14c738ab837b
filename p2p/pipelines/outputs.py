"""Find out which files in an output folder are up to date, and which stand in the way of an output.

The folder's history, `.p2p.json`, says which settings wrote to it, and since when, by the clock of its file system:
`[{"since": ns, "settings": {...}}, ...]`. An output belongs to the settings of the time at which it was written.
"""

from __future__ import annotations

import json
import os
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from p2p.data.pairs import Pair
from p2p.system import atomic, urls
from p2p.system.urls import is_url, located

HISTORY = ".p2p.json"
KEPT = 100  # changes of settings
OTHER, EMPTY, CHANGED = "from other settings or of unknown origin", "empty", "older than their inputs"

History = list[tuple[int, dict]]


def source_of(pair: Pair) -> str:
    """Where inputs come from: the folder that their names start below, and which half of them is taken."""
    path = pair.input.path
    folder = path.parent if pair.input.member is not None else path.parents[pair.name.count("/")]
    return f"{folder if is_url(folder) else os.path.realpath(folder)} {pair.input.half or ''}".rstrip()


def read_history(folder: Path) -> History:
    """What a folder's history says; nothing if there is none that can be read."""
    try:
        known = json.loads(urls.read(folder / HISTORY) if is_url(folder) else (folder / HISTORY).read_text())
        return [(int(each["since"]), dict(each["settings"])) for each in known]
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return []


def add_to_history(folder: Path, settings: dict) -> None:
    """Say that from now on such settings write to a folder, unless its history ends with them.

    Raises:
        ValueError: it is in a store, which does not take it.
    """
    history = read_history(folder)
    if history and history[-1][1] == settings:
        return
    if is_url(folder):  # of which the store's clock is asked
        try:
            urls.write(folder / HISTORY, _as_text(history))
            urls.write(folder / HISTORY, _as_text([*history, (urls.modified_ns(folder / HISTORY), settings)]))
        except OSError as error:  # the first that the store is told of the output
            raise ValueError(f"output={folder} cannot be written ({error.strerror})") from error
        return
    with atomic.replacing(folder / HISTORY, durable=False) as partial:
        partial.write_bytes(_as_text([*history, (partial.stat().st_mtime_ns, settings)]))


def _as_text(history: History) -> bytes:
    return json.dumps([{"since": since, "settings": each} for since, each in history[-KEPT:]], indent=1).encode()


def to_do(pairs: list[Pair], outputs: list[Path], *, history: History, settings: dict) -> tuple[list[Pair], Counter]:
    """The pairs whose outputs are not what these settings would write, and for those that are there how many, and why.

    Other contents of an input are known by the time at which its file was changed or put there (ctime), since a file
    that is moved or unpacked to the place of another may have been modified long before.

    Args:
        pairs: of each the output is the one of `outputs` at the same place.
        history: of the folder.
        settings: all that shapes the bytes of an output.
    """
    changed_ns = _changed([pair.input.path for pair in pairs])
    since, ours = [each for each, _ in history], [known == settings for _, known in history]

    def doubt(written: Written, pair: Pair) -> str | None:
        if not written.size:
            return EMPTY
        number = bisect_right(since, written.at_ns)
        if not number or not ours[number - 1] or not written.is_file:
            return OTHER
        try:
            return CHANGED if changed_ns(pair.input.path) >= written.at_ns else None
        except OSError:  # it is gone
            return OTHER

    todo: list[Pair] = []
    why: Counter[str] = Counter()
    for pair, written in zip(pairs, _written(outputs), strict=True):
        reason = None if written is None else doubt(written, pair)
        if written is None or reason:
            todo.append(pair)
        if reason:
            why[reason] += 1
    return todo, why


class Written(NamedTuple):
    """A file that is there: its size, and when it was written, in ns by the clock of its file system or store."""

    size: int
    at_ns: int
    is_file: bool = True


def _written(outputs: list[Path]) -> Iterator[Written | None]:
    """What is there of each output."""
    if outputs and is_url(outputs[0]):
        there = _listed(outputs)
        yield from (there.get(str(path)) for path in outputs)
        return
    entries = {folder: _entries(folder) for folder in {path.parent for path in outputs}}
    for path in outputs:
        entry = entries[path.parent].get(path.name)
        try:
            status = None if entry is None else entry.stat()
        except OSError:  # it is gone
            status = None
        yield None if status is None else Written(status.st_size, status.st_mtime_ns, entry.is_file())


def _changed(inputs: list[Path]) -> Callable[[Path], int]:
    """What tells when an input was changed or put there, in ns: a store is asked once for all, a web server never."""
    if not inputs or not is_url(inputs[0]):
        return urls.changed_ns
    there = {} if str(inputs[0]).startswith("http") else _listed(inputs)
    return lambda path: there[str(path)].at_ns if str(path) in there else 0


def _listed(paths: list) -> dict[str, Written]:
    """What a store has of some objects, by their URLs."""
    folder = os.path.commonpath([path.parent.path for path in paths])
    url = located(paths[0].fs.unstrip_protocol(folder))
    return {str(url / name): Written(*facts) for name, facts in urls.find(url).items()}


def _entries(folder: Path) -> dict[str, os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name: entry for entry in entries}
    except OSError:  # not there, or a file: then writing says so
        return {}


def blocked(outputs: list[Path]) -> dict[Path, Path]:
    """Folders of outputs of which one is to be a file, as x.png for x.jpg beside x.png/y.jpg: by folder, that file."""
    if outputs and is_url(outputs[0]):  # a store has no folders
        return {}
    folders = {path.parent for path in outputs}
    if len(folders) < 2:
        return {}
    files = set(outputs)
    found = {folder: next((each for each in (folder, *folder.parents) if each in files), None) for folder in folders}
    return {folder: file for folder, file in found.items() if file is not None}


def sweep(folder: Path, outputs: list[Path]) -> None:
    """Remove the temporary files that dead runs have left in a folder, of its history, and where its outputs lie."""
    if is_url(folder):  # a store has no parts of files
        return
    for each in {folder, *(path.parent for path in outputs)}:
        atomic.sweep(each)
