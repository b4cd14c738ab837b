"""Read a file into a frame: read it, decode it, and take the half that is asked for."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np

from p2p.codecs import jpeg, tiff
from p2p.data.halves import alike, check_half
from p2p.data.pairs import Pair, Source
from p2p.data.reading import RGB, Decode, Reading
from p2p.system import urls
from p2p.system.memory import check_room
from p2p.system.urls import is_url

MOST = 4 << 30  # bytes: no image file is larger, but what is sparse or a disk's image can be
MANY = 256 << 20  # bytes, of which it is asked whether the memory is there


def read_input(pair: Pair, decode: Decode, *, reading: Reading = RGB) -> np.ndarray:
    """The input of a pair alone, (H, W, C), see `Reading.frame`.

    Raises:
        ValueError: the file cannot be read, and why.
    """
    return frame_of(read_file(pair.input), pair.input, decode, reading=reading)


def read_file(source: Source) -> bytes:
    """The bytes of an image's file, or of a file with that page alone.

    Raises:
        ValueError: it cannot be read, and why.
    """
    try:
        if source.member is not None:
            return _read_member(source.path, *source.member[1:])
        if is_url(source.path):
            return urls.read(source.path)
        if source.page is not None:
            return tiff.page(source.path, source.page)
        # Without a file object, which makes twice as many system calls; a FIFO would wait for its writer.
        fd = os.open(source.path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise ValueError("it is a folder" if stat.S_ISDIR(status.st_mode) else "it is not a regular file")
            if status.st_size > MOST:
                raise ValueError(f"it has {status.st_size:,} bytes, and an image has {MOST:,} at most")
            if status.st_size > MANY:
                check_room(status.st_size, what=f"it has {status.st_size:,} bytes")
            return b"".join(iter(lambda: os.read(fd, status.st_size + 1), b""))
        finally:
            os.close(fd)
    except OSError as error:
        raise ValueError(f"cannot read {source}: {error.strerror or error}") from error
    except MemoryError:
        raise ValueError(f"cannot read {source}: there is not enough memory") from None
    except ValueError as error:
        raise ValueError(f"cannot read {source}: {error}") from error


def _read_member(path: Path, start: int, size: int) -> bytes:
    if is_url(path):
        return urls.read(path, start=start, end=start + size)
    with path.open("rb", buffering=0) as file:
        return os.pread(file.fileno(), size, start)


def frame_of(data: bytes, source: Source, decode: Decode, *, reading: Reading = RGB) -> np.ndarray:
    """The bytes of an image's file -> the image, (H, W, C), see `Reading.frame`.

    Raises:
        ValueError: they cannot be decoded, and why.
    """
    return half_of(_decoded(data, source, decode, reading), source)


def gpu_size(data: bytes, source: Source) -> tuple[int, int] | None:
    """Height and width of the image that a GPU can take of a file; None of one that is the CPU's, also to refuse it.

    See `p2p.codecs.jpeg.gpu_size`.
    """
    size = jpeg.gpu_size(data)
    if size is None or source.half is None:
        return size
    height, width = size
    return None if width % 2 or not alike(width, height, source.shape) else (height, width // 2)


def read_coded(pair: Pair) -> tuple[list[bytes], tuple[int, int]] | None:
    """The files of a pair that a GPU can decode, one if it is A|B, and its images' size; None if it is the CPU's.

    Raises:
        ValueError: a file cannot be read.
    """
    assert pair.target is not None
    sources = [pair.input] if pair.target.path == pair.input.path else [pair.input, pair.target]
    files = [read_file(source) for source in sources]
    sizes = {gpu_size(*each) for each in zip(files, sources, strict=True)}
    return None if len(sizes) > 1 or None in sizes else (files, sizes.pop())


def read_pair(
    pair: Pair, decode: Decode, *, input: Reading = RGB, target: Reading = RGB
) -> tuple[np.ndarray, np.ndarray]:
    """Input and target, (H, W, C), see `Reading.frame`.

    Raises:
        ValueError: a file cannot be read, or the two differ in size.
    """
    assert pair.target is not None
    frame = _decoded(read_file(pair.input), pair.input, decode, input)
    if pair.target.path == pair.input.path and pair.target.page == pair.input.page and target == input:
        other = frame  # A|B side by side: decoded once
    else:
        other = _decoded(read_file(pair.target), pair.target, decode, target)
    input_HWC, target_HWC = half_of(frame, pair.input), half_of(other, pair.target)
    if input_HWC.shape[:2] != target_HWC.shape[:2]:
        sizes = ["x".join(map(str, image.shape[1::-1])) for image in (input_HWC, target_HWC)]
        raise ValueError(
            f"{pair.input.path} is {sizes[0]} but its partner {pair.target.path} is {sizes[1]}: make them equal"
        )
    return input_HWC, target_HWC


def _decoded(data: bytes, source: Source, decode: Decode, reading: Reading = RGB) -> np.ndarray:
    try:
        return reading.frame(data, decode)
    except MemoryError:
        raise ValueError(f"cannot read {source}: there is not enough memory to decode it") from None
    except ValueError as error:
        raise ValueError(f"cannot read {source}: {error}") from error


def half_of(frame_HWC: np.ndarray, source: Source) -> np.ndarray:
    """The half of a whole image that is asked for, or all of it.

    Raises:
        ValueError: it cannot be halved.
    """
    if source.half is None:
        return frame_HWC
    height, width = frame_HWC.shape[:2]
    check_half(source.path, width, height, source.shape)
    return frame_HWC[:, : width // 2] if source.half == "left" else frame_HWC[:, width // 2 :]
