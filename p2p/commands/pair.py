"""Make training pairs from folders of images: `p2p pair --help`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
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


def edges(photos: Path, out: Path, *, codec: Pillow, sigma: float = 1.5, low: float = 0.02, high: float = 0.05) -> int:
    """Write (line drawing | photo) for every photo below a folder, under its own relative path; returns how many.

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
    return _write(pairs, draw, out, codec)


def combine(a: Path, b: Path, out: Path, *, codec: Pillow) -> int:
    """Write (A | B) for every two images of equal relative path and stem; returns how many.

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
    return _write(pairs, both, out, codec)


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
        description="Make A|B images to train on. The outputs keep the folders of the inputs, such as train/ and val/.",
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
    for command in (drawing, joining):
        command.add_argument("out", type=Path, metavar="OUT", help="the folder to write the pairs to")
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
        codec = Pillow(format=args.format, quality=args.quality)
        if args.command == "edges":
            count = edges(args.photos, args.out, codec=codec, sigma=args.sigma, low=args.low, high=args.high)
        else:
            count = combine(args.a, args.b, args.out, codec=codec)
    print(f"{count} pairs written to {args.out}")
    if (args.out / "train").is_dir() and (args.out / "val").is_dir():
        # Photos of several shapes make pairs of several shapes, which are refused unless their layout is told.
        settings = {"data": "folder", "data.root": str(args.out), "data.layout": "side_by_side"}
        print(f"next: {command_line('train', **settings)}")
    else:
        print(f"next: put them into {args.out}/train and {args.out}/val")
