"""Find image files in a folder or by a pattern, and count the files that are skipped."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from fnmatch import fnmatchcase
from operator import attrgetter
from pathlib import Path

from p2p.codecs.pillow import SUFFIXES

Skipped = dict[str, list[str]]  # names of what was found and is not taken, by reason

HIDDEN, OTHER, SPECIAL, LOOP = "hidden", "of other formats", "no regular files", "leading back to a folder above"
# Names, in lower case, of what systems put beside the user's files; and all that begins with a dot.
SYSTEM = {"thumbs.db", "desktop.ini", "__macosx", "@eadir", "lost+found", "$recycle.bin", "system volume information"}
NAMED = 3  # that are told of each reason


def summary(skipped: Skipped) -> str:
    """ "; skipped: 2 hidden (.a, .b), 1 of other formats (notes.txt)", or nothing if nothing was."""
    parts = []
    for reason, names in skipped.items():
        some = [name if name.isprintable() else ascii(name) for name in names[:NAMED]]
        parts.append(f"{len(names):,} {reason} ({', '.join(some)}{', ...' if len(names) > NAMED else ''})")
    return f"; skipped: {', '.join(parts)}" if parts else ""


def is_image(name: str) -> bool:
    """Whether the suffix is one of an image, in any case."""
    return os.path.splitext(name)[1].lower() in SUFFIXES  # noqa: PTH122


def is_hidden(name: str) -> bool:
    """Whether a file or folder begins with a dot, or is what a system puts beside the user's."""
    return name.startswith(".") or name.lower() in SYSTEM


def is_taken(path: str, skipped: Skipped) -> bool:
    """Whether what lies at a path in a store or an archive is an image, in no hidden folder.

    Whoever wrote it chose the path, and outputs are named by it: one with .. or // would lead out of their folder.
    """
    parts = path.split("/")
    hidden = any(not part or is_hidden(part) for part in parts)
    if not hidden and is_image(parts[-1]):
        return True
    skipped.setdefault(HIDDEN if hidden else OTHER, []).append(parts[-1])
    return False


def folders_in(folder: Path) -> dict[str, Path]:
    """The folders in a folder by their names in lower case; of two that differ in case alone, the upper one.

    None where there is no such folder.

    Raises:
        ValueError: it cannot be opened.
    """
    if not folder.is_dir():
        return {}
    try:
        with os.scandir(folder) as scan:
            names = sorted((entry.name for entry in scan if is_folder(entry)), reverse=True)
    except OSError as error:
        raise _closed(str(folder), error) from error
    return {name.lower(): folder / name for name in names}


def images_below(folder: Path | str, skipped: Skipped) -> list[str]:
    """The paths of all images in a folder and the folders in it, sorted by their parts.

    Links are followed: an image has a name for each path that leads to it, and a link back to a folder above itself
    ends there. A link to nothing is an image that cannot be read, so that whoever reads it says so.

    Args:
        folder: to begin with.
        skipped: is told what is there and not taken.

    Raises:
        ValueError: there is no image, or a folder cannot be opened.
    """
    files = [path for path in _files_below(str(Path(folder)), skipped) if _taken(path, skipped)]
    if not files:
        raise ValueError(
            f"there is no image in {folder}{summary(skipped)}: it should hold files that end in {', '.join(SUFFIXES)}"
        )
    return files


def images_like(pattern: str, skipped: Skipped) -> tuple[list[str], str]:
    """The paths of all images that match a pattern such as `photos/*.jpg`, sorted, and the folder that it starts from.

    `**` stands for any number of folders, found as `images_below` does. Parts of the pattern that are names of what is
    there are taken as names, also with brackets or stars.

    Raises:
        ValueError: a folder that `**` leads to cannot be opened.
    """
    root, *parts = _root_and_rest(pattern)
    fixed = parts[: parts.index("**")] if "**" in parts else parts
    found = glob.glob(os.path.join(glob.escape(root), *fixed))  # noqa: PTH118, PTH207 - Path.glob takes no absolute one
    found.sort(key=_parts)
    if "**" in parts:  # Python's own follows a link that leads back, 40 times
        rest = parts[len(fixed) :]
        folders = [folder for folder in found if os.path.isdir(folder)]  # noqa: PTH112
        below = ((folder, path) for folder in folders for path in _files_below(folder, skipped))
        found = [path for folder, path in below if _matches(_parts(path[len(folder) + 1 :]), rest)]
    files = [path for path in found if not os.path.isdir(path) and _regular(path, skipped)]  # noqa: PTH112
    return [path for path in files if _taken(path, skipped)], root


def _root_and_rest(pattern: str) -> tuple[str, ...]:
    """The folder before the first part that is a wildcard and no folder's real name; then the other parts."""
    root, *parts = (Path(), *Path(pattern).parts)
    while parts and (not glob.has_magic(parts[0]) or (root / parts[0]).is_dir()):
        root /= parts.pop(0)
    return str(root), *parts


def _parts(path: str) -> list[str]:
    return path.split(os.sep)  # noqa: PTH206 - a tenth of the time that Path.parts takes


def _matches(names: list[str], pattern: list[str]) -> bool:
    if not pattern:
        return not names
    if pattern[0] == "**":
        return any(_matches(names[count:], pattern[1:]) for count in range(len(names) + 1))
    return bool(names) and fnmatchcase(names[0], pattern[0]) and _matches(names[1:], pattern[1:])


def _taken(path: str, skipped: Skipped) -> bool:
    if taken := is_image(path):
        return taken
    skipped.setdefault(OTHER, []).append(os.path.basename(path))  # noqa: PTH119
    return taken


def _regular(path: str, skipped: Skipped) -> bool:
    """Also a link to nothing."""
    if regular := os.path.isfile(path) or not os.path.exists(path):  # noqa: PTH110, PTH113
        return regular
    skipped.setdefault(SPECIAL, []).append(os.path.basename(path))  # noqa: PTH119
    return regular


def _files_below(folder: str, skipped: Skipped) -> Iterator[str]:
    """The paths of all files but hidden ones, sorted by their parts."""
    above, open_folders = [_identity(folder)], [_entries(folder, skipped)]
    while open_folders:
        for entry in open_folders[-1]:
            if not is_folder(entry):
                if entry.is_file(follow_symlinks=False) or _regular(entry.path, skipped):
                    yield entry.path
                continue
            identity = _identity(entry.path)
            if identity in above:
                skipped.setdefault(LOOP, []).append(entry.name)
                continue
            above.append(identity)
            open_folders.append(_entries(entry.path, skipped))
            break
        else:
            above.pop()
            open_folders.pop()


def is_folder(entry: os.DirEntry) -> bool:
    """Whether it is one, or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link that leads round in a circle, or into a closed folder
        return False


def _entries(folder: str, skipped: Skipped) -> Iterator[os.DirEntry]:
    """What is in a folder and not hidden, sorted by name."""
    try:
        with os.scandir(folder) as scan:
            entries = sorted(scan, key=attrgetter("name"))
    except OSError as error:
        raise _closed(folder, error) from error
    for entry in entries:
        if is_hidden(entry.name):
            skipped.setdefault(HIDDEN, []).append(entry.name)
        else:
            yield entry


def _identity(folder: str) -> tuple[int, int]:
    try:
        status = os.stat(folder)  # noqa: PTH116
    except OSError as error:
        raise _closed(folder, error) from error
    return status.st_dev, status.st_ino


def _closed(folder: str, error: OSError) -> ValueError:
    return ValueError(
        f"the folder {folder} cannot be opened ({error.strerror}): change its permissions, or move it away from the"
        " images"
    )
