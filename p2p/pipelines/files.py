"""Load and save images: both ends of an image's path. It imports no engine and no torch, so workers start quickly."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

import numpy as np

from p2p.codecs.codec import Codec
from p2p.codecs.depth import bits_of, to_depth, with_alpha
from p2p.codecs.pillow import MODES
from p2p.codecs.values import read_alpha, read_values
from p2p.data.images import frame_of, gpu_size, half_of, read_file
from p2p.data.pairs import Pair
from p2p.data.reading import Reading
from p2p.data.transforms.letterbox import Letterbox
from p2p.data.transforms.sizing import Sizing, in_levels, to_size
from p2p.deploy.manifest import Manifest
from p2p.deploy.sizes import Size, Sizes
from p2p.levels import WHITE, to_shares
from p2p.system import atomic, urls
from p2p.system.urls import is_url

Clock = Callable[..., AbstractContextManager[None]]  # p2p.profiling.clock.Clock, or p2p.pipelines.worker.Spans

CODED_BYTES = 1 << 21  # of a file that the GPU decodes, at most: a larger one is the CPU's
# What a system says of one name, or of one folder among others. All else, such as a full disk, concerns every image.
OF_ALL_FILES = {errno.EMFILE, errno.ENFILE, errno.EHOSTUNREACH}  # also when one is read
OF_ONE_FILE = {
    *(errno.EACCES, errno.EPERM, errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG),
    *(errno.EINVAL, errno.EILSEQ),  # a character that a file system does not have
}


class Failure(ValueError):
    """One image cannot be translated, and the others can.

    Attributes:
        args: the stage at which it failed, and why.
    """

    def __init__(self, stage: str, reason: str):
        super().__init__(stage, reason)

    def __str__(self) -> str:
        return self.args[1]


class Files:
    """load (decode, preprocess) and save (encode, write). Travels to the workers, so everything in it is picklable.

    Args:
        codec: decodes and encodes.
        sizing: brings a decoded frame to size; None leaves it at its own.
        input_shape: (C, H, W) that the exported program takes.
        sizes: those that it takes of frames at their own sizes; None: any.
        reading: of inputs' files.
        range: that black and white stand for in outputs of 16 or 32 bits; None: that of their dtype.
        bits: of a channel of outputs, see `p2p.codecs.depth.bits_of`.
        keeps_alpha: outputs are as transparent as their inputs.
        output: folder, or UPath, that the written files' names are relative to.
        restore_size: write each output at the size of its input.
        gpu_decodes: what a GPU may decode: JPEG files that need no resize, as it has none, or of "any size".
    """

    def __init__(
        self,
        *,
        codec: Codec,
        sizing: Sizing | Letterbox | None,
        input_shape: list[int],
        sizes: Sizes | None = None,
        output: Path,
        restore_size: bool,
        reading: Reading,
        range: tuple[float, float] | None = None,
        bits: int = 8,
        keeps_alpha: bool = False,
        gpu_decodes: Literal["same size", "any size"] | None = None,
    ):
        self.codec = codec
        self.sizing = sizing
        self.sizes = sizes
        self.input_shape = input_shape
        self.output = output
        self.restore_size = restore_size
        self.reading, self.range, self.bits, self.keeps_alpha = reading, range, bits, keeps_alpha
        self.gpu_decodes = gpu_decodes

    def path(self, name: str) -> Path:
        """Where the output of that name is written."""
        return self.output / f"{name}{self.codec.suffix}"

    @property
    def output_dtype(self) -> np.dtype:
        """Of the frames that are to be saved: uint8, or float32 in [-1, 1] for more than 8 bits."""
        return np.dtype(np.uint8 if self.bits == 8 else np.float32)

    def gpu_size(self, pair: Pair, data: bytes) -> Size | None:
        """Height and width of an image that the GPU is to load; None for one that is `load`'s, also as it fails."""
        if self.gpu_decodes is None or self.input_shape[0] != 3 or len(data) > CODED_BYTES:
            return None
        if not self.reading.of_pictures:
            return None
        assert isinstance(self.sizing, Sizing)
        if (size := gpu_size(data, pair.input)) is None:
            return None
        try:
            scaled = self.sizing.scaled(*size, self.sizing.size)
        except ValueError:  # there is no memory for it
            return None
        if self.gpu_decodes == "same size" and scaled != size:
            return None
        if not self.sizing.holds_crop(*scaled):
            return None
        return size if self.sizing.cropped(*scaled) == tuple(self.input_shape[1:]) else None

    def read(self, pair: Pair) -> bytes:
        """The bytes of an input's file.

        Raises:
            Failure: it cannot be read.
            OSError: nothing can be, for too many files are open, or a store does not answer.
        """
        try:
            return read_file(pair.input)
        except ValueError as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno in OF_ALL_FILES:
                raise error.__cause__ from None
            raise Failure("decode", str(error)) from error

    def load(self, pair: Pair, clock: Clock, *, data: bytes | None = None) -> tuple[np.ndarray, Size]:
        """Read one input, (H, W, C): uint8 in [0, 255], or float32 in [-1, 1] where the file has more than 8 bits.

        With it comes the size that it had, for `save`. `data`: its file's bytes, where they have been read.

        Raises:
            Failure: it cannot be read, or does not come out in the size that the program takes.
        """
        stage = "decode"
        try:
            with clock("decode"):
                data = self.read(pair) if data is None else data
                frame_HWC = frame_of(data, pair.input, self.codec.decode, reading=self.reading)
            stage = "preprocess"
            with clock("preprocess"):
                return self._sized(frame_HWC, pair), frame_HWC.shape[:2]
        except ValueError as error:
            raise Failure(stage, str(error)) from error
        except MemoryError as error:
            raise Failure(stage, f"cannot use {pair.input}: there is not enough memory") from error

    def _sized(self, frame_HWC: np.ndarray, pair: Pair) -> np.ndarray:
        try:
            if self.sizing is None:
                if self.sizes is not None:
                    self.sizes.around(frame_HWC.shape[:2])
                return self.reading.planes(in_levels(frame_HWC, frame_HWC.dtype))
            sized_HWC = self.reading.planes(self.sizing(frame_HWC))
            check_sized(sized_HWC, self.input_shape)
        except ValueError as error:
            raise ValueError(f"cannot use {pair.input}: {error}") from error
        return sized_HWC

    def save(self, pair: Pair, frame_HWC: np.ndarray, size: Size, clock: Clock) -> None:
        """Encode and write one output of an input of that size. Its file is complete, or there is none.

        Args:
            frame_HWC: uint8, for outputs of more than 8 bits float32 in [-1, 1].

        Raises:
            Failure: the format has no such image, or the file system no such name.
            OSError: no file can be written; its `filename` is this one.
        """
        stage = "encode"
        try:
            with clock("encode"):
                if self.restore_size and isinstance(self.sizing, Letterbox):
                    frame_HWC = self.sizing.cut(frame_HWC, size)
                data = self._encoded(pair, to_size(frame_HWC, *size) if self.restore_size else frame_HWC)
            stage = "write"
            with clock("write"):
                self._write(self.path(pair.name), data)
        except (ValueError, MemoryError, OSError) as error:
            raise failure(error, stage, self.path(pair.name)) from error

    def read_back(self, data: bytes, *, channels: int) -> np.ndarray:
        """The bytes of an output -> uint8 (H, W, C) in [0, 255], to be looked at.

        Raises:
            ValueError: they cannot be decoded.
        """
        if self.bits == 8 and channels in MODES:
            return self.codec.decode(data, channels=channels)
        values_HWC = read_values(data, channels=channels)
        shares_HWC = to_shares(values_HWC, *(self.range or (0.0, WHITE[values_HWC.dtype])))
        return np.rint(shares_HWC * 255).astype(np.uint8)

    def _encoded(self, pair: Pair, frame_HWC: np.ndarray) -> bytes:
        if self.bits > 8:
            frame_HWC = to_depth(frame_HWC, self.bits, self.range)
        # Read from the input's file once more, which is rare, and not carried through slots and batches.
        alpha_HWC = read_alpha(read_file(pair.input)) if self.keeps_alpha else None
        if alpha_HWC is None:
            return self.codec.encode(frame_HWC)
        alpha_HWC = half_of(alpha_HWC, pair.input)
        if not self.restore_size and self.sizing is not None:
            alpha_HWC = self.sizing(alpha_HWC)
        return self.codec.encode(with_alpha(frame_HWC, alpha_HWC), alpha=True)  # type: ignore[call-arg]

    def make_folder(self) -> None:
        """Make the folder of the outputs; a store has none."""
        if not is_url(self.output):
            self.output.mkdir(parents=True, exist_ok=True)

    def _write(self, path: Path, data: bytes) -> None:
        if is_url(path):
            return urls.write(path, data)
        try:
            try:
                atomic.write_at_once(path, data)
            except FileNotFoundError:  # the first file of its folder
                if not self.output.is_dir():  # it is gone: what lies at its place now is another disk
                    raise
                path.parent.mkdir(parents=True, exist_ok=True)
                atomic.write_at_once(path, data)
        except OSError as error:
            error.filename, error.filename2 = str(path), None
            raise


