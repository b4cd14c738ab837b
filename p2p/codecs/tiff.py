"""TIFF files of many pages, and what a page says of itself.

Adobe's "TIFF Revision 6.0", 1992, whose sections are named below, and BigTIFF, which has 8 bytes for 4. Pillow has the
first of a file's pages. Here they all are, each as a file of its own. `p2p.codecs.tiff_pixels` has the pixels.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

MAGIC = {b"II*\0": ("<", False), b"MM\0*": (">", False), b"II+\0": ("<", True), b"MM\0+": (">", True)}
# Bytes of a value, by the number of its type (section 2); 16 to 18 are BigTIFF's.
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
SHORT, LONG, LONG8 = 3, 4, 16
WHOLE = {1: "B", SHORT: "H", LONG: "I", 13: "I", 16: "Q", 18: "Q"}  # types of whole numbers, as struct calls them
KIND, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 254, 256, 257, 258, 259, 262
STRIPS, ORIENTATION, SAMPLES, ROWS, STRIP_BYTES, PLANAR = 273, 274, 277, 278, 279, 284
PREDICTOR, TILE_WIDTH, TILE_HEIGHT, TILES, TILE_BYTES, EXTRA, FORMAT = 317, 322, 323, 324, 325, 338, 339
PARTS = ((STRIPS, STRIP_BYTES), (TILES, TILE_BYTES))
ELSEWHERE = {330, 34665, 34853, 40965}  # places of other directories, which a page by itself does not have
NOT_A_PAGE = 1 | 4  # of KIND: a smaller copy of another page, or a mask of one
MOST_PAGES = 1 << 20
ENTRIES = 1 << 16  # bytes, more than a directory without its values has
DAMAGE = (struct.error, KeyError, IndexError, OverflowError)  # what reading a damaged directory raises


class Entry(NamedTuple):
    """A tag's value: its type, how many there are, and the place of its bytes."""

    type: int
    count: int  # type: ignore[assignment]  # in the place of tuple's
    at: int


class Directory(NamedTuple):
    """What a file says of one page. Whoever reads it has to expect DAMAGE."""

    data: bytes | mmap.mmap
    order: str
    entries: dict[int, Entry]
    next: int

    def numbers(self, tag: int, default: int | None = None) -> list[int]:
        """Whole numbers of a tag; [default] where there is none."""
        if tag not in self.entries and default is not None:
            return [default]
        type, count, at = self.entries[tag]
        return list(struct.unpack_from(f"{self.order}{count}{WHOLE[type]}", self.data, at))

    def number(self, tag: int, default: int | None = None) -> int:
        """The first of them."""
        return self.numbers(tag, default)[0]


def is_tiff(data: bytes) -> bool:
    """Whether a file begins as one."""
    return data[:4] in MAGIC


def pages(path: Path) -> list[int]:
    """The places of a file's pages, in their order, for `page`; none of what is no TIFF or cannot be read.

    Smaller copies, such as a pyramid's, and masks are no pages. After damage come no more.
    """
    found: list[int] = []
    try:
        with mapped(path) as data:
            for at, directory in directories(data):
                if not directory.number(KIND, 0) & NOT_A_PAGE:
                    found.append(at)
    except (OSError, ValueError, *DAMAGE):  # whoever decodes it says what is wrong
        pass
    return found


def page(path: Path, at: int) -> bytes:
    """A TIFF file of one page alone, in which nothing else of the whole file is read.

    Raises:
        ValueError: it is damaged.
        OSError: it cannot be read.
    """
    with mapped(path) as data:
        try:
            return _alone(_directory(data, *_header(data), at))
        except DAMAGE as error:
            raise ValueError(f"its page at byte {at} is damaged") from error


def size_of(path: Path, at: int) -> tuple[int, int] | None:
    """Width and height of a page, upright; None where it is damaged, which whoever decodes it says."""
    try:
        with mapped(path) as data:
            directory = _directory(data, *_header(data), at)
            height, width = directory.number(HEIGHT), directory.number(WIDTH)
            return (height, width) if directory.number(ORIENTATION, 1) > 4 else (width, height)
    except (OSError, ValueError, *DAMAGE):
        return None


def directory_of(data: bytes | mmap.mmap, at: int | None = None) -> Directory:
    """That of the page at a place, or of the first one. Whoever reads it has to expect DAMAGE."""
    if at is not None:
        return _directory(data, *_header(data), at)
    _, first = next(directories(data))
    return first


