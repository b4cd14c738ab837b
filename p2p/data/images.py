"""From a file to a frame: read, decode, take the half that is asked for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from p2p.data.pairs import Pair, Source

Decode = Callable[..., np.ndarray]


def read_input(pair: Pair, decode: Decode, *, channels: int) -> np.ndarray:
    """The input of a pair alone, (H, W, channels), as `decode` gives it.

    Raises:
        ValueError: the file cannot be read, and why.
    """
    return frame_of(read_file(pair.input), pair.input, decode, channels=channels)


def read_file(source: Source) -> bytes:
    """The bytes of an image's file.

    Raises:
        ValueError: it cannot be read, and why.
    """
    try:
        return source.path.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot read {source.path}: {error.strerror or error}") from error


def frame_of(data: bytes, source: Source, decode: Decode, *, channels: int) -> np.ndarray:
    """The bytes of an image's file -> the image, (H, W, channels), as `decode` gives it.

    Raises:
        ValueError: they cannot be decoded, and why.
    """
    return _half(_decoded(data, source, decode, channels), source)


def read_pair(
    pair: Pair, decode: Decode, *, input_channels: int, target_channels: int
) -> tuple[np.ndarray, np.ndarray]:
    """Input and target, (H, W, input_channels) and (H, W, target_channels), as `decode` gives them.

    Raises:
        ValueError: a file cannot be read, or the two differ in size.
    """
    assert pair.target is not None
    frame = _decoded(read_file(pair.input), pair.input, decode, input_channels)
    if pair.target.path == pair.input.path and target_channels == input_channels:
        other = frame  # A|B side by side: decoded once
    else:
        other = _decoded(read_file(pair.target), pair.target, decode, target_channels)
    input_HWC, target_HWC = _half(frame, pair.input), _half(other, pair.target)
    if input_HWC.shape[:2] != target_HWC.shape[:2]:
        sizes = ["x".join(map(str, image.shape[1::-1])) for image in (input_HWC, target_HWC)]
        raise ValueError(
            f"{pair.input.path} is {sizes[0]} but its partner {pair.target.path} is {sizes[1]}: make them equal"
        )
    return input_HWC, target_HWC


def _decoded(data: bytes, source: Source, decode: Decode, channels: int) -> np.ndarray:
    try:
        return decode(data, channels=channels)
    except ValueError as error:
        raise ValueError(f"cannot read {source.path}: {error}") from error


def _half(frame_HWC: np.ndarray, source: Source) -> np.ndarray:
    if source.half is None:
        return frame_HWC
    width = frame_HWC.shape[1]
    if width % 2:
        raise ValueError(f"{source.path} is {width} pixels wide: an A|B pair is two halves of equal width")
    return frame_HWC[:, : width // 2] if source.half == "left" else frame_HWC[:, width // 2 :]
