"""A data set at a URL, copied to this machine before it is used: training reads every pair many times."""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from p2p.data.walk import is_taken
from p2p.system import atomic, urls
from p2p.system.urls import is_url, located

THREADS = 16  # that wait for the store


def local(root: str | Path) -> Path:
    """The folder of a data set: `root` itself, or of a URL its copy here, which is made where it is not there.

    The copy is in $XDG_CACHE_HOME/p2p/data, by default ~/.cache/p2p/data, under a name that tells URL, names, sizes and
    times of the images: one that was changed in the store is copied anew. It is there whole or not at all.

    Raises:
        ValueError: there is no image, or the store cannot be read.
        OSError: the disk of the copy is full, say.
    """
    if not is_url(root):
        return Path(root)
    url = located(str(root))
    try:
        found = {name: facts for name, facts in urls.find(url).items() if is_taken(name, {})}
        if not found:
            raise ValueError(f"there is no image at data.root={root}: it should hold pairs (docs/your-own-pairs.md)")
        folder = cache("data") / hashlib.sha256(json.dumps([str(url), sorted(found.items())]).encode()).hexdigest()[:20]
        if not folder.is_dir():
            print(f"{len(found):,} images of {root} are copied to {folder}")
            _copy(url, list(found), folder)
    except OSError as error:
        if error.filename is None or not is_url(str(error.filename)):
            raise
        raise ValueError(f"data.root={root} cannot be read ({error.strerror})") from error
    return folder


def cache(name: str) -> Path:
    """The folder of that name in the user's cache of p2p."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "p2p" / name


def _copy(url: Any, names: list[str], folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    atomic.sweep(folder.parent)
    with atomic.folder_beside(folder) as partial, ThreadPoolExecutor(THREADS) as pool:

        def copy(name: str) -> None:
            path = partial / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(urls.read(url / name))

        for _ in pool.map(copy, names):
            pass
        if not folder.is_dir():  # another process may have been faster
            partial.rename(folder)
