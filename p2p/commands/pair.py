"""Make training pairs from folders of images: `p2p pair --help`."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from p2p.codecs.pillow import Pillow, decode
from p2p.config.cli import one_sentence, some_of, wants_trace
from p2p.config.pasteable import command_line
from p2p.data.edges import check_arguments, line_drawing
from p2p.data.images import read_input, read_pair
from p2p.data.pairs import Pair, check_outside, find_inputs, match
from p2p.data.walk import Skipped, summary
from p2p.system import atomic
from p2p.system.signals import work


def edges(
    photos: Path,
    out: Path,
    *,
    codec: Pillow,
    val: float | None = None,
    sigma: float = 1.5,
    low: float = 0.02,
    high: float = 0.05,
) -> int:
    """Write (line drawing | photo) for every photo below a folder, under its own relative path; returns how many.

    Args:
        val: see `divided`.

    Raises:
        ValueError: no such folder; or, when the others are written, up to five of the images that cannot be read or
            have more than 8 bits a channel.
    """

    def draw(pair: Pair) -> list[np.ndarray]:
        photo = read_input(pair, decode)
        _check_depth(pair, photo)
        return [np.repeat(line_drawing(photo, sigma=sigma, low=low, high=high), 3, axis=2), photo]

    if not photos.is_dir():
        raise ValueError(f"there is no folder {photos}: give one that holds photos, or train/ and val/ with photos")
    check_outside(out, photos)
    check_arguments(sigma=sigma, low=low, high=high)
    skipped: Skipped = {}
    pairs = find_inputs(str(photos), layout="inputs", skipped=skipped)
    if skipped:
        print(f"{len(pairs):,} photos in {photos}{summary(skipped)}")
    return _write(divided(pairs, val), draw, out, codec)


def combine(a: Path, b: Path, out: Path, *, codec: Pillow, val: float | None = None) -> int:
    """Write (A | B) for every two images of equal relative path and stem; returns how many.

    Args:
        val: see `divided`.

    Raises:
        ValueError: no such folder, or an image without partner; or, when the others are written, up to five of those
            that are of another size than their partner or cannot be read.
    """

    def both(pair: Pair) -> list[np.ndarray]:
        frames = read_pair(pair, decode)
        _check_depth(pair, *frames)
        return list(frames)

    for folder in (a, b):
        if not folder.is_dir():
            raise ValueError(f"there is no folder {folder}: give two that hold images of equal names")
        check_outside(out, folder)
    skipped: Skipped = {}
    pairs = match(a, b, skipped=skipped)
    if skipped:
        print(f"{len(pairs):,} pairs in {a} and {b}{summary(skipped)}")
    return _write(divided(pairs, val), both, out, codec)


def split(folder: Path, out: Path, *, val: float) -> int:
    """Copy the images of a folder, byte by byte, into train/ and val/; returns how many.

    Args:
        val: see `divided`.

    Raises:
        ValueError: no such folder.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}: give one that holds A|B images")
    check_outside(out, folder)
    images = find_inputs(str(folder), layout="inputs")
    for image in tqdm(divided(images, val), unit="image", disable=None):
        path = out / f"{image.name}{image.input.path.suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write(path, image.input.path.read_bytes(), durable=False)
    return len(images)


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


def _check_depth(pair: Pair, *frames: np.ndarray) -> None:
    if any(frame.dtype != np.uint8 for frame in frames):
        raise ValueError(
            f"{pair.input.path} or its partner has more than 8 bits a channel, which an A|B image has not: train on"
            " folders A and B instead"
        )


