"""Lists of the files to translate: text, one path or URL a line."""

from __future__ import annotations

import codecs
import os
import sys
from pathlib import Path

from p2p.data.walk import SUFFIXES, is_image
from p2p.system import urls
from p2p.system.folders import from_home
from p2p.system.urls import is_url, located

UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def listed(source: str) -> list[Path]:
    """The files that a list names, in its order, each checked. Empty lines are skipped, `~` is the home folder.

    Args:
        source: `@list.txt`, `@https://host/list.txt`, or `-` for standard input. Windows' line ends and byte order
            marks are understood, and UTF-16 that begins with one; names may be any bytes.

    Raises:
        ValueError: there is no such list, no path in it, or a line is no image that is there; or names one twice.
    """
    name = "standard input" if source == "-" else source[1:] if is_url(source[1:]) else str(from_home(source[1:]))
    if source != "-" and not is_url(name) and not Path(name).is_file():
        raise ValueError(f"there is no list {name}, named by input={source}: write the paths into it, one a line")
    seen: dict[str, int] = {}
    files = []
    for number, line in enumerate(_text(source, name).split("\n"), start=1):
        if not (text := line.strip()):
            continue
        path, where = located(text) if is_url(text) else from_home(text), f"line {number} of {name}: {text}"
        if not is_url(text) and not path.is_file():  # a store would be asked once for each
            raise ValueError(f"{where} is {'a folder' if path.is_dir() else 'not there'}: give one file a line")
        if not is_image(text):
            raise ValueError(f"{where} is no image: it should end in {', '.join(SUFFIXES)}")
        first = seen.setdefault(text if is_url(text) else os.path.abspath(path), number)  # noqa: PTH100
        if first != number:
            raise ValueError(f"{where} stands in line {first} already: name each file once")
        files.append(path)
    if len({str(path).partition("://")[0] if is_url(path) else None for path in files}) > 1:
        raise ValueError(f"{name}, named by input={source}, has files of several kinds of places: make a list of each")
    if not files:
        raise ValueError(f"there is no path in {name}, named by input={source}: write one a line")
    return files


def _text(source: str, name: str) -> str:
    try:
        at = located(name)
        data = sys.stdin.buffer.read() if source == "-" else urls.read(at) if is_url(at) else at.read_bytes()
    except OSError as error:
        raise ValueError(f"the list {name}, named by input={source}, cannot be read ({error.strerror})") from error
    if data.startswith(UTF_16):
        return data.decode("utf-16", errors="replace")
    if b"\0" in data:
        raise ValueError(f"{name}, named by input={source}, is not a list of paths: write text, one path a line")
    return os.fsdecode(data.removeprefix(codecs.BOM_UTF8))
