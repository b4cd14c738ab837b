"""Make training pairs from folders of images: `p2p pair --help`."""

from __future__ import annotations

from pathlib import Path

from p2p.codecs.pillow import Pillow
from p2p.commands.pair import images, pairs
from p2p.commands.pair.options import parse
from p2p.config.cli import one_sentence, wants_trace
from p2p.config.pasteable import command_line
from p2p.system.plural import counted
from p2p.system.signals import work


def main(arguments: list[str]) -> None:
    """The command line, without the name of the command."""
    args = parse(arguments)
    with one_sentence("pair", full=wants_trace()):
        work()
        if args.command == "split":
            count = pairs.split(args.folder, args.out, val=args.val, skip_existing=args.skip_existing)
        elif args.command in ("resize", "pad"):
            colour = args.colour or ("0" if args.labels else "white")
            codec = Pillow(format=args.format, quality=args.quality)
            settings = images.Settings(codec, args.layout, args.labels, colour, args.skip_existing)
            if args.command == "resize":
                count = images.resize(args.folder, args.out, size=args.size, padded=args.pad, settings=settings)
            else:
                count = images.pad(args.folder, args.out, size=args.size, settings=settings)
            print(f"{counted(count, 'image')} written to {args.out}")
            return
        else:
            writing = pairs.Writing(
                args.out, Pillow(format=args.format, quality=args.quality), args.val, args.skip_existing
            )
            match args.command:
                case "edges":
                    count = pairs.edges(args.photos, writing, sigma=args.sigma, low=args.low, high=args.high)
                case "grayscale":
                    count = pairs.grayscale(args.photos, writing, lightness=args.lightness)
                case "blank":
                    count = pairs.blank(args.photos, writing, share=args.share, colour=args.colour)
                case _:
                    count = pairs.combine(args.a, args.b, writing)
    print(f"{counted(count, 'pair')} written to {args.out}")
    _say_what_is_next(args.out, colorization=getattr(args, "lightness", False))


def _say_what_is_next(out: Path, *, colorization: bool) -> None:
    if (out / "train").is_dir() and (out / "val").is_dir():
        # Photos of several shapes make pairs of several shapes, which are refused unless their layout is told.
        first = {"experiment": "colorization"} if colorization else {"data": "folder"}
        settings = first | {"data.root": str(out), "data.layout": "side_by_side"}
        print(f"next: {command_line('train', **settings)}")
    else:
        print(f"next: put them into {out}/train and {out}/val, as --val=0.15 does")