def failure(error: Exception, stage: str, path: Path) -> Failure:
    """What an error is at the end of an image's path; one of the disk that concerns every image is raised itself."""
    if isinstance(error, OSError) and error.errno not in (None, *OF_ONE_FILE):  # None: of an encoder
        raise error
    reason = getattr(error, "strerror", None) or str(error) or "there is not enough memory"
    return Failure(stage, f"cannot {stage} {path}: {reason}")


def files_for(
    manifest: Manifest,
    *,
    codec: Codec,
    sizing: Sizing,
    output: Path,
    size: Literal["model", "input", "tile"],
    fit: Literal["stretch", "pad"],
    restore_size: bool,
    keeps_alpha: bool,
) -> Files:
    """Those of a program; for the arguments see `p2p.pipelines.stages.Stages`."""
    reading, target = manifest.readings
    return Files(
        codec=codec,
        sizing=Letterbox(*manifest.input_shape[1:]) if fit == "pad" else sizing if size == "model" else None,
        input_shape=manifest.input_shape,
        sizes=manifest.program.sizes if size == "input" else None,
        output=output,
        restore_size=restore_size,
        reading=reading,
        range=target.range,
        bits=bits_of(codec.suffix.removeprefix("."), getattr(codec, "bits", 8), target.range),
        keeps_alpha=keeps_alpha,
    )


def check_sized(sized_HWC: np.ndarray, input_shape: Sequence[int | None]) -> None:
    """Raise a ValueError if a frame that was brought to size is not what a program of this (C, H, W) takes."""
    found, expected = ("x".join(map(str, size[::-1])) for size in (sized_HWC.shape[:2], input_shape[1:]))
    if found != expected:
        raise ValueError(
            f"it is {found} after transform.preprocess, and the exported program takes {expected}: export one for such"
            " images, or train with transform.preprocess=resize_and_crop"
        )
