"""The two ends of an image's path, load and save: what needs no engine and no torch, so that workers start at once."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Literal

import numpy as np

from p2p.codecs import jpeg
from p2p.codecs.fast import Fast
from p2p.codecs.pillow import Pillow
from p2p.data.images import frame_of, read_file
from p2p.data.pairs import Pair
from p2p.data.transforms.sizing import Sizing, resize

Clock = Callable[..., AbstractContextManager[None]]  # p2p.profiling.clock.Clock, or p2p.pipelines.worker.Spans
Size = tuple[int, int]  # height and width, in pixels


class Files:
    """load (decode, preprocess) and save (encode, write). Travels to the workers, so everything in it is picklable.

    Args:
        codec: decodes and encodes.
        sizing: brings a decoded frame to size.
        input_shape: (C, H, W) that the exported program takes.
        output: folder that the written files' names are relative to.
        restore_size: write each output at the size of its input.
        gpu_decodes: what a GPU may decode: JPEG files that need no resize, as it has none, or of "any size".
    """

    def __init__(
        self,
        *,
        codec: Fast | Pillow,
        sizing: Sizing,
        input_shape: list[int],
        output: Path,
        restore_size: bool,
        gpu_decodes: Literal["same size", "any size"] | None = None,
    ):
        self.codec = codec
        self.sizing = sizing
        self.input_shape = input_shape
        self.output = output
        self.restore_size = restore_size
        self.gpu_decodes = gpu_decodes

    def path(self, name: str) -> Path:
        """Where the output of that name is written."""
        return self.output / f"{name}{self.codec.suffix}"

    def partial(self, name: str) -> Path:
        """Where it is written before it is whole."""
        path = self.path(name)
        return path.with_name(f".{path.name}.partial")

    def gpu_size(self, pair: Pair, data: bytes) -> Size | None:
        """Height and width of an image that the GPU is to load; None for one that is `load`'s, also as it fails."""
        if self.gpu_decodes is None or self.input_shape[0] != 3 or (size := jpeg.gpu_size(data)) is None:
            return None
        height, width = size
        if pair.input.half is not None:
            if width % 2:
                return None
            width //= 2
        scaled = self.sizing.scaled(height, width, self.sizing.size)
        if self.gpu_decodes == "same size" and scaled != (height, width):
            return None
        if min(scaled) < self.sizing.size and self.sizing.crops:
            return None
        return (height, width) if self.sizing.cropped(*scaled) == tuple(self.input_shape[1:]) else None

    def load(self, pair: Pair, clock: Clock, *, data: bytes | None = None) -> tuple[np.ndarray, Size]:
        """Read one input, (H, W, C): uint8 in [0, 255], or float32 in [-1, 1] where the file is deeper than 8 bits.

        With it comes the size that it had, for `save`. `data`: its file's bytes, where they have been read.

        Raises:
            ValueError: it cannot be read, or does not come out in the size that the program takes.
        """
        with clock("decode"):
            data = read_file(pair.input) if data is None else data
            frame_HWC = frame_of(data, pair.input, self.codec.decode, channels=self.input_shape[0])
        with clock("preprocess"):
            try:
                sized_HWC = self.sizing(frame_HWC)
            except ValueError as error:
                raise ValueError(f"cannot use {pair.input.path}: {error}") from error
            if list(sized_HWC.shape[:2]) != self.input_shape[1:]:
                found, expected = ("x".join(map(str, s[::-1])) for s in (sized_HWC.shape[:2], self.input_shape[1:]))
                raise ValueError(
                    f"cannot use {pair.input.path}: it is {found} after transform.preprocess, and the exported program"
                    f" takes {expected}: export one for such images, or train with transform.preprocess=resize_and_crop"
                )
            return sized_HWC, frame_HWC.shape[:2]

    def save(self, name: str, frame_HWC: np.ndarray, size: Size, clock: Clock) -> None:
        """Encode and write one output, uint8 (H, W, C), of an input of that size. Its file is whole or not there."""
        with clock("encode"):
            if self.restore_size:
                frame_HWC = to_size(frame_HWC, *size)
            data = self.codec.encode(frame_HWC)
        with clock("write"):
            try:
                self._write(name, data)
            except FileNotFoundError:  # the first file of its folder
                self.path(name).parent.mkdir(parents=True, exist_ok=True)
                self._write(name, data)

    def _write(self, name: str, data: bytes) -> None:
        path = self.path(name)
        if nameless(path, data):
            return
        partial = self.partial(name)
        try:
            partial.write_bytes(data)
            partial.replace(path)
        except BaseException:
            with suppress(OSError):  # it may not be there; whatever else is the matter, the exception says
                partial.unlink()
            raise


def nameless(path: Path, data: bytes) -> bool:
    """Write a new file that gets its name when it is whole, or return False where that cannot be done.

    Where the system (Linux) and the file system can, a folder is changed once a file in place of twice, by a rename;
    workers wait for each other at that. Nor does one that is killed leave anything behind.
    """
    if not hasattr(os, "O_TMPFILE"):
        return False
    try:
        fd = os.open(path.parent, os.O_TMPFILE | os.O_WRONLY, 0o666)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
            return False
        raise
    try:
        with memoryview(data) as left:
            while left:
                left = left[os.write(fd, left) :]
        try:
            os.link(f"/proc/self/fd/{fd}", path, src_dir_fd=fd)  # given any folder, Python follows the link
        except OSError as error:
            # It is to be replaced; the file system or the user may not link; there is no /proc.
            if error.errno in (errno.EEXIST, errno.EPERM, errno.EXDEV, errno.EOPNOTSUPP, errno.ENOENT):
                return False
            raise
        return True
    finally:
        os.close(fd)


def to_size(frame_HWC: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 (H, W, C), by Pillow's bicubic -> uint8 (height, width, C)."""
    if frame_HWC.shape[2] in (1, 3):
        return resize(frame_HWC, height, width)
    planes = np.split(frame_HWC, frame_HWC.shape[2], axis=2)  # in 8 bits, too
    return np.concatenate([resize(plane, height, width) for plane in planes], axis=2)
