"""A|B images of photos or of two folders, and their division into train/ and val/."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from p2p.codecs.pillow import Pillow, decode
from p2p.commands.pair import frames
from p2p.commands.pair.writing import write_all
from p2p.data.images import read_file, read_input, read_pair
from p2p.data.pairs import Pair, check_outside, find_inputs, match
from p2p.data.walk import Skipped, summary
from p2p.system.plural import counted


@dataclass(frozen=True)
class Writing:
    """Where pairs go, and how they are written.

    Attributes:
        out: the folder.
        codec: writes them.
        val: see `divided`.
        skip_existing: see `p2p.commands.pair.writing`.
    """

    out: Path
    codec: Pillow
    val: float | None = None
    skip_existing: bool = False


def edges(photos: Path, writing: Writing, *, sigma: float = 1.5, low: float = 0.02, high: float = 0.05) -> int:
    """Write (line drawing | photo), see `of_photos`; the other arguments are those of `line_drawing`."""
    from p2p.data.edges import check_arguments, line_drawing  # here: the other tools do not need torch

    check_arguments(sigma=sigma, low=low, high=high)

    def drawing(photo: np.ndarray) -> np.ndarray:
        return np.repeat(line_drawing(photo, sigma=sigma, low=low, high=high), 3, axis=2)

    return of_photos(photos, writing, drawing)


def grayscale(photos: Path, writing: Writing, *, lightness: bool = False) -> int:
    """Write (grey photo | photo), see `of_photos`.

    Args:
        lightness: the grey has the photo's lightness L of CIE Lab; False: the luma of ITU-R 601-2, see `frames.grey`.
    """
    if not lightness:
        return of_photos(photos, writing, frames.grey)
    import torch  # here: the other tools do not need it

    from p2p.batch import from_frames, to_frames
    from p2p.models.lab import grey_of

    def grey(photo: np.ndarray) -> np.ndarray:
        return np.repeat(to_frames(grey_of(from_frames(torch.tensor(photo)[None])))[0].numpy(), 3, axis=2)

    return of_photos(photos, writing, grey)


def blank(photos: Path, writing: Writing, *, share: float, colour: str) -> int:
    """Write (photo with a blank middle | photo), see `of_photos`.

    Args:
        share: of the photo's width and height that is blank, in (0, 1).
        colour: of it.
    """
    if not 0 < share < 1:
        raise ValueError(f"--share={share:g} is out of range: use a share between 0 and 1, such as 0.3")
    return of_photos(photos, writing, partial(frames.blank, share=share, colour=frames.check_colour(colour)))


def of_photos(photos: Path, writing: Writing, change: Callable[[np.ndarray], np.ndarray]) -> int:
    """Write (changed photo | photo) for every photo below a folder, under its own relative path; returns how many.

    Args:
        change: uint8 (H, W, 3) -> the same.

    Raises:
        ValueError: no such folder; or, when the others are written, up to five of the images that cannot be read or
            have more than 8 bits a channel.
    """

    def both(pair: Pair) -> list[np.ndarray]:
        photo = read_input(pair, decode)
        _check_depth(pair, photo)
        return [change(photo), photo]

    if not photos.is_dir():
        raise ValueError(f"there is no folder {photos}: give one that holds photos, or train/ and val/ with photos")
    check_outside(writing.out, photos)
    skipped: Skipped = {}
    pairs = find_inputs(str(photos), layout="inputs", skipped=skipped)
    if skipped:
        print(f"{counted(len(pairs), 'photo')} in {photos}{summary(skipped)}")
    return _write(pairs, both, writing)


def combine(a: Path, b: Path, writing: Writing) -> int:
    """Write (A | B) for every two images of equal relative path and stem; returns how many.

    Raises:
        ValueError: no such folder, or an image without partner; or, when the others are written, up to five of those
            that are of another size than their partner or cannot be read.
    """

    def both(pair: Pair) -> list[np.ndarray]:
        read = read_pair(pair, decode)
        _check_depth(pair, *read)
        return list(read)

    for folder in (a, b):
        if not folder.is_dir():
            raise ValueError(f"there is no folder {folder}: give two that hold images of equal names")
        check_outside(writing.out, folder)
    skipped: Skipped = {}
    pairs = match(a, b, skipped=skipped)
    if skipped:
        print(f"{counted(len(pairs), 'pair')} in {a} and {b}{summary(skipped)}")
    return _write(pairs, both, writing)


def split(folder: Path, out: Path, *, val: float, skip_existing: bool = False) -> int:
    """Copy the images of a folder, byte by byte, into train/ and val/; returns how many.

    Args:
        val: see `divided`.
        skip_existing: see `p2p.commands.pair.writing`.

    Raises:
        ValueError: no such folder, or an image that cannot be read.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}: give one that holds A|B images")
    check_outside(out, folder)
    images = divided(find_inputs(str(folder), layout="inputs"), val)
    return write_all(images, lambda image: read_file(image.input), out, skip_existing=skip_existing)


def divided(pairs: list[Pair], val: float | None) -> list[Pair]:
    """The pairs under names in train/ and val/. The names decide which are which, so it is the same every time.

    Args:
        val: share that goes to val/, in (0, 1), at least one pair; None leaves names as they are.

    Raises:
        ValueError: the share is out of range, the pairs are in train/ or val/ already, or there is only one.
    """
    if val is None:
        return pairs
    if not 0 < val < 1:
        raise ValueError(f"--val={val:g} is out of range: use a share between 0 and 1, such as 0.15")
    if any(pair.name.partition("/")[0].lower() in ("train", "val") for pair in pairs):
        raise ValueError("the images are in train/ or val/ already: leave --val out")
    if len(pairs) < 2:
        raise ValueError("one pair cannot be divided into train/ and val/: add more, or leave --val out")
    shuffled = sorted(pairs, key=lambda pair: hashlib.sha256(pair.name.encode()).digest())
    count = min(max(1, round(val * len(pairs))), len(pairs) - 1)
    return [
        replace(pair, name=f"{'val' if number < count else 'train'}/{pair.name}")
        for number, pair in enumerate(shuffled)
    ]


def _check_depth(pair: Pair, *of_pair: np.ndarray) -> None:
    if any(frame.dtype != np.uint8 for frame in of_pair):
        raise ValueError(
            f"{pair.input.path} or its partner has more than 8 bits a channel, which an A|B image has not: train on"
            " folders A and B instead"
        )


def _write(pairs: list[Pair], join: Callable[[Pair], list[np.ndarray]], writing: Writing) -> int:
    def make(pair: Pair) -> bytes:
        return writing.codec.encode(np.hstack(join(pair)))

    named = divided(pairs, writing.val)
    return write_all(named, make, writing.out, suffix=writing.codec.suffix, skip_existing=writing.skip_existing)