def mapped(path: Path) -> mmap.mmap:
    """A file's bytes, read where they are looked at.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is empty.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return mmap.mmap(fd, 0, access=mmap.ACCESS_READ)
    finally:
        os.close(fd)


def _header(data: bytes | mmap.mmap) -> tuple[str, bool]:
    return MAGIC[bytes(data[:4])]


def directories(data: bytes | mmap.mmap) -> Iterator[tuple[int, Directory]]:
    """The pages of a file in their order, each with its place."""
    order, big = _header(data)
    (at,) = struct.unpack_from(f"{order}Q" if big else f"{order}I", data, 8 if big else 4)
    seen: set[int] = set()
    while at and at not in seen and len(seen) < MOST_PAGES:
        seen.add(at)
        directory = _directory(data, order, big, at)
        yield at, directory
        at = directory.next


def _directory(data: bytes | mmap.mmap, order: str, big: bool, at: int) -> Directory:
    """Section 2: a count, entries of tag, type, count and value or its place, and the place of the next directory."""
    head, entry, place, inline = ("Q", "HHQ", "Q", 8) if big else ("H", "HHI", "I", 4)
    (count,) = struct.unpack_from(order + head, data, at)
    at += struct.calcsize(order + head)
    entries = {}
    for _ in range(count):
        tag, type, number = struct.unpack_from(order + entry, data, at)
        value = at + struct.calcsize(order + entry)
        if SIZES.get(type, 0) * number > inline:
            (value,) = struct.unpack_from(order + place, data, value)
        entries[tag] = Entry(type, number, value)
        at += struct.calcsize(order + entry) + inline
    (following,) = struct.unpack_from(order + place, data, at)
    return Directory(data, order, entries, following)


def _parts_of(directory: Directory, places: int, sizes: int) -> list[bytes]:
    """The bytes of its strips or tiles."""
    found = zip(directory.numbers(places), directory.numbers(sizes), strict=True)
    parts = [(directory.data[at : at + size], size) for at, size in found]
    if any(len(part) < size for part, size in parts):
        raise KeyError(places)
    return [part for part, _ in parts]


def _alone(directory: Directory) -> bytes:
    tags = {}
    for tag, (type, count, at) in directory.entries.items():
        if type in SIZES and tag not in ELSEWHERE and tag not in {tag for both in PARTS for tag in both}:
            value = directory.data[at : at + count * SIZES[type]]
            if len(value) < count * SIZES[type]:
                raise KeyError(tag)
            tags[tag] = (type, count, bytes(value))
    parts = {both: _parts_of(directory, *both) for both in PARTS if both[0] in directory.entries}
    if not parts:
        raise KeyError(STRIPS)
    return file_of(directory.order, tags, parts)


def file_of(order: str, tags: dict[int, tuple[int, int, bytes]], parts: dict[tuple[int, int], list[bytes]]) -> bytes:
    """A file of one directory: header, entries, values that do not fit there, strips or tiles.

    Args:
        tags: types, counts and bytes of values.
        parts: by the tags of their places and sizes.
    """
    head = head_of(order, tags, {both: [len(piece) for piece in pieces] for both, pieces in parts.items()})
    out = [head]
    for piece in (piece for pieces in parts.values() for piece in pieces):
        out += [piece, bytes(len(piece) % 2)]
    return b"".join(out)


def head_of(order: str, tags: dict[int, tuple[int, int, bytes]], parts: dict[tuple[int, int], list[int]]) -> bytes:
    """What comes before the strips or tiles of such a file, of which `parts` has the lengths; each begins evenly.

    It is a BigTIFF where the whole has 4 GB or more.
    """
    pixels = sum(length + length % 2 for lengths in parts.values() for length in lengths)
    others = sum(len(value) for _, _, value in tags.values()) + sum(16 * len(lengths) for lengths in parts.values())
    big = pixels + others + ENTRIES >= 1 << 32
    number, place, number_type, inline = ("Q", "Q", LONG8, 8) if big else ("H", "I", LONG, 4)
    start = struct.calcsize("=4sHHQ") if big else struct.calcsize("=4sI")
    tags = tags.copy()
    for (places, sizes), lengths in parts.items():
        packed = struct.pack(f"{order}{len(lengths)}{place}", *lengths)
        tags |= {places: (number_type, len(lengths), bytes(len(packed))), sizes: (number_type, len(lengths), packed)}
    entry = struct.calcsize(f"=HH{place}") + inline
    at = start + struct.calcsize(f"={number}") + entry * len(tags) + inline
    values_at = {}
    for tag, (_, _, value) in tags.items():
        if len(value) > inline:
            values_at[tag] = at
            at += len(value) + len(value) % 2  # places are even
    for (places, _), lengths in parts.items():
        starts = []
        for length in lengths:
            starts.append(at)
            at += length + length % 2
        tags[places] = (number_type, len(lengths), struct.pack(f"{order}{len(starts)}{place}", *starts))
    mark = next(magic for magic, found in MAGIC.items() if found == (order, big))
    out = [mark, struct.pack(f"{order}HHQ", 8, 0, start) if big else struct.pack(f"{order}I", start)]
    out.append(struct.pack(order + number, len(tags)))
    for tag in sorted(tags):
        type, count, value = tags[tag]
        here = struct.pack(order + place, values_at[tag]) if tag in values_at else value.ljust(inline, b"\0")
        out.append(struct.pack(f"{order}HH{place}", tag, type, count) + here)
    out.append(bytes(inline))  # no other directory
    for tag in values_at:
        out += [tags[tag][2], bytes(len(tags[tag][2]) % 2)]
    return b"".join(out)