def _write(pairs: list[Pair], join: Callable[[Pair], list[np.ndarray]], out: Path, codec: Pillow) -> int:
    for folder in {(out / pair.name).parent for pair in pairs}:
        atomic.sweep(folder)
    reasons = []
    for pair in tqdm(pairs, unit="image", disable=None):
        try:
            joined = np.hstack(join(pair))
        except ValueError as error:  # the others are made all the same
            reasons.append(str(error))
            continue
        path = out / f"{pair.name}{codec.suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write(path, codec.encode(joined), durable=False)
    if reasons:
        raise ValueError(
            f"{len(reasons)} of {len(pairs)} pairs could not be made, the others are in {out}: {some_of(reasons)}"
        )
    return len(pairs)


def main(arguments: list[str]) -> None:
    """The command line, without the name of the command."""
    parser = argparse.ArgumentParser(
        prog="p2p pair",
        description="Make A|B images to train on. They keep the folders of the inputs, unless --val makes others.",
        epilog=f"Then: {command_line('train')} data=folder data.root=OUT data.layout=side_by_side",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    what = "Write (line drawing | photo) for every photo, by Canny's edge detector."
    drawing = commands.add_parser("edges", help="line drawing | photo, from a folder of photos", description=what)
    drawing.add_argument(
        "photos", type=Path, metavar="PHOTOS", help="the folder of the photos; folders inside are searched, too"
    )
    what = "Write (A | B) for every two images of equal size and equal path inside A and B; suffixes may differ."
    joining = commands.add_parser(
        "combine", help="A | B, from two folders of images with equal names", description=what
    )
    for side in "AB":
        joining.add_argument(
            side.lower(), type=Path, metavar=side, help="a folder of images; folders inside are searched, too"
        )
    what = "Copy A|B images into OUT/train and OUT/val. Their names decide which go where: it is the same every time."
    dividing = commands.add_parser("split", help="train/ and val/, from one folder of A|B images", description=what)
    dividing.add_argument(
        "folder", type=Path, metavar="FOLDER", help="the folder of the images; folders inside are searched, too"
    )
    for command, default in ((drawing, None), (joining, None), (dividing, 0.15)):
        command.add_argument("out", type=Path, metavar="OUT", help="the folder to write the pairs to")
        meaning = "share of the pairs to put into val/, such as 0.15; the others go to train/"
        standard = "default: %(default)s" if default else "default: folders stay as they are"
        command.add_argument("--val", type=float, default=default, metavar="X", help=f"{meaning} ({standard})")
    for command in (drawing, joining):
        command.add_argument(
            "--format", choices=("png", "jpg", "webp"), default="png", help="file format of the pairs (%(default)s)"
        )
        command.add_argument(
            "--quality", type=int, default=95, metavar="Q", help="quality of jpg and webp, 1 to 100 (%(default)s)"
        )
    for name, default, meaning in (
        ("sigma", 1.5, "blur before the search for edges, in pixels; a larger one leaves out more detail"),
        ("low", 0.02, "weakest edge that continues a line; 1 is black to white within a pixel"),
        ("high", 0.05, "weakest edge that begins a line"),
    ):
        drawing.add_argument(f"--{name}", type=float, default=default, metavar="X", help=f"{meaning} (%(default)s)")
    args = parser.parse_args(arguments)
    with one_sentence("pair", full=wants_trace()):
        work()
        if args.command == "split":
            count = split(args.folder, args.out, val=args.val)
        else:
            codec = Pillow(format=args.format, quality=args.quality)
            if args.command == "edges":
                slopes = {"sigma": args.sigma, "low": args.low, "high": args.high}
                count = edges(args.photos, args.out, codec=codec, val=args.val, **slopes)
            else:
                count = combine(args.a, args.b, args.out, codec=codec, val=args.val)
    print(f"{count} pairs written to {args.out}")
    if (args.out / "train").is_dir() and (args.out / "val").is_dir():
        # Photos of several shapes make pairs of several shapes, which are refused unless their layout is told.
        settings = {"data": "folder", "data.root": str(args.out), "data.layout": "side_by_side"}
        print(f"next: {command_line('train', **settings)}")
    else:
        print(f"next: put them into {args.out}/train and {args.out}/val, as --val=0.15 does")
