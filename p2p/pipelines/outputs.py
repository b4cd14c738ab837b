"""Find out which files in an output folder are up to date, and which stand in the way of an output.

The folder's history, `.p2p.json`, says which settings wrote to it, and since when, by the clock of its file system:
`[{"since": ns, "settings": {...}}, ...]`. An output belongs to the settings of the time at which it was written.
"""

from __future__ import annotations

import json
import os
from bisect import bisect_right
from collections import Counter
from pathlib import Path

from p2p.data.pairs import Pair
from p2p.system import atomic

HISTORY = ".p2p.json"
KEPT = 100  # changes of settings
OTHER, EMPTY, CHANGED = "from other settings or of unknown origin", "empty", "older than their inputs"

History = list[tuple[int, dict]]


def source_of(pair: Pair) -> str:
    """Where inputs come from: the folder that their names start below, and which half of them is taken."""
    folder = pair.input.path.parents[pair.name.count("/")]
    return f"{os.path.realpath(folder)} {pair.input.half or ''}".rstrip()


def read_history(folder: Path) -> History:
    """What a folder's history says; nothing if there is none that can be read."""
    try:
        known = json.loads((folder / HISTORY).read_text())
        return [(int(each["since"]), dict(each["settings"])) for each in known]
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return []


def add_to_history(folder: Path, settings: dict) -> None:
    """Say that from now on such settings write to a folder, unless its history ends with them."""
    history = read_history(folder)
    if history and history[-1][1] == settings:
        return
    with atomic.replacing(folder / HISTORY, durable=False) as partial:
        history.append((partial.stat().st_mtime_ns, settings))
        partial.write_text(
            json.dumps([{"since": since, "settings": each} for since, each in history[-KEPT:]], indent=1)
        )


def to_do(pairs: list[Pair], outputs: list[Path], *, history: History, settings: dict) -> tuple[list[Pair], Counter]:
    """The pairs whose outputs are not what these settings would write, and for those that are there how many, and why.

    Other contents of an input are known by the time at which its file was changed or put there (ctime), since a file
    that is moved or unpacked to the place of another may have been modified long before.

    Args:
        pairs: of each the output is the one of `outputs` at the same place.
        history: of the folder.
        settings: all that shapes the bytes of an output.
    """
    there = {folder: _entries(folder) for folder in {path.parent for path in outputs}}
    since, ours = [each for each, _ in history], [known == settings for _, known in history]

    def doubt(entry: os.DirEntry, pair: Pair) -> str | None:
        try:
            status, changed_ns = entry.stat(), pair.input.path.stat().st_ctime_ns
        except OSError:  # one of the two is gone
            return OTHER
        written_ns = status.st_mtime_ns
        if not status.st_size:
            return EMPTY
        number = bisect_right(since, written_ns)
        if not number or not ours[number - 1] or not entry.is_file():
            return OTHER
        return CHANGED if changed_ns >= written_ns else None

    todo: list[Pair] = []
    why: Counter[str] = Counter()
    for pair, path in zip(pairs, outputs, strict=True):
        entry = there[path.parent].get(path.name)
        reason = None if entry is None else doubt(entry, pair)
        if entry is None or reason:
            todo.append(pair)
        if reason:
            why[reason] += 1
    return todo, why


def _entries(folder: Path) -> dict[str, os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name: entry for entry in entries}
    except OSError:  # not there, or a file: then writing says so
        return {}


def blocked(outputs: list[Path]) -> dict[Path, Path]:
    """Folders of outputs of which one is to be a file, as x.png for x.jpg beside x.png/y.jpg: by folder, that file."""
    folders = {path.parent for path in outputs}
    if len(folders) < 2:
        return {}
    files = set(outputs)
    found = {folder: next((each for each in (folder, *folder.parents) if each in files), None) for folder in folders}
    return {folder: file for folder, file in found.items() if file is not None}


def sweep(folder: Path, outputs: list[Path]) -> None:
    """Remove the temporary files that dead runs have left in a folder, of its history, and where its outputs lie."""
    for each in {folder, *(path.parent for path in outputs)}:
        atomic.sweep(each)
