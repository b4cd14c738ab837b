"""Memory that the processes of a pipeline share: arrays, and what lies in them."""

from __future__ import annotations

import mmap
import os
import tempfile
from types import TracebackType

import numpy as np

from p2p.data.pairs import Pair, Source
from p2p.data.tar import Member
from p2p.system.urls import located

# What is known of a row of a slot: which pair it is, the height and width that its file had, where it is, and bytes
# of its file, if that is there as it is; in a slot of any size also at which of its pixels the image begins.
ROW = np.dtype([("pair", "i8"), ("at", "i8"), ("height", "i4"), ("width", "i4"), ("state", "i4"), ("coded", "i4")])
# States: uint8, or float32 for more than 8 bits; a JPEG file; not to be had.
FRAME, HIGH_DEPTH, CODED, FAILED = range(4)


class SharedArray:
    """An array in memory that has no name, only a file descriptor, which workers inherit.

    Nothing of it can be left behind: no matter who is killed, the system frees it with the last process that has
    it mapped, and it needs no /dev/shm, which containers hold to 64 MB by default. Pages cost nothing until they
    are written.

    Args:
        shape, dtype: of `array`.
        fd: of an array that another process has made; None makes one, of zeros.
    """

    def __init__(self, shape: tuple[int, ...], dtype: str | np.dtype, *, fd: int | None = None):
        self.shape = shape
        self.dtype = dtype
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        self.fd = _anonymous(size) if fd is None else fd
        self.array = np.frombuffer(mmap.mmap(self.fd, size), dtype).reshape(shape)
        self._pinned = False

    @classmethod
    def of(cls, values: np.ndarray) -> SharedArray:
        """A new one that holds such values."""
        shared = cls(values.shape, values.dtype)
        shared.array[:] = values
        return shared

    def pin(self) -> None:
        """Lock its pages, so that a GPU copies to and from them while the host goes on.

        Where the system refuses, over its limit of locked memory say, copies merely wait.
        """
        import torch

        portable = 1  # cudaHostRegisterPortable: for every context
        error = torch.cuda.cudart().cudaHostRegister(self.array.ctypes.data, self.array.nbytes, portable)
        self._pinned = int(error) == 0

    def __enter__(self) -> SharedArray:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Give it back."""
        self.close()

    def close(self) -> None:
        """Give it back; the mapping itself ends with the last view of the array."""
        if self._pinned:
            import torch

            torch.cuda.cudart().cudaHostUnregister(self.array.ctypes.data)
        del self.array
        os.close(self.fd)


def _anonymous(size: int) -> int:
    """The descriptor of a new file of zeros that is in memory (Linux) or at least in no folder (elsewhere)."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("p2p")
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, size)
    return fd


def share_pairs(pairs: list[Pair]) -> dict[str, SharedArray]:
    """The arrays of a `PairTable`: one copy of all names and paths, however many processes read it."""
    texts = []
    for pair in pairs:
        path, half, shape, page, member = pair.input
        of_member = "" if member is None else "\0".join(map(str, member))
        texts.append(os.fsencode(f"{pair.name}\0{path}\0{half or ''}\0{shape or ''}\0{page or ''}\0{of_member}"))
    ends = np.cumsum([len(text) for text in texts])
    return {"text": SharedArray.of(np.frombuffer(b"".join(texts), np.uint8)), "ends": SharedArray.of(ends)}


class PairTable:
    """`table[number]`: that pair, without its target.

    Args:
        text, ends: see `share_pairs`.
    """

    def __init__(self, text: np.ndarray, ends: np.ndarray):
        self._text, self._ends = text, ends

    def __getitem__(self, number: int) -> Pair:
        begin = self._ends[number - 1] if number else 0
        name, path, half, shape, page, *of_member = os.fsdecode(self._text[begin : self._ends[number]].tobytes()).split(
            "\0"
        )
        member = Member(of_member[0], *map(int, of_member[1:])) if of_member[0] else None
        known = half or None, float(shape) if shape else None, int(page) if page else None, member
        return Pair(name, Source(located(path), *known))  # type: ignore[arg-type]


def share_slots(
    *,
    slots: int,
    slot_size: int,
    input_shape: list[int],
    output_shape: list[int],
    output_dtype: str = "uint8",
    coded: int = 0,
) -> dict[str, SharedArray]:
    """A ring of slots on either side of an engine, so many images each, and what is known of their rows.

    Args:
        input_shape, output_shape: (C, H, W) of an image.
        output_dtype: of what the engine gives: uint8, or float32 for files of more bits.
        coded: bytes that a JPEG file may have that is kept as it is, for a GPU to decode; 0: none is.
    """
    ring = (slots, slot_size)
    return {
        "input": SharedArray((*ring, *hwc(input_shape)), "uint8"),
        "high_depth": SharedArray((*ring, *hwc(input_shape)), "float32"),
        "output": SharedArray((*ring, *hwc(output_shape)), output_dtype),
        "loaded": SharedArray(ring, ROW),  # of the rows of input slots
        "saved": SharedArray(ring, ROW),  # of the rows of output slots
    } | ({"coded": SharedArray((*ring, coded), "uint8")} if coded else {})


def share_slots_of_any_size(
    *, slots: int, slot_size: int, pixels: int, channels: tuple[int, int], output_dtype: str = "uint8"
) -> dict[str, SharedArray]:
    """As `share_slots`, but images lie one behind the other, each of its own size, in slots of so many pixels."""
    ring = (slots, slot_size)
    return {
        "input": SharedArray((slots, pixels, channels[0]), "uint8"),
        "high_depth": SharedArray((slots, pixels, channels[0]), "float32"),
        "output": SharedArray((slots, pixels, channels[1]), output_dtype),
        "loaded": SharedArray(ring, ROW),
        "saved": SharedArray(ring, ROW),
    }


def lay_out(groups: list[list[tuple[int, int] | None]]) -> np.ndarray:
    """The `ROW`s of images that lie one behind the other in a slot of their group, by their heights and widths.

    One that nobody knows is of an image that will fail.
    """
    sizes = [size or (0, 0) for group in groups for size in group]
    rows = np.zeros(len(sizes), ROW)
    if not sizes:
        return rows
    rows["pair"] = range(len(rows))
    rows["height"], rows["width"] = zip(*sizes, strict=True)
    first = 0
    for group in groups:
        some = rows[first : first + len(group)]
        some["at"][1:] = np.cumsum(pixels_of(some))[:-1]
        first += len(group)
    return rows


def pixels_of(rows: np.ndarray) -> np.ndarray:
    """Of each image how many pixels it has."""
    return rows["height"].astype(np.int64) * rows["width"]


def frame_in(slots: np.ndarray, slot: int, row: int, known: np.void) -> np.ndarray:
    """The memory, (H, W, C), of a row of which that is known."""
    if slots.ndim == 5:  # of one size
        return slots[slot, row]
    at, height, width = (int(known[name]) for name in ("at", "height", "width"))
    return slots[slot, at : at + height * width].reshape(height, width, -1)


def hwc(shape_CHW: list[int]) -> tuple[int, int, int]:
    """The shape of a frame."""
    channels, height, width = shape_CHW
    return height, width, channels
