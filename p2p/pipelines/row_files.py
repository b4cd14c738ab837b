"""Large TIFF files: read and written some rows at a time, as far as they allow that. No torch in here.

A TIFF file of this machine is read by rows if it is not compressed, or by deflate, and written by rows always. The
bytes are those of whole frames on both sides.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image

from p2p.codecs import tiff_rows
from p2p.codecs.depth import DTYPES, to_depth
from p2p.codecs.pillow import MODES, frame_of_image
from p2p.codecs.tiff_pixels import RowsFile
from p2p.data.pairs import Pair
from p2p.data.transforms.sizing import in_levels
from p2p.deploy.sizes import Size
from p2p.pipelines.files import Failure, Files, failure
from p2p.system import atomic
from p2p.system.urls import is_url

LARGE = 1 << 25  # pixels: below, an image's frames take 0.3 GB, and workers decode and encode beside the engine


def by_rows(pair: Pair, size: Size, files: Files) -> bool:
    """Whether an image is large, and its input or its output is done by rows."""
    height, width = size
    if height * width < LARGE:
        return False
    with source_of(pair, files) as source:
        return source is not None or writes_rows(files)


class Source:
    """`source[top:bottom]`: rows of an input as `Files.load` gives them. Keeps those that it was asked for last."""

    def __init__(self, rows: tiff_rows.Rows, pair: Pair, files: Files):
        self._rows, self._pair, self._reading = rows, pair, files.reading
        height, width, _ = rows.shape
        self.shape = height, width, files.reading.channels
        self._asked, self._kept = slice(0), np.empty(0)

    def __getitem__(self, rows: slice) -> np.ndarray:
        if rows != self._asked:
            try:
                self._asked, self._kept = rows, self._frame(self._rows[rows])
            except (ValueError, OSError) as error:
                reason = getattr(error, "strerror", None) or error
                raise Failure("decode", f"cannot read {self._pair.input.path}: {reason}") from error
        return self._kept

    def _frame(self, values_HWC: np.ndarray) -> np.ndarray:
        channels = self._reading.channels
        if self._reading.of_pictures:
            image = Image.fromarray(values_HWC.squeeze(2) if values_HWC.shape[2] == 1 else values_HWC)
            frame_HWC = frame_of_image(image, channels=channels)
        else:
            values_HWC = values_HWC[..., :-1] if self._rows.layout.alpha else values_HWC
            frame_HWC = self._reading.of_values(np.broadcast_to(values_HWC, (*values_HWC.shape[:2], channels)))
        return in_levels(frame_HWC, frame_HWC.dtype)


@contextmanager
def source_of(pair: Pair, files: Files) -> Iterator[Source | None]:
    """What reads an input by rows to the same frame as `Files.load`; None where that has to load it whole."""
    reading, source = files.reading, pair.input
    is_file = source.member is None and not is_url(source.path)
    if reading.labels is not None or source.half is not None or not is_file or not _is_ours(files):
        yield None
        return
    with tiff_rows.opened(source.path, source.page) as rows:
        yield Source(rows, pair, files) if rows is not None and _suits(rows.layout, files) else None


def _suits(layout: tiff_rows.Layout, files: Files) -> bool:
    """Whether the frame is made of each row by itself, and as by the readers of whole files."""
    channels, dtype = layout.shape[2], layout.dtype.newbyteorder("=")
    if files.reading.of_pictures:  # those that Pillow has a mode for
        deep = channels == 1 and dtype in (np.uint16, np.float32)
        return (
            files.reading.channels in MODES and not layout.alpha and (deep or (dtype == np.uint8 and channels in MODES))
        )
    if layout.alpha and dtype == np.uint8:
        return False
    return channels - layout.alpha in (files.reading.channels, 1 if files.reading.channels == 3 else None)


def _is_ours(files: Files) -> bool:
    return type(files.codec).__module__.startswith("p2p.codecs.")


def writes_rows(files: Files) -> bool:
    """Whether outputs are written by rows."""
    return files.codec.suffix == ".tiff" and _is_ours(files) and not files.keeps_alpha and not is_url(files.output)


class Target:
    """`target[top:bottom] = levels_HWC`: rows of an output, which go to its file; see `Files.output_dtype`."""

    def __init__(self, file: RowsFile, files: Files):
        self._file, self._bits, self._range = file, files.bits, files.range
        self.shape, self.dtype = file.shape, files.output_dtype

    def __setitem__(self, rows: slice, levels_HWC: np.ndarray) -> None:
        self._file[rows] = levels_HWC if self._bits == 8 else to_depth(levels_HWC, self._bits, self._range)


@contextmanager
def target_of(pair: Pair, files: Files, shape: tuple[int, int, int]) -> Iterator[Target]:
    """What writes an output by rows. Its file has its name when all is there, and nothing is left of one that fails."""
    path = files.path(pair.name)
    try:
        if files.output.is_dir():  # or it is gone, and what lies at its place now is another disk
            path.parent.mkdir(parents=True, exist_ok=True)
        with atomic.replacing(path, durable=False) as partial:
            fd = os.open(partial, os.O_RDWR)
            try:
                yield Target(RowsFile(fd, shape, DTYPES[files.bits]), files)
            finally:
                os.close(fd)
    except OSError as error:
        raise failure(error, "write", path) from error
