"""The build cache: a program that was compiled once is not compiled again.

An entry is a folder, named by its key, with the files that the backend wrote and `entry.json`. The key covers all
that the program follows from, so an entry is never out of date; it is only ever unused. It says nothing about
accuracy: `p2p.deploy.export` compares a cached program with the network like a new one.

A library such as diskcache would not spare much of this: it keeps pickles in a database, where files of 100 MB are to
be copied, compared with their digests and put there whole, and the key is ours in any case.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path

import torch
from torch import nn

from p2p.deploy import fields
from p2p.deploy.backend import Export
from p2p.deploy.cache_key import key
from p2p.deploy.manifest import Program, gpu_facts, now, program_of
from p2p.system.atomic import folder_beside, sweep
from p2p.system.digest import sha256

log = logging.getLogger(__name__)

FILE = "entry.json"
MOST_ENTRIES = 16  # of up to 220 MB each, a U-Net for 256x256 pixels in float32


@dataclass(frozen=True)
class Build:
    """A program, when it was compiled (UTC, ISO 8601) and how many seconds that took."""

    program: Program
    built: str
    seconds: float


def build(
    backend: Export,
    network: nn.Module,
    images: torch.Tensor,
    folder: Path,
    *,
    device: torch.device,
    cache_dir: Path | None,
) -> Build:
    """Let the backend write its program into the empty `folder`, or copy what it wrote for the same key before.

    Args:
        backend, network, images, folder: see `p2p.deploy.backend.Backend.export`.
        device: where the program is to run.
        cache_dir: holds an entry for each key, at most 16; None: always build. A folder that cannot be read or written
            costs a warning, not the export.
    """
    if cache_dir is None:
        return _build(backend, network, images, folder, device)
    entry = cache_dir / key(backend, network, images, device=device)
    found = fetch(entry, folder)
    if found is not None:
        return found
    made = _build(backend, network, images, folder, device)
    try:
        store(entry, folder, made)
        prune(cache_dir)
    except OSError as error:
        log.warning("the build cache %s cannot be used (%s): set cache_dir", cache_dir, error.strerror or error)
    return made


def _build(backend: Export, network: nn.Module, images: torch.Tensor, folder: Path, device: torch.device) -> Build:
    started = time.perf_counter()
    program = backend(network, images, folder)
    seconds = round(time.perf_counter() - started, 1)
    if program.gpu is not None:
        program = replace(program, **gpu_facts(device))
    return Build(program, now(), seconds)


def fetch(entry: Path, folder: Path) -> Build | None:
    """Copy an entry's files to `folder` and say so; None if there is none, or one that does not serve.

    A damaged entry is dropped. One that cannot be read stays: that may be the disk's fault, or of permissions.

    Raises:
        OSError: a file cannot be written to `folder`.
    """
    try:
        if not entry.is_dir():
            return None
        made, names = read(entry)
        age = time.time() - datetime.fromisoformat(made.built).timestamp()
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError) as error:
        log.warning("an entry of the build cache is damaged (%s): building again", error)
        shutil.rmtree(entry, ignore_errors=True)
        return None
    except OSError as error:
        log.warning("%s of the build cache cannot be read (%s): building again", error.filename, error.strerror)
        return None
    try:
        for name in names:
            shutil.copyfile(entry / name, folder / name)
    except OSError as error:
        error.filename, error.filename2 = str(folder), None  # the entry could be read a moment ago
        raise
    with suppress(OSError):  # a cache that is read-only
        os.utime(entry)  # was used just now, see `prune`
    log.info("taken from the build cache: built %s ago in %s", duration(age), duration(made.seconds))
    return made


def read(entry: Path) -> tuple[Build, list[str]]:
    """An entry's record, and the names of its files, which are compared with their digests.

    Raises:
        ValueError, KeyError, TypeError, AttributeError, FileNotFoundError: it is damaged.
        OSError: it cannot be read.
    """
    record = json.loads((entry / FILE).read_text())
    made = Build(program_of(record["program"]), record["built"], record["seconds"])
    for name, digest in record["files"].items():
        if not fields.bare_name(name) or sha256(entry / name) != digest:
            raise ValueError(f"{name} was changed")
    return made, list(record["files"])


def store(entry: Path, folder: Path, made: Build) -> None:
    """Make an entry of a folder's files; no one ever sees a part of it."""
    with suppress(FileExistsError):  # also of a file, which is said below
        entry.parent.mkdir(parents=True)
    with folder_beside(entry) as new:
        files = {}
        for path in folder.iterdir():
            shutil.copyfile(path, new / path.name)
            files[path.name] = sha256(new / path.name)
        (new / FILE).write_text(json.dumps(asdict(made) | {"files": files}, indent=2) + "\n")
        try:
            new.rename(entry)
        except OSError:
            if not entry.exists():  # another export was faster, with the same program
                raise


def prune(cache_dir: Path) -> None:
    """Remove all but the 16 entries that were used last, and what exports left that were killed; nothing else."""
    sweep(cache_dir)
    entries = []
    for path in cache_dir.iterdir():
        if re.fullmatch("[0-9a-f]{64}", path.name) and (path / FILE).is_file():
            with suppress(FileNotFoundError):  # another export prunes, too
                entries.append((path.stat().st_mtime, path))
    for _, path in sorted(entries, reverse=True)[MOST_ENTRIES:]:
        shutil.rmtree(path, ignore_errors=True)


def duration(seconds: float) -> str:
    """ "31 s", "3 minutes", "2 hours", "5 days"."""
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
